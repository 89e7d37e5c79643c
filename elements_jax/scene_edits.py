"""Editing quality as a number: edits of held-out `scenes`, whose true result is known, against simple baselines."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from elements_jax import edits, scenes
from elements_jax.edits import Canvas, Transform
from elements_jax.pipeline import ElementsPipeline
from elements_jax.schema import Record

OBJECT_SHARE = 0.5  # an element belongs to an object when at least this share of its pixels does


@dataclass(frozen=True)
class EditCase:
    """One edit of one scene: what goes in, and the truth."""

    edit: scenes.Edit
    image: UInt8[np.ndarray, "H W 3"]
    prompt: str  # the caption of the edited scene
    before: Canvas
    after: Canvas
    selected: Bool[np.ndarray, " N"]
    pasted: UInt8[np.ndarray, "H W 3"]  # pixel editing: the elements' pixels copied, the source left (Appendix A)
    truth: UInt8[np.ndarray, "H W 3"]
    region: Bool[np.ndarray, "H W"]  # where the object is, was, or elements changed: what the edit is about


def scene_of(record: Record) -> scenes.Scene:
    """The scene that a record's picture shows. Raises ValueError where the record is of another data set."""
    name, _, seed = record.source_id.rpartition("/")[2].removesuffix(".png").partition("-")
    if name != "scene" or not seed.isdigit():
        raise ValueError(f"record {record.source_id!r} is no scene: expected an id like scene-0000042.png")
    return scenes.scene(int(seed), record.image.shape[0])


def edit_cases(pipeline: ElementsPipeline, records: Sequence[Record]) -> Iterator[EditCase]:
    """A move, a resize and a deletion of each record's scene."""
    for record in records:
        scene = scene_of(record)
        image, objects = scenes.render(scene)
        canvas = pipeline.open(image, record.label_map)
        for edit in scenes.sample_edits(scene, seed=len(scene.shapes)):
            yield edit_case(scene, edit, image, objects == edit.k, canvas)


def edit_case(
    scene: scenes.Scene,
    edit: scenes.Edit,
    image: UInt8[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"],
    canvas: Canvas,
) -> EditCase:
    """Edit the elements of the object under `mask` as `edit` edits the scene."""
    selected = edits.covered_by(canvas.label_map, jnp.asarray(mask), canvas.num_elements) >= OBJECT_SHARE
    edited_scene = scene.edited(edit)
    truth, true_objects = scenes.render(edited_scene)
    if edit.kind == "delete":
        after, pasted, target = edits.delete(canvas, selected), image, np.zeros_like(mask)
    else:
        by = Transform(
            jnp.float32(edit.scale), jnp.float32([edit.dx, edit.dy]), jnp.float32(scene.shapes[edit.k - 1].centre)
        )
        after = edits.transform(canvas, selected, by)
        pixels = jnp.asarray(image)
        pasted = np.asarray(edits.paste_pixels(pixels, pixels, canvas.label_map, selected, by))
        target = true_objects == edit.k
    changed = np.asarray(canvas.label_map != after.label_map)
    return EditCase(
        edit, image, edited_scene.caption, canvas, after, np.asarray(selected), pasted, truth, mask | target | changed
    )


def decode_cases(
    pipeline: ElementsPipeline, cases: Sequence[EditCase], batch_size: int
) -> list[UInt8[np.ndarray, "H W 3"]]:
    """Decode the edited elements, `batch_size` at a time; the last batch is filled up with its own last case."""
    results: list[UInt8[np.ndarray, "H W 3"]] = []
    for start in range(0, len(cases), batch_size):
        part = list(cases[start : start + batch_size])
        filled = part + part[-1:] * (batch_size - len(part))
        elements = edits.batched([case.after for case in filled]).elements
        prompts = [case.prompt for case in filled]
        seeds = range(start, start + batch_size)
        results.extend(pipeline.decode(elements, prompts, seeds=seeds)[: len(part)])
    return results


def region_error(picture: UInt8[np.ndarray, "H W 3"], case: EditCase) -> float:
    """Mean squared error to the truth in the edited region, of pixels in [0, 1]."""
    difference = (picture.astype(np.float64) - case.truth)[case.region] / 255
    return float(np.mean(difference**2))


def psnr(picture: UInt8[np.ndarray, "H W 3"], truth: UInt8[np.ndarray, "H W 3"]) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(-10 * np.log10(max(np.mean((picture.astype(np.float64) - truth) ** 2) / 255**2, 1e-10)))


@dataclass(frozen=True)
class Score:
    """Of one kind of edit: the share won, and the median errors, of ours and of the baselines.

    Won is what is nearer to the truth than both the unedited picture and pixel copy-paste. Both leave the object where
    it was, so the flat picture in the mean colour of the input shows what a share is worth.
    """

    count: int
    share_won: float
    share_won_by_flat: float
    ours: float
    unedited: float
    pasted: float
    flat: float


def score(cases: Sequence[EditCase], results: Sequence[UInt8[np.ndarray, "H W 3"]]) -> dict[str, Score]:
    """Scores by kind of edit, resizes split into shrinking and enlarging, and of all together."""
    rows: dict[str, list[list[float]]] = {}
    for case, result in zip(cases, results, strict=True):
        flat = np.broadcast_to(case.image.mean((0, 1)).astype(np.uint8), case.image.shape)
        errors = [region_error(picture, case) for picture in (result, case.image, case.pasted, flat)]
        for name in (kind(case.edit), "all"):
            rows.setdefault(name, []).append(errors)
    return {name: _score(np.array(errors)) for name, errors in sorted(rows.items(), key=lambda row: row[0] == "all")}


def kind(edit: scenes.Edit) -> str:
    """Move, delete, shrink or enlarge."""
    if edit.kind != "resize":
        return edit.kind
    return "shrink" if edit.scale < 1 else "enlarge"


def _score(errors: Float[np.ndarray, "n 4"]) -> Score:
    ours, unedited, pasted, flat = errors.T
    shares = (float(np.mean((error < unedited) & (error < pasted))) for error in (ours, flat))
    return Score(len(errors), *shares, *np.median(errors, axis=0).tolist())
