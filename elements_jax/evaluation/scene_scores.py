"""How near methods come to the true result of edits: a results folder with truths as a table of figures."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elements_jax import __version__
from elements_jax.evaluation import metrics, results
from elements_jax.evaluation.lpips import LPIPS
from elements_jax.evaluation.results import Case
from elements_jax.evaluation.scene_cases import KINDS
from elements_jax.files import new_file

UNEDITED, FLAT = "unedited", "flat"
"""The picture before the edit, and its mean colour all over, scored as methods are: what the figures are worth."""
BATCH = 16
HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "lpips": False}
WHERE = ("region", "picture")
"""In the edited region, and in the whole picture."""

Figures = dict[str, dict[str, float]]  # of WHERE, of HIGHER_IS_BETTER


def score(folder: Path, lpips: LPIPS | None) -> dict[str, Any]:
    """Mean figures of every method of a results folder, by kind of edit and of all, and how often each is best.

    In the region, PSNR and SSIM are over its pixels, LPIPS of the picture with the truth around it. `won` is the share
    of the edits whose squared error in the region is below both the unedited picture's and that of pixel editing, if
    that is there: neither takes away the object from where it was.

    Raises ValueError where no case has a truth, or a method lacks a case that another has.
    """
    cases = [case for case in results.read_cases(folder) if results.path_of(folder, "truth", case).is_file()]
    if not cases:
        raise ValueError(f"{folder}: no case has a truth")
    names = [*results.methods(folder), UNEDITED, FLAT]
    compute = jax.jit(_figures(lpips))
    figures = {name: _of_method(folder, name, cases, compute) for name in names}
    bars = [figures[name]["region", "psnr"] for name in (UNEDITED, "pixels") if name in figures]
    kinds = np.array([case.kind for case in cases])
    table: dict[str, Any] = {}
    for kind in [*sorted(set(kinds.tolist()), key=_place), "all"]:
        chosen = np.ones(len(cases), bool) if kind == "all" else kinds == kind
        table[kind] = {"count": int(chosen.sum()), "methods": {}}
        for name, values in figures.items():
            row: dict[str, Any] = {where: {} for where in WHERE}
            for (where, figure), each in values.items():
                row[where][figure] = float(each[chosen].mean())
            row["won"] = float(np.all([values["region", "psnr"] > bar for bar in bars], axis=0)[chosen].mean())
            table[kind]["methods"][name] = row
    return {"code": __version__, "lpips": None if lpips is None else "alex", "edits": table}


def write(folder: Path, scores: dict[str, Any]) -> Path:
    """Write the figures as FOLDER/scores.json."""
    with new_file(folder / "scores.json") as file:
        file.write(json.dumps(scores, indent=1).encode() + b"\n")
    return folder / "scores.json"


def rows(scores: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table for people: its head, and a row for each kind of edit and method."""
    figures = [f for f in HIGHER_IS_BETTER if f != "lpips" or scores["lpips"]]
    head = ["edit", "count", "method", *(f"{f} {where}" for where in WHERE for f in figures), "won"]
    lines = []
    for kind, of_kind in scores["edits"].items():
        for name, row in of_kind["methods"].items():
            digits = [f"{row[where][f]:.{2 if f == 'psnr' else 4}f}" for where in WHERE for f in figures]
            lines.append([kind, str(of_kind["count"]), name, *digits, f"{row['won']:.1%}"])
    return head, lines


def as_text(scores: dict[str, Any]) -> str:
    """The table and the orderings, for a terminal."""
    head, lines = rows(scores)
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *lines)]
    return "\n".join([*table, "From best to worst, in the edited region:", *(f"  {o}" for o in ordering(scores))])


def ordering(scores: dict[str, Any]) -> list[str]:
    """For each kind of edit and each figure in the region, the methods from the best to the worst."""
    lines = []
    for kind, of_kind in scores["edits"].items():
        for figure, higher in HIGHER_IS_BETTER.items():
            if figure == "lpips" and not scores["lpips"]:
                continue
            values = {name: row["region"][figure] for name, row in of_kind["methods"].items()}
            order = sorted(values, key=lambda name: -values[name] if higher else values[name])
            lines.append(f"{kind}, {figure}: {' > '.join(order)}")
    return lines


def _place(kind: str) -> tuple[int, str]:
    """In the order of the scenes' kinds, others after them."""
    return (KINDS.index(kind) if kind in KINDS else len(KINDS)), kind


def _figures(lpips: LPIPS | None) -> Callable[..., dict[tuple[str, str], jax.Array]]:
    def compute(picture: jax.Array, truth: jax.Array, region: jax.Array) -> dict[tuple[str, str], jax.Array]:
        found = {
            ("region", "psnr"): metrics.masked_psnr(picture, truth, region),
            ("region", "ssim"): metrics.masked_ssim(picture, truth, region),
            ("picture", "psnr"): metrics.psnr(picture, truth),
            ("picture", "ssim"): metrics.ssim(picture, truth),
        }
        if lpips is not None:
            found["region", "lpips"] = lpips(jnp.where(region[..., None], picture, truth), truth)
            found["picture", "lpips"] = lpips(picture, truth)
        return found

    return compute


def _of_method(
    folder: Path, name: str, cases: Sequence[Case], compute: Callable[..., dict[tuple[str, str], jax.Array]]
) -> dict[tuple[str, str], np.ndarray]:
    part = "input" if name in (UNEDITED, FLAT) else name
    if missing := [case.name for case in cases if not results.path_of(folder, part, case).is_file()]:
        raise ValueError(f"{folder / part}: {len(missing)} pictures are missing, the first {missing[0]}.png")
    batches = []
    for start in range(0, len(cases), BATCH):
        some = cases[start : start + BATCH]
        filled = [*some, *[some[-1]] * (BATCH - len(some))]  # one size of batch is compiled once
        pictures, truths = (
            jnp.stack([jnp.float32(results.picture(folder, each, case)) / 255 for case in filled])
            for each in (part, "truth")
        )
        if name == FLAT:
            pictures = jnp.broadcast_to(jnp.mean(pictures, axis=(1, 2), keepdims=True), pictures.shape)
        region = np.stack([results.region(folder, case) for case in filled])
        batches.append(
            {key: np.asarray(value)[: len(some)] for key, value in compute(pictures, truths, region).items()}
        )
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
