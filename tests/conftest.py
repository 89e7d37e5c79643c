"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real weights and photographs: $ELEMENTS_DATA, else `../shared` beside the repository."""
    folder = Path(os.environ.get("ELEMENTS_DATA", Path(__file__).parents[2] / "shared"))
    if not (folder / "weights" / "mobile_sam.pt").is_file():
        pytest.skip(f"no real weights and photographs in {folder} (set ELEMENTS_DATA)")
    return folder
