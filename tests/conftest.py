"""Fixtures shared by all tests."""

import os
import re
import sys
from pathlib import Path

import hypothesis
import jax
import pytest

from elements_jax.parallel.xla_flags import prefer_own_convolutions

# Tests do not touch the user's folder, and compile what they test. jaxtyping's plugin has imported JAX already.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
jax.config.update("jax_enable_compilation_cache", False)
# Look at the command line, since JAX starts before pytest has parsed it: `pytest -m gpu` is for the GPU.
if not re.search(r"-m ?gpu\b", " ".join(sys.argv)):
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    prefer_own_convolutions()  # before JAX starts, so that this process and those it starts compute the same bits
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0"  # halves compilation, the longest part of tests

hypothesis.settings.register_profile("untimed", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real weights and photographs: $ELEMENTS_DATA, or else `../shared` next to the repository."""
    folder = Path(os.environ.get("ELEMENTS_DATA", Path(__file__).parents[2] / "shared"))
    if not (folder / "weights" / "mobile_sam.pt").is_file():
        pytest.skip(f"no real weights and photographs in {folder} (set ELEMENTS_DATA)")
    return folder


# A model of a few thousand random parameters, and records for it. They import modules after pytest has parsed its
# options, so that shapes are checked in these modules.


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 records to train on and 8 held out."""
    from tests.helpers.records import write_records

    return write_records(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="session")
def small():
    from tests.helpers.records import SMALL

    return SMALL


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.helpers.models import write_random_model
    from tests.helpers.records import SMALL

    return write_random_model(tmp_path_factory.mktemp("model"), SMALL)


@pytest.fixture(scope="session")
def pipeline(model_folder: Path):
    from elements_jax.pipeline.pipeline import ElementsPipeline

    return ElementsPipeline.from_pretrained(model_folder)
