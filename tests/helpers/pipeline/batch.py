"""Scripts for batch inference, and what it wrote."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def example_lines(count: int) -> list[dict[str, Any]]:
    """Return scripts with every kind of edit and with none, of both splits, some on the same record."""
    edits = [
        [{"edit": "delete", "elements": [0]}],
        [],
        [{"edit": "move", "elements": [1], "by": [0.25, 0.0]}, {"edit": "resize", "elements": [1], "scale": 0.5}],
        [{"edit": "delete", "elements": [3]}, {"edit": "compose", "image": "103", "elements": [2], "by": [0.5, 0.0]}],
    ]
    return [
        {"source_id": str(100 + i // 3 % 8), "version": 1, "edits": edits[i % 4], "prompt": "a red square", "seed": i}
        for i in range(count)
    ]


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def pictures(out: Path) -> dict[str, np.ndarray]:
    """Return the pixels of all images by name, as integers."""
    found = {}
    for path in out.glob("shard-*/*.png"):
        with Image.open(path) as picture:
            found[path.stem] = np.asarray(picture).astype(int)
    return found


def manifest(out: Path) -> dict[str, dict[str, Any]]:
    paths = sorted(out.glob("shard-*/manifest.jsonl"))
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return {line["name"]: line for line in lines}
