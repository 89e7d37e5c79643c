"""An object of each photograph, deleted as by `elements edit`: pictures to look at.

    python tests/benchmarks/photographs/deletions.py PHOTOGRAPHS pictures mobile_sam.pt --every 8

The holes of `holes.py` cut through whatever is there. Here a hole is what a person would delete: an object that SAM
finds at the first of five points where it covers 1 to 20 % of the photograph. Nothing is selected otherwise.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image, ImageOps
from tqdm import tqdm

from elements_jax.cli.photos import ObjectFinder, PhotoSegmenter, SegmenterOptions
from elements_jax.config import ElementsConfig
from elements_jax.editing.script import EditScript, ObjectAt
from elements_jax.photograph.edit import edit_photograph
from elements_jax.photograph.file import Photograph
from elements_jax.photograph.selecting import Found

POINTS = ((0.5, 0.5), (0.35, 0.35), (0.65, 0.35), (0.35, 0.65), (0.65, 0.65))
SHARE = 0.01, 0.20
"""Least and largest share of the photograph that an object covers."""
SHADE = 0.35
"""Brightness of what is not deleted, in the picture that shows the object."""


def main(
    photographs: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    checkpoint: Annotated[Path, tyro.conf.Positional],
    every: int = 1,
) -> None:
    """Write one PNG per photograph: the photograph, the object, and the photograph without it.

    Args:
        photographs: Folder of photographs.
        out: Folder for the PNGs.
        checkpoint: SAM's or MobileSAM's weights, which find the objects.
        every: Take only each n-th photograph.
    """
    out.mkdir(parents=True, exist_ok=True)
    source, without = SegmenterOptions(checkpoint=checkpoint), []
    find = ObjectFinder(PhotoSegmenter(ElementsConfig(), source), source)
    paths = sorted(path for path in photographs.iterdir() if path.suffix in (".jpg", ".png", ".webp"))[::every]
    for path in tqdm(paths, unit="photograph"):
        image = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        found = object_to_delete(image, find)
        if found is None:
            without.append(path.stem)
            continue
        shown = np.where(found[0][..., None], image, image * SHADE).astype(np.uint8)
        Image.fromarray(np.concatenate([image, shown, deleted(image, found)], 1)).save(out / f"{path.stem}.png")
    print(f"{len(without)} photographs have no such object: {', '.join(without)}")


def object_to_delete(image: np.ndarray, find: ObjectFinder) -> Found | None:
    """Return the mask of an object and the error of its edge, if there is one of a fitting size."""
    for point in POINTS:
        found = find(image, ObjectAt(point=point))
        if SHARE[0] <= found[0].mean() <= SHARE[1]:
            return found
    return None


def deleted(image: np.ndarray, found: Found) -> np.ndarray:
    """Delete an object."""
    script = {"version": 1, "edits": [{"edit": "delete", "object": {"point": [0.5, 0.5]}}]}
    edited = edit_photograph(
        None,
        Photograph(image, b"", "PNG"),
        EditScript.from_json(json.dumps(script)),
        label=None,  # only a model needs it
        find_object=lambda image, at: found,
    )
    return edited.pixels


if __name__ == "__main__":
    tyro.cli(main)
