"""Edits of real pixels at 1,024 px with known results: ours, pixels pasted over an inpainted hole, and the decoder.

    pip install opencv-python-headless pypatchmatch
    elements partition PHOTOGRAPHS records --size 1024 --grid 8 --checkpoint mobile_sam.pt --held-out 0
    python tests/benchmarks/photographs/photo_scenes.py records

The photo scenes are those of `elements photo-scenes`: objects of photographs on other photographs, so that the true
result of an edit is known. Every method gets the true mask of the object. Scores are of the box of the edit and 16 px
around it, outside of which few pixels change; LPIPS is of AlexNet. Intervals are of 95 %, by bootstrap over scenes.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import cv2
import jax.numpy as jnp
import numpy as np
import tyro
from patchmatch import patch_match
from PIL import Image
from tqdm import tqdm

from elements_jax.cli.photos import DEFAULT_SOURCE, PhotoSegmenter, open_pipeline
from elements_jax.data.index import read_split
from elements_jax.data.record import Record
from elements_jax.editing.script import EditScript
from elements_jax.evaluation.uncertainty import interval
from elements_jax.metrics.lpips import LPIPS
from elements_jax.photograph.edit import edit_photograph
from elements_jax.photograph.file import Photograph
from elements_jax.pipeline.session import EditSession
from elements_jax.scenes.photographic import KINDS, PhotoEdit, PhotoScene, photo_edits, photo_scene, render

AROUND = 16
"""Pixels scored around an edit."""
DILATION = 3
"""Pixels by which holes grow before OpenCV or PatchMatch fill them, as people do by hand: masks end inside a soft
edge."""


def main(
    records: Annotated[Path, tyro.conf.Positional],
    split: str = "train",
    scenes: int = 24,
    model: str | None = None,
    pictures: Path | None = None,
) -> None:
    """Edit photo scenes by each method and print a table.

    Args:
        records: Records of photographs with object masks.
        split: Split of the records.
        scenes: Number of scenes.
        model: Model that guides ours, as in `elements edit`; by default none, and "photo" decodes.
        pictures: Folder for one PNG per edit: input, truth, and the methods in the table's order.
    """
    photographs = list(read_split(records, split).values())
    lpips, methods = LPIPS("alex"), Methods(model)
    found: dict[tuple[str, str], list[tuple[float, float, str]]] = {}
    for name, scene, other, edit in tqdm(list(cases(photographs, scenes)), unit="edit"):
        assert edit.after is not None
        before, truth = render(scene)[0], render(edit.after)[0]
        rows, columns = np.nonzero(np.any(before != truth, axis=-1))
        box = np.s_[
            max(rows.min() - AROUND, 0) : rows.max() + AROUND + 1,
            max(columns.min() - AROUND, 0) : columns.max() + AROUND + 1,
        ]
        crops = [before[box], truth[box]]
        for method, picture in methods(scene, other, edit):
            psnr = 10 * np.log10(255**2 / np.mean((picture[box].astype(float) - truth[box]) ** 2))
            distance = lpips(*(jnp.asarray(each[box], jnp.float32)[None] / 127.5 - 1 for each in (picture, truth)))
            for kind in (edit.kind, "all"):
                found.setdefault((kind, method), []).append((psnr, float(distance[0]), name))
            crops.append(picture[box])
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.concatenate(crops, 1)).save(pictures / f"{name}-{edit.kind}.png")
    print_table(found)


def cases(photographs: Sequence[Record], count: int) -> Iterator[tuple[str, PhotoScene, PhotoScene, PhotoEdit]]:
    """Yield the edits of each scene, with its name, and with the scene whose object a composition inserts."""
    scenes = [photo_scene(photographs, seed) for seed in range(count)]
    for seed, (scene, other) in enumerate(zip(scenes, [*scenes[1:], scenes[0]], strict=True)):
        for edit in photo_edits(scene, other, seed):
            yield str(seed), scene, other, edit


class Methods:
    """The methods of the table."""

    def __init__(self, model: str | None):
        pipeline = open_pipeline(model)
        divider = PhotoSegmenter(pipeline.config.elements, DEFAULT_SOURCE)
        self.label = divider.label
        self.editing = EditSession(pipeline, divider, "slic", guides=model is not None)

    def __call__(self, scene: PhotoScene, other: PhotoScene, edit: PhotoEdit) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the names and results of all methods."""
        yield "ours", self.ours(scene, other, edit, "pixels")
        yield "the decoder alone", self.ours(scene, other, edit, "decoder")
        hole, paste = pasting(scene, edit)
        grown = cv2.dilate(hole.astype(np.uint8) * 255, np.ones((2 * DILATION + 1,) * 2, np.uint8))
        before = render(scene)[0]
        for name, fill in (
            ("pixels, Telea", lambda: cv2.inpaint(before, grown, 5, cv2.INPAINT_TELEA)),
            ("pixels, Navier-Stokes", lambda: cv2.inpaint(before, grown, 5, cv2.INPAINT_NS)),
            ("pixels, PatchMatch", lambda: patch_match.inpaint(before, grown, patch_size=7)),
        ):
            yield name, paste(fill() if hole.any() else before)

    def ours(self, scene: PhotoScene, other: PhotoScene, edit: PhotoEdit, detail: str) -> np.ndarray:
        """Run the edit as `elements edit` does, with a mask file in place of a point or box."""
        shift, mask = {"by": edit.by}, {"object": {"mask": "mask"}}
        fields: dict[str, Any] = {
            "move": {"edit": "move", **mask, **shift},
            "shrink": {"edit": "resize", **mask, "scale": edit.scale, "anchor": edit.about},
            "delete": {"edit": "delete", **mask},
            "duplicate": {"edit": "duplicate", **mask, **shift},
            "compose": {"edit": "compose", "image": "other", "object": {"mask": "mask of other"}, **shift},
        }
        fields["enlarge"] = fields["shrink"]
        script = EditScript.from_json(json.dumps({"version": 1, "edits": [fields[edit.kind]], "detail": detail}))
        named = {
            "mask": object_mask(scene, 0),
            "other": render(other)[0],
            "mask of other": object_mask(other, -1),
        }
        edited = edit_photograph(
            self.editing, photograph(render(scene)[0]), script, self.label, open_named=lambda n: photograph(named[n])
        )
        return edited.pixels


def pasting(scene: PhotoScene, edit: PhotoEdit) -> tuple[np.ndarray, Any]:
    """Return the hole that an edit leaves, and a function that pastes the object on a picture without it."""
    assert edit.after is not None
    empty = np.zeros((scene.size,) * 2, bool)
    hole = object_mask(scene, 0) if edit.kind in ("move", "shrink", "enlarge", "delete") else empty
    if edit.kind == "delete":
        return hole, lambda filled: filled
    at = 0 if edit.kind in ("move", "shrink", "enlarge") else -1
    placed = edit.after.objects[at]
    inside = object_mask(edit.after, at)[placed.box]

    def paste(filled: np.ndarray) -> np.ndarray:
        pasted = filled.copy()
        pasted[placed.box][inside] = placed.cutout.pixels[inside]
        return pasted

    return hole, paste


def object_mask(scene: PhotoScene, at: int) -> np.ndarray:
    """Return the pixels of which an object has at least half."""
    placed = scene.objects[at]
    mask = np.zeros((scene.size,) * 2, bool)
    mask[placed.box] = placed.cutout.alpha >= 0.5
    return mask


def photograph(pixels: np.ndarray) -> Photograph:
    """Return a photograph of these pixels."""
    shown = pixels if pixels.dtype == np.uint8 else pixels.astype(np.uint8) * 255
    grey_or_rgb = shown[..., None] if shown.ndim == 2 else shown
    return Photograph(grey_or_rgb, b"", "PNG")


def print_table(found: dict[tuple[str, str], list[tuple[float, float, str]]]) -> None:
    """Print a row for each kind of edit and method: PSNR, LPIPS, and LPIPS less that of PatchMatch."""
    print(f"{'edit':11}{'N':>4}  {'method':24}{'PSNR, dB':>20}  {'LPIPS':>24}  {'LPIPS less PatchMatch':>27}")
    for kind, method in sorted(found, key=lambda key: [*KINDS, "all"].index(key[0])):
        psnr, distance, names = (np.array(column) for column in zip(*found[kind, method], strict=True))
        versus = distance - np.array([row[1] for row in found[kind, "pixels, PatchMatch"]])
        cells = [
            "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(values.mean(), *(interval(values, names) or (np.nan,) * 2), d=digits)
            for values, digits in ((psnr, 2), (distance, 4), (versus, 4))
        ]
        print(f"{kind:11}{len(names):4}  {method:24}{cells[0]:>20}  {cells[1]:>24}  {cells[2]:>27}")


if __name__ == "__main__":
    tyro.cli(main)
