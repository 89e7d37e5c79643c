"""Fixtures shared by all tests."""

import os
import re
import sys
from pathlib import Path

import hypothesis
import pytest

from elements_jax.cpu import prefer_own_convolutions

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # tests leave the user's folder alone, and compile what they test
# Asked of the command line, since JAX starts before pytest has read it: `pytest -m gpu` is for the GPU.
if not re.search(r"-m ?gpu\b", " ".join(sys.argv)):
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    prefer_own_convolutions()  # before JAX starts, so that this process and those it starts compute the same bits
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"  # tests spend their time compiling: half of it

hypothesis.settings.register_profile("untimed", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real weights and photographs: $ELEMENTS_DATA, else `../shared` beside the repository."""
    folder = Path(os.environ.get("ELEMENTS_DATA", Path(__file__).parents[2] / "shared"))
    if not (folder / "weights" / "mobile_sam.pt").is_file():
        pytest.skip(f"no real weights and photographs in {folder} (set ELEMENTS_DATA)")
    return folder
