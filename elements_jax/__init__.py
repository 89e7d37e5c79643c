"""elements-jax: Editable Image Elements for Controllable Synthesis (Mu et al., ECCV 2024) in JAX and Flax.

This module imports no package, so that `elements_jax.data` (NumPy only) can be used where JAX is not installed, as in
the `partition` package.
"""

from pathlib import Path

__version__ = "0.1.0"

TINY = Path(__file__).with_name("weights") / "tiny"
"""The model folder that comes with this package: the preset `tiny`, trained on two CPU cores; its README says how."""
