"""A folder of photographs with its captions and object masks, read as square pictures of one size."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image, ImageOps

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")


@dataclass(frozen=True, eq=False)
class Photo:
    """A photograph, cropped to the square at its centre and resized, with what lies beside it."""

    image: UInt8[np.ndarray, "H W 3"]
    caption: str
    object_masks: Bool[np.ndarray, "M H W"]


def find_photos(folder: Path, skip: Iterable[Path] = ()) -> list[PurePosixPath]:
    """The photographs below `folder`, as sorted paths relative to it.

    Hidden files and folders, folders named `masks`, and the folders in `skip` are passed over. Raises ValueError if
    there is no such folder or it has no photographs.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of photographs")
    skipped = {path.resolve() for path in skip}
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if name != "masks" and not name.startswith(".") and Path(parent, name).resolve() not in skipped
        ]
        photos = (name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))
        found += [PurePosixPath(Path(parent, name).relative_to(folder).as_posix()) for name in photos]
    if not found:
        raise ValueError(f"{folder}: no photographs there (looked for {' '.join(SUFFIXES)}, in folders below it too)")
    return sorted(found)


def read_photo(folder: Path, name: PurePosixPath, size: int, masks: Path | None = None) -> Photo:
    """Read one photograph, its caption and its object masks.

    The caption is the text file beside it with its stem, or empty. Object masks, if any, are `masks/STEM.png`, a label
    map (each value but 0 is one object), or the files `masks/STEM/*.png`, each one object (where it is not 0); for a
    photo in a subfolder they lie in the same subfolder of `masks`. Masks without a pixel in the square are left out.

    Raises whatever the decoder does for a damaged file, and ValueError for masks that do not fit the photo.
    """
    path = folder / name
    with Image.open(path) as file:
        picture = to_rgb(file)
    text = path.with_suffix(".txt")
    caption = text.read_text(encoding="utf-8-sig").strip() if text.is_file() else ""
    found = [] if masks is None else list(_read_masks(masks / name.with_suffix(""), (picture.height, picture.width)))
    cropped = np.array([crop_labels(mask, size) for mask in found], bool).reshape(-1, size, size)
    return Photo(_crop(picture, size), caption, cropped[cropped.any((1, 2))])


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as it is meant to be seen, in 8-bit RGB: turned as its EXIF data say, transparent parts on white.

    16-bit grey keeps its upper 8 bits. Raises ValueError for floating-point pixels, whose range is unknown.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise ValueError("floating-point pixels: convert them to 8 or 16 bits first")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def crop_labels(labels: Shaped[np.ndarray, "h w"], size: int) -> Shaped[np.ndarray, "H W"]:
    """A photo's mask or label map as `read_photo` crops the photo: each pixel is the nearest one's."""
    side = min(labels.shape)
    pixel = (np.arange(size) + 0.5) * side / size
    rows, columns = (((whole - side) / 2 + pixel).astype(int) for whole in labels.shape)
    return labels[rows[:, None], columns]


def _read_masks(base: Path, shape: tuple[int, int]) -> Iterable[Bool[np.ndarray, "h w"]]:
    label_map = base.with_name(base.name + ".png")
    if label_map.is_file():
        values = _read_mask(label_map, shape)
        if values.ndim != 2:
            raise ValueError(f"{label_map}: a label map has one channel, this has {values.shape[2]}")
        yield from (np.equal(values, value) for value in np.unique(values) if value)
    elif base.is_dir():
        for path in sorted(base.glob("*.png")):
            values = _read_mask(path, shape)
            if values.ndim == 3:
                values = values[..., : 1 if values.shape[2] == 2 else 3].max(axis=2)  # without the alpha channel
            yield np.not_equal(values, 0)


def _read_mask(path: Path, shape: tuple[int, int]) -> Shaped[np.ndarray, "h w *channels"]:
    with Image.open(path) as file:
        values = np.asarray(file)  # of a palette image, the indices
    if values.shape[:2] != shape:
        raise ValueError(
            f"{path}: expected the photo's {shape[1]} x {shape[0]} pixels, got {file.width} x {file.height}"
        )
    return values


def _crop(picture: Image.Image, size: int) -> UInt8[np.ndarray, "H W 3"]:
    """The square at the centre, resized to size x size."""
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, box=box))
