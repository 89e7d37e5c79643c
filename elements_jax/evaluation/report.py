"""Reports of an evaluation: a table, a JSON file with all settings, and the worst, median and best images."""

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from elements_jax import __version__
from elements_jax.data.atomic import new_file
from elements_jax.evaluation.judge import Arrays, Judge, Metric, Samples, Verdict

ALL = "all"
FEW = 2048
"""Number of features of FID: with fewer images its covariances are singular and the distance is biased upwards."""
TILE = 160
"""Minimum size in pixels to which images are enlarged, by an integer factor."""
COLUMNS = {"input": "input", "truth": "truth", "picture": "judged"}


@dataclass(frozen=True)
class Score:
    """A score of a method: the mean of a metric over `count` images, or FID over all."""

    method: str
    kind: str
    """Kind of edit; "all" for all together."""
    metric: str
    value: float
    count: int
    weights: str | None
    """Checksum of the model, if known."""


def numbers(samples: Samples, verdict: Verdict, fid_name: str) -> list[Score]:
    """Return the means of a method's metrics, overall and by kind of edit; metrics without an image are omitted."""
    kinds = np.array(samples.kinds[: verdict.count])
    groups = [ALL, *sorted(set(kinds) - {""})]
    found = []
    for kind in groups if len(groups) > 2 else groups[:1]:
        for name, values in verdict.values.items():
            known = values[(kinds == kind) | (kind == ALL)]
            known = known[~np.isnan(known)]
            if len(known):
                found.append(Score(samples.method, str(kind), name, float(np.mean(known)), len(known), samples.weights))
    if (distance := verdict.fid()) is not None:
        found.append(Score(samples.method, ALL, fid_name, distance, verdict.count, samples.weights))
    return found


def table(found: Sequence[Score], not_run: Sequence[str] = ()) -> str:
    """Format a line per method and kind of edit, and per method that was not run. A count in brackets belongs to a
    metric with fewer images."""
    metrics = list(dict.fromkeys(number.metric for number in found))
    rows = [["", "", "N", *metrics]]
    for method, kind in dict.fromkeys((number.method, number.kind) for number in found):
        here = {number.metric: number for number in found if (number.method, number.kind) == (method, kind)}
        count = max(number.count for number in here.values())
        cells = [_cell(here.get(metric), count) for metric in metrics]
        rows.append([method, kind, str(count), *cells])
    rows += [[method, "not run", "0", *["-"] * len(metrics)] for method in not_run]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        names = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        return "  ".join([*names, *(cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True))])

    return "\n".join(map(line, rows))


def _cell(number: Score | None, count: int) -> str:
    if number is None:
        return "-"
    digits = 5 if number.metric == "mse" else 4 if "ssim" in number.metric or "lpips" in number.metric else 2
    return f"{number.value:.{digits}f}" + (f" ({number.count})" if number.count != count else "")


def save_json(path: Path, found: Iterable[Score], settings: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Write the scores and settings atomically."""
    content = {
        "numbers": [asdict(number) for number in found],
        "settings": dict(settings),
        "version": __version__,
        "commit": commit(),
        "notes": list(notes),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        file.write(json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


def commit() -> str | None:
    """Return the commit of this package's files, plus "-dirty" if they differ from it; None outside its repository."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", here, *arguments], check=True, capture_output=True, text=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "report.py")  # it may be installed inside another repository
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return None


def save_pictures(folder: Path, samples: Samples, verdict: Verdict, judge: Judge, each: int = 3) -> tuple[Path, str]:
    """Write METHOD.png: the worst, median and best images, next to their references.

    Returns its path, and the metric that ranks them: the first one that any image has. Raises ValueError if there is
    none.
    """
    known = ((name, values) for name, values in verdict.values.items() if not np.isnan(values).all())
    name, values = next(known, (None, None))
    if name is None or values is None:
        raise ValueError(f"{samples.method}: no image has the inputs of any metric")
    order = _from_worst(values, judge.metrics[name])
    middle = max(0, len(order) // 2 - each // 2)
    strips = []
    for title, chosen in (
        ("worst", order[:each]),
        ("median", order[middle : middle + each]),
        ("best", order[-each:][::-1]),
    ):
        for number in chosen:
            # A full batch, because samples are made in batches.
            arrays = samples.read([int(number)] * judge.batch_size)[0]
            strips.append(_strip(f"{title}: {samples.names[number]}, {name} {values[number]:.4g}", arrays))
    width = max(strip.shape[1] for strip in strips)
    padded = [np.pad(strip, ((0, 6), (0, width - strip.shape[1]), (0, 0)), constant_values=255) for strip in strips]
    path = folder / f"{samples.method}.png"
    folder.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        Image.fromarray(np.concatenate(padded)).save(file, "PNG")
    return path, name


def _from_worst(values: np.ndarray, metric: Metric) -> np.ndarray:
    order = np.argsort(values if metric.high_is_good else -values, kind="stable")
    return order[~np.isnan(values[order])]


def _strip(title: str, arrays: Arrays) -> UInt8[np.ndarray, "height width 3"]:
    """Draw images side by side, each with its name, below a title."""
    columns = [_tile(word, arrays[key]) for key, word in COLUMNS.items() if key in arrays]
    row = np.concatenate(columns, axis=1)
    head = Image.new("RGB", (max(row.shape[1], 8 * len(title)), 14), "white")
    ImageDraw.Draw(head).text((2, 1), title, fill="black")
    row = np.pad(row, ((0, 0), (0, head.width - row.shape[1]), (0, 0)), constant_values=255)
    return np.concatenate([np.asarray(head), row])


def _tile(word: str, picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "height width 3"]:
    factor = max(1, -(-TILE // max(picture.shape[:2])))
    large = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    head = Image.new("RGB", (large.shape[1], 14), "white")
    ImageDraw.Draw(head).text((2, 1), word, fill="dimgray")
    return np.pad(np.concatenate([np.asarray(head), large]), ((0, 0), (0, 4), (0, 0)), constant_values=255)
