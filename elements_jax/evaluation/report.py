"""What an evaluation says: a table, a JSON file that says how its numbers came about, and the telling pictures."""

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
"""Pictures below which FID's covariances, of as many features, are singular, and the distance is too large."""
TILE = 160
"""Pixels to which pictures are enlarged, by whole numbers of times, at least."""
COLUMNS = {"input": "input", "truth": "truth", "picture": "judged"}


@dataclass(frozen=True)
class Score:
    """A figure of a method: the mean over `count` pictures, or FID of all."""

    method: str
    kind: str
    """Of edit; "all" for all together."""
    metric: str
    value: float
    count: int
    weights: str | None
    """Checksum of the model, where it is known."""


def numbers(samples: Samples, verdict: Verdict, fid_name: str) -> list[Score]:
    """The means of a method's figures, of all pictures and of each kind of edit; metrics of no picture are left out."""
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
    """A line for each method and kind of edit, and for those that were not run. A count in brackets is that of a metric
    which fewer pictures have."""
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
    digits = {"mse": 5, "ssim": 4, "lpips-alex": 4, "lpips-vgg": 4, "target": 4, "source": 4}.get(number.metric, 2)
    return f"{number.value:.{digits}f}" + (f" ({number.count})" if number.count != count else "")


def save_json(path: Path, found: Iterable[Score], settings: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Write the numbers, and how they came about; whole or not at all."""
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
    """The commit of this package's files, and "-dirty" where they differ from it; None where git does not hold them."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", here, *arguments], check=True, capture_output=True, text=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "report.py")  # or it may be installed inside some other repository
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return None


def save_pictures(folder: Path, samples: Samples, verdict: Verdict, judge: Judge, each: int = 3) -> tuple[Path, str]:
    """Write METHOD.png: the worst, median and best pictures, next to what they are judged by.

    Returns its path, and the metric that tells which these are, the first that any picture has. Raises ValueError where
    there is none.
    """
    known = ((name, values) for name, values in verdict.values.items() if not np.isnan(values).all())
    name, values = next(known, (None, None))
    if name is None or values is None:
        raise ValueError(f"{samples.method}: no picture has what any metric is of")
    order = _from_worst(values, judge.metrics[name])
    middle = max(0, len(order) // 2 - each // 2)
    strips = []
    for title, chosen in (
        ("worst", order[:each]),
        ("median", order[middle : middle + each]),
        ("best", order[-each:][::-1]),
    ):
        for number in chosen:
            # As many as a batch holds, since that is what samples are made by.
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
    """Pictures side by side, each under its name, and above them the title."""
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
