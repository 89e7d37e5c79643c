"""Scores of methods against the true results of edits, for a results folder with truths."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from elements_jax import __version__
from elements_jax.data.atomic import new_file
from elements_jax.evaluation import results
from elements_jax.evaluation.judge import Arrays, Judge, Metric, Samples
from elements_jax.evaluation.results import Case
from elements_jax.evaluation.uncertainty import differ, interval
from elements_jax.metrics import image_quality
from elements_jax.metrics.lpips import LPIPS
from elements_jax.parallel.sharding import make_mesh

KINDS = ("move", "shrink", "enlarge", "delete", "duplicate", "compose", "variation")
"""The order of a table's rows; other kinds follow."""
UNEDITED, FLAT = "unedited", "flat"
"""The image before the edit, and a flat image of its mean colour: scored like methods, as baselines."""
BATCH = 16  # images processed at once per device
HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "lpips": False}
_DIGITS = {"psnr": 2, "ssim": 4, "lpips": 4}
WHERE = ("region", "picture")
"""In the edited region, and in the complete image."""


def score(folder: Path, lpips: LPIPS | None) -> dict[str, Any]:
    """Compute the mean scores of every method of a results folder, by kind of edit and overall, and how often it wins.

    In the region, PSNR and SSIM use only its pixels, and LPIPS uses the image with the truth around the region. The
    intervals, and the order of the methods, resample the edited images (`elements_jax/evaluation/uncertainty.py`).
    `won` is the share of edits whose squared error in the region is below that of both the unedited image and, if
    present, pixel editing: neither removes the object from its old place.

    Raises ValueError if no case has a truth, or a method lacks a case that another has.
    """
    cases = [case for case in results.read_cases(folder) if results.path_of(folder, "truth", case).is_file()]
    if not cases:
        raise ValueError(f"{folder}: no case has a truth")
    names = [*results.methods(folder), UNEDITED, FLAT]
    mesh = make_mesh(-1, 1, jax.local_devices())
    judge = Judge(_metrics(lpips), mesh, BATCH * mesh.size)
    figures = {name: judge(_samples(folder, name, cases), len(cases)).values for name in names}
    bars = [figures[name][_name("region", "psnr")] for name in (UNEDITED, "pixels") if name in figures]
    kinds, images = (np.array([getattr(case, field) for case in cases]) for field in ("kind", "source_id"))
    shown = [figure for figure in HIGHER_IS_BETTER if figure != "lpips" or lpips is not None]
    table: dict[str, Any] = {}
    for kind in [*sorted(set(kinds.tolist()), key=_place), "all"]:
        chosen = np.ones(len(cases), bool) if kind == "all" else kinds == kind
        in_region = {
            figure: {name: values[_name("region", figure)][chosen] for name, values in figures.items()}
            for figure in shown
        }
        order = {figure: _ordered(values, images[chosen], figure) for figure, values in in_region.items()}
        table[kind] = {"count": int(chosen.sum()), "order": order, "methods": {}}
        for name, values in figures.items():
            row: dict[str, Any] = {
                where: {figure: float(values[_name(where, figure)][chosen].mean()) for figure in shown}
                for where in WHERE
            }
            row["interval"] = {figure: interval(of[name], images[chosen]) for figure, of in in_region.items()}
            row["won"] = float(np.all([values[_name("region", "psnr")] > bar for bar in bars], axis=0)[chosen].mean())
            table[kind]["methods"][name] = row
    return {"code": __version__, "lpips": None if lpips is None else "alex", "edits": table}


def write(folder: Path, scores: dict[str, Any]) -> Path:
    """Write the scores as FOLDER/scores.json."""
    with new_file(folder / "scores.json") as file:
        file.write(json.dumps(scores, indent=1).encode() + b"\n")
    return folder / "scores.json"


def rows(scores: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the table to print: its head, and a row per kind of edit and method. Half the width of its interval
    follows each figure of the region."""
    figures = [f for f in HIGHER_IS_BETTER if f != "lpips" or scores["lpips"]]
    head = ["edit", "count", "method", *(_name(where, f) for where in WHERE for f in figures), "won"]
    lines = []
    for kind, of_kind in scores["edits"].items():
        for name, row in of_kind["methods"].items():
            cells = []
            for where, f in itertools.product(WHERE, figures):
                ends = row["interval"][f] if where == "region" else None
                within = "" if ends is None else f" ±{(ends[1] - ends[0]) / 2:.{_DIGITS[f]}f}"
                cells.append(f"{row[where][f]:.{_DIGITS[f]}f}{within}")
            lines.append([kind, str(of_kind["count"]), name, *cells, f"{row['won']:.1%}"])
    return head, lines


def as_text(scores: dict[str, Any]) -> str:
    """Format the table and the orderings for a terminal."""
    head, lines = rows(scores)
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *lines)]
    return "\n".join([*table, "From best to worst, in the edited region:", *(f"  {o}" for o in ordering(scores))])


def ordering(scores: dict[str, Any]) -> list[str]:
    """Return for each kind of edit and each metric in the region the methods from best to worst.

    "~" stands between two neighbours whose difference may be chance: its interval contains zero.
    """
    return [f"{kind}, {f}: {order}" for kind, each in scores["edits"].items() for f, order in each["order"].items()]


def _ordered(values: dict[str, np.ndarray], images: np.ndarray, figure: str) -> str:
    sign = -1 if HIGHER_IS_BETTER[figure] else 1
    first, *others = sorted(values, key=lambda name: sign * values[name].mean())
    line, before = first, first
    for name in others:
        line += f" {'>' if differ(values[before], values[name], images) else '~'} {name}"
        before = name
    return line


def _place(kind: str) -> tuple[int, str]:
    """Sort key in the order of `KINDS`."""
    return (KINDS.index(kind) if kind in KINDS else len(KINDS)), kind


def _metrics(lpips: LPIPS | None) -> dict[str, Metric]:
    """Return the metrics by `_name`."""
    found = {
        _name("region", "psnr"): Metric(Partial(image_quality.masked_psnr), ("picture", "truth", "region")),
        _name("region", "ssim"): Metric(Partial(image_quality.masked_ssim), ("picture", "truth", "region")),
        _name("picture", "psnr"): Metric(Partial(image_quality.psnr), ("picture", "truth")),
        _name("picture", "ssim"): Metric(Partial(image_quality.ssim), ("picture", "truth")),
    }
    if lpips is not None:
        distance = Partial(lpips.network, lpips.params)
        found[_name("region", "lpips")] = Metric(Partial(_with_truth_around, distance), ("picture", "truth", "region"))
        found[_name("picture", "lpips")] = Metric(distance, ("picture", "truth"))
    return found


def _name(where: str, figure: str) -> str:
    return f"{figure} {where}"


def _with_truth_around(distance: Partial, picture: jax.Array, truth: jax.Array, region: jax.Array) -> jax.Array:
    return distance(jnp.where(region[..., None], picture, truth), truth)


def _samples(folder: Path, name: str, cases: Sequence[Case]) -> Samples:
    """Make samples of a method's results. Raises ValueError if one is missing."""
    part = "input" if name in (UNEDITED, FLAT) else name
    if missing := [case.name for case in cases if not results.path_of(folder, part, case).is_file()]:
        raise ValueError(f"{folder / part}: {len(missing)} images are missing, the first {missing[0]}.png")

    def read_one(case: Case) -> Arrays:
        picture = results.picture(folder, part, case)
        if name == FLAT:  # floats in [0, 1], as the judge expects
            picture = np.broadcast_to(np.mean(picture / 255, axis=(0, 1), dtype=np.float32), picture.shape)
        truth = results.picture(folder, "truth", case)
        return {"picture": picture, "truth": truth, "region": results.region(folder, case)}

    def read(numbers: Sequence[int]) -> list[Arrays]:
        return [read_one(cases[number]) for number in numbers]

    return Samples(name, [case.name for case in cases], [case.kind for case in cases], read)
