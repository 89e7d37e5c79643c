"""Inputs of the paper's external baselines, derived from an edit script (Section 4.2, Appendix A).

InstructPix2Pix takes the input and the instruction of a case from the results folder. The others take

    RESULTS/needs/paint-by-example/NAME/steps.json      [{"mask": "0-mask.png", "example": "0-example.png"}, ...]
    RESULTS/needs/self-guidance/NAME.json               {"prompt": ..., "object": ..., "edits": [{"before": {"centroid":
                                                        [x, y], "size": s}, "after": {...}}, ...]}

Paint-by-Example paints one step after another, each on the previous result: first the source of an object with a piece
of background as the example, then the target with the object as the example. The paper's authors marked the background
by hand; here it is the free square, as large as the object's box, whose colours best match those around the object.
Self-Guidance's centroid and size refer to its attention maps: here they are those of the object's pixels, as shares of
the image's sides and area; None before an object is inserted or after it is deleted.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image

from elements_jax.data.atomic import new_file, new_folder
from elements_jax.editing.script import Move, Resize
from elements_jax.evaluation.methods.method import Prepared
from elements_jax.evaluation.methods.morphology import closing, dilation
from elements_jax.evaluation.methods.pixel_editing import Step
from elements_jax.evaluation.results import Case

SMALLEST = 8
"""Minimum side of an example in pixels: if no square of background is free, smaller ones are tried, down to this."""


@dataclass(frozen=True, eq=False)
class Painting:
    """One step of Paint-by-Example."""

    mask: Bool[np.ndarray, "H W"]
    """The pixels to paint."""
    example: UInt8[np.ndarray, "h w 3"]
    """The image of what to paint there."""


def external_input_paths(out: Path, case: Case) -> list[Path]:
    """Return the paths of the inputs for a case."""
    folder = out / "needs"
    return [folder / "paint-by-example" / case.name, folder / "self-guidance" / f"{case.name}.json"]


def write_needs(out: Path, prepared: Prepared) -> None:
    """Write the inputs for a case, each file completely or not at all; existing files are kept."""
    case = prepared.task.case
    paintings, guidance = external_input_paths(out, case)
    for path in (paintings, guidance):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not paintings.is_dir():
        with new_folder(paintings) as folder:
            steps = []
            for i, painting in enumerate(paint_by_example(prepared.pixels.steps)):
                names = {"mask": f"{i}-mask.png", "example": f"{i}-example.png"}
                for part, name in names.items():
                    Image.fromarray(getattr(painting, part)).save(folder / name)
                steps.append(names)
            (folder / "steps.json").write_text(json.dumps(steps, indent=1) + "\n")
    if not guidance.is_file():
        with new_file(guidance) as file:
            edits = [self_guidance(step) for step in prepared.pixels.steps]
            content = {"prompt": case.prompt, "object": case.object, "edits": edits}
            file.write(json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


def paint_by_example(steps: tuple[Step, ...]) -> Iterator[Painting]:
    """Yield the steps of Paint-by-Example for the steps of a script. Masks are closed, as for inpainting."""
    for step in steps:
        radius = max(1, step.source.shape[0] // 64)
        if step.source.any():
            yield Painting(closing(step.source, radius), background(step.before, step.source, step.target))
        if step.target.any():
            moved = isinstance(step.edit, Move | Resize)
            example = _crop(step.before, step.source) if moved else _crop(step.after, step.target)
            yield Painting(closing(step.target, radius), example)


def background(
    picture: UInt8[np.ndarray, "H W 3"], source: Bool[np.ndarray, "H W"], target: Bool[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "s s 3"]:
    """Return the square, clear of source and target, whose colours best match those around the source.

    The comparison uses mean and deviation of each channel, and around the source a band of 1/16 of the image's side.
    The square is as large as the longer side of the source's box, or smaller if no such square is free. If none is free
    at all, any square may be used.
    """
    top, bottom, left, right = _box(source)
    side, shortest = min(max(bottom - top, right - left), *source.shape), min(SMALLEST, *source.shape)
    busy = source | target
    while not (free := _sums(busy, side) == 0).any() and side > shortest:
        side = max(shortest, side * 3 // 4)
    around = dilation(source, max(1, source.shape[0] // 16)) & ~busy
    wanted = picture[around if around.any() else source].astype(np.float64)

    pixels = picture.astype(np.float64)
    mean = _sums(pixels, side) / side**2
    deviation = np.sqrt(np.maximum(_sums(pixels**2, side) / side**2 - mean**2, 0))
    unlike = ((mean - wanted.mean(0)) ** 2 + (deviation - wanted.std(0)) ** 2).sum(-1)
    y, x = np.unravel_index(np.argmin(np.where(free | ~free.any(), unlike, np.inf)), unlike.shape)
    return picture[y : y + side, x : x + side]


def _sums(values: Shaped[np.ndarray, "H W *channels"], side: int) -> Shaped[np.ndarray, "h w *channels"]:
    """Sum over every square of this side within the image, indexed by its top left corner."""
    total = np.cumsum(np.cumsum(values, axis=0), axis=1)
    total = np.pad(total, ((1, 0), (1, 0), *[(0, 0)] * (values.ndim - 2)))
    return total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]


def self_guidance(step: Step) -> dict[str, Any]:
    """Return the object's centroid and size before and after an edit."""
    return {"before": _place(step.source), "after": _place(step.target)}


def _place(mask: Bool[np.ndarray, "H W"]) -> dict[str, Any] | None:
    if not mask.any():
        return None
    height, width = mask.shape
    ys, xs = np.nonzero(mask)
    centroid = [float((xs.mean() + 0.5) / width), float((ys.mean() + 0.5) / height)]
    return {"centroid": centroid, "size": float(mask.mean())}


def _box(mask: Bool[np.ndarray, "H W"]) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of the set pixels; the ends are exclusive."""
    ys, xs = np.nonzero(mask)
    return int(ys.min()), int(ys.max()) + 1, int(xs.min()), int(xs.max()) + 1


def _crop(picture: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "h w 3"]:
    top, bottom, left, right = _box(mask)
    return picture[top:bottom, left:right]
