"""elements-jax: Editable Image Elements for Controllable Synthesis (Mu et al., ECCV 2024) in JAX and Flax.

This module imports nothing, so that `elements_jax.schema` and `elements_jax.records` (NumPy only) can be used
where JAX is not installed, as in the `partition` package.
"""

__version__ = "0.1.0"
