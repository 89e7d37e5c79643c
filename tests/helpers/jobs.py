"""Helpers for tests of the job."""

import json
from pathlib import Path

from elements_jax.data.record import Record
from elements_jax.data.tfrecord import TFRecordSource, find_shards

SMALL = ["--size", "64", "--grid", "8", "--image-format", "png", "--workers", "1"]
"""Arguments of a job on scenes of 64 px."""


def read(out: Path, split: str = "train") -> list[Record]:
    source = TFRecordSource(find_shards(out)[split])
    return [Record.from_example(source[i], source.where(i)) for i in range(len(source))]


def manifest(out: Path, split: str = "train") -> dict[str, dict]:
    """Return the lines of all manifests, by source id."""
    paths = sorted((out / "manifest").glob(f"{split}-*.jsonl"))
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    assert len({line["source_id"] for line in lines}) == len(lines)
    return {line["source_id"]: line for line in lines}


def contents(out: Path) -> dict[str, bytes]:
    """Return every file below a folder except the job's settings."""
    files = (path for path in out.rglob("*") if path.is_file() and not path.name.startswith("job-"))
    return {str(path.relative_to(out)): path.read_bytes() for path in files}
