"""Fixtures of batch inference."""

from pathlib import Path

import pytest

from elements_jax.pipeline.pipeline import ElementsPipeline
from tests.helpers.pipeline.batch import example_lines, write_lines


@pytest.fixture
def model(model_folder: Path, pipeline: ElementsPipeline, monkeypatch: pytest.MonkeyPatch) -> str:
    """The model's name for commands, which take it opened and compiled once in this process."""
    monkeypatch.setattr(ElementsPipeline, "from_pretrained", lambda *_, **__: pipeline)
    return str(model_folder)


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    """Seven scripts, the third with a name."""
    lines = example_lines(7)
    lines[2]["name"] = "third-é"
    return write_lines(tmp_path / "scripts.jsonl", lines)
