"""Tests that need a GPU: `pytest -m gpu tests/gpu`, on a machine with an NVIDIA GPU.

They need JAX, Flax, NumPy, tyro, grain and pytest. ELEMENTS_GPU_REHEARSAL=1 runs small versions of them on a CPU.
"""

import os
from pathlib import Path

import jax
import pytest

REHEARSAL = bool(os.environ.get("ELEMENTS_GPU_REHEARSAL"))


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.filterwarnings("default"))  # versions on other machines may warn


@pytest.fixture(scope="session")
def rehearsal() -> bool:
    """Whether a CPU stands in for the GPU. Skips the test if there is neither."""
    if not REHEARSAL and jax.default_backend() != "gpu":
        pytest.skip("needs a GPU: `pytest -m gpu tests/gpu`, or ELEMENTS_GPU_REHEARSAL=1 to run it in small on a CPU")
    return REHEARSAL


@pytest.fixture(scope="session", autouse=True)
def device(rehearsal: bool) -> jax.Device:
    return jax.devices()[0]


@pytest.fixture(scope="session")
def cpu() -> jax.Device:
    return jax.devices("cpu")[0]
