"""The file that `elements encode` writes: a photograph's elements and segmentation settings, as a NumPy archive.

image (S, S, 3) uint8        the model's input image
label_map (S, S) uint16      each pixel's element, or DROPPED
box (4,)                     left, top, right, bottom of the photograph, without margins
content, position, valid     the elements (`elements_jax.elements.ImageElements`)
settings                     JSON: `segmenter`, `fit`, and `partition`, the fields of `PartitionConfig`
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16

from elements_jax.data.atomic import new_file, read_file, require_regular
from elements_jax.data.record import DROPPED

LARGEST = 1 << 30
"""Maximum size of a file's arrays in bytes: a damaged header may claim any size."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """The contents of a file."""

    image: UInt8[np.ndarray, "S S 3"]
    label_map: UInt16[np.ndarray, "S S"]
    box: tuple[int, int, int, int]
    num_elements: int
    settings: Mapping[str, Any]
    """Empty for files of version 0.1, which had no settings."""


def is_encoded(path: Path) -> bool:
    """Tell by content or name whether a file is a NumPy archive. Raises the errors of `require_regular`."""
    require_regular(path)
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04" or path.suffix.lower() == ".npz"


def write_encoded(path: Path, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> None:
    """Write the file completely or not at all. Raises OSError that names it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        np.savez_compressed(file, **{**arrays, "settings": np.array(json.dumps(settings))})  # type: ignore[arg-type]


def read_encoded(path: Path) -> Encoded:
    """Read the file. Raises OSError, or ValueError if it is damaged or another archive."""
    content = io.BytesIO(read_file(path))  # on which a damaged archive cannot fail as a file
    try:
        with zipfile.ZipFile(content) as archive:
            if (size := sum(member.file_size for member in archive.infolist())) > LARGEST:
                raise ValueError(f"it holds {size} bytes; at most {LARGEST} are expected")
        content.seek(0)
        with np.load(content, allow_pickle=False) as archive:
            image, labels, box, valid = (archive[name] for name in ("image", "label_map", "box", "valid"))
            settings = json.loads(str(archive["settings"])) if "settings" in archive else {}
    except Exception as error:  # zipfile, zlib and NumPy raise anything on damaged files
        why = "" if isinstance(error, KeyError) else f": {error}"
        raise ValueError(f"{path}: not a file that `elements encode` wrote, or damaged{why}; encode again") from error
    side = image.shape[0] if image.ndim else 0
    fits = {
        f"image is {image.dtype} {image.shape}": image.dtype == np.uint8
        and image.shape == (side, side, 3)
        and side > 0,
        f"label_map is {labels.dtype} {labels.shape}": labels.dtype.kind in "iu" and labels.shape == (side, side),
        f"box is {box.dtype} {box.shape}": box.dtype.kind in "iu" and box.shape == (4,),
        f"valid is {valid.dtype} {valid.shape}": valid.dtype == bool and valid.ndim == 1,
        "settings are not an object": isinstance(settings, dict),
    }
    if not all(fits.values()):
        wrong = next(what for what, right in fits.items() if not right)
        raise ValueError(f"{path}: not a file that `elements encode` wrote: {wrong}")
    if not ((labels == DROPPED) | ((labels >= 0) & (labels < len(valid)))).all():
        raise ValueError(f"{path}: label_map has labels beyond its {len(valid)} elements; encode again")
    left, top, right, bottom = box.tolist()
    if not (0 <= left < right <= side and 0 <= top < bottom <= side):
        raise ValueError(f"{path}: box {box.tolist()} is not inside the image; encode again")
    return Encoded(image, labels.astype(np.uint16), (left, top, right, bottom), len(valid), settings)
