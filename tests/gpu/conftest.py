"""Tests of what only a GPU can run: `pytest -m gpu tests/gpu`, on a machine with an NVIDIA GPU.

They need JAX, Flax, NumPy, tyro, grain and pytest. ELEMENTS_GPU_REHEARSAL=1 runs the same tests on a CPU, in small.
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
            item.add_marker(pytest.mark.filterwarnings("default"))  # of other versions, on machines of other people


@pytest.fixture(scope="session")
def rehearsal() -> bool:
    """Whether a CPU stands in for the GPU. Skips the test where there is neither."""
    if not REHEARSAL and jax.default_backend() != "gpu":
        pytest.skip("needs a GPU: `pytest -m gpu tests/gpu`, or ELEMENTS_GPU_REHEARSAL=1 to run it in small on a CPU")
    return REHEARSAL


@pytest.fixture(scope="session", autouse=True)
def device(rehearsal: bool) -> jax.Device:
    return jax.devices()[0]


@pytest.fixture(scope="session")
def cpu() -> jax.Device:
    return jax.devices("cpu")[0]
