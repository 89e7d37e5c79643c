"""A photograph of any kind, made a square picture of one size, with its object masks."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from elements_jax.data.photo import Photo
from elements_jax.data.record import DROPPED
from partition.components import Segmenter, partition_image
from partition.config import PartitionConfig
from partition.masks import DEFAULT_FILTER, OTHER_AREA, LeftOut, MaskFilter, MaskSource
from partition.sources.sample import Sample


@dataclass(frozen=True, eq=False)
class SquarePhoto:
    """A photograph, cropped to the square at its centre and resized, with what is stored with it."""

    image: UInt8[np.ndarray, "H W 3"]
    caption: str
    object_masks: Bool[np.ndarray, "M H W"]
    width: int
    """Of the whole photograph, in pixels, as it is seen."""
    height: int
    box: "Box"
    """Left, top, right and bottom of what is photograph in the picture; beyond it are grey margins."""
    masks_left_out: tuple[LeftOut, ...] = ()
    """Annotations of the photograph that gave no object mask."""


def read_photo(
    sample: Sample,
    size: int,
    masks: Sequence[MaskSource] = (),
    keep: MaskFilter = DEFAULT_FILTER,
    fit: Literal["crop", "pad"] = "crop",
) -> SquarePhoto:
    """Decode a sample, with those of its object masks that `keep` keeps.

    Args:
        size: of the picture, in pixels.
        fit: take the square at the centre, as the paper, or all of the photograph, which cannot have masks then.

    An animation is its first frame. Masks that cannot be read are left out, and said. Raises ValueError saying what is
    wrong with the image.
    """
    with warnings.catch_warnings():
        # Pillow warns of large pictures, short of those that it refuses, and of odd metadata: nothing a user can mend.
        for category in (Image.DecompressionBombWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        picture, profile = _decode(sample.encoded)
        height, width = picture.height, picture.width
        found = [mask for source in masks for mask in source.find(sample.source_id, (height, width), keep)]
    left_out = [mask for mask in found if isinstance(mask, LeftOut)]
    cropped = [crop_labels(mask, size) for mask in found if not isinstance(mask, LeftOut)]
    object_masks = np.array([mask for mask in cropped if keep.fits(mask)], bool).reshape(-1, size, size)
    left_out += [LeftOut(OTHER_AREA, f"a mask of the photograph: {OTHER_AREA}")] * (len(cropped) - len(object_masks))
    squared, box = _crop(picture, size) if fit == "crop" else _pad(picture, size)
    return SquarePhoto(
        np.asarray(_to_srgb(squared, profile)), sample.caption, object_masks, width, height, box, tuple(left_out)
    )


def divide_photo(
    encoded: bytes, segmenter: Segmenter, config: PartitionConfig, fit: Literal["crop", "pad"] = "crop"
) -> Photo:
    """Decode an image file and divide it into elements; margins belong to none. Raises ValueError as `read_photo`."""
    square = read_photo(Sample("", encoded), config.size, fit=fit)
    label_map = np.full((config.size, config.size), DROPPED, np.uint16)
    left, top, right, bottom = square.box
    inside = np.s_[top:bottom, left:right]
    label_map[inside] = partition_image(square.image, segmenter, config).label_map[inside]
    return Photo(square.image, label_map, square.box)


def crop_labels(labels: Shaped[np.ndarray, "h w"], size: int) -> Shaped[np.ndarray, "H W"]:
    """A photo's mask or label map as `read_photo` crops the photo: each pixel is the nearest one's."""
    side = min(labels.shape)
    pixel = (np.arange(size) + 0.5) * side / size
    rows, columns = (((whole - side) / 2 + pixel).astype(int) for whole in labels.shape)
    return labels[rows[:, None], columns]


def _decode(encoded: bytes) -> tuple[Image.Image, bytes | None]:
    """The image as it is meant to be seen, in RGB, L or CMYK, and its colour profile if it has one."""
    if not encoded:
        raise ValueError("the image file is empty")
    try:
        with Image.open(io.BytesIO(encoded)) as file:
            ImageOps.exif_transpose(file, in_place=True)
            return _flatten(file), file.info.get("icc_profile")
    except UnidentifiedImageError as error:  # its message is an address in memory
        raise ValueError("not an image, of an unknown kind, or damaged at its start") from error
    except ValueError:
        raise
    except Exception as error:  # decoders raise all sorts on damaged files
        raise ValueError(str(error) or f"damaged image ({type(error).__name__})") from error


def _flatten(image: Image.Image) -> Image.Image:
    """The image in 8-bit RGB, L or CMYK, transparent parts on white; 16-bit grey keeps its upper 8 bits.

    Raises ValueError for floating-point pixels, whose range is unknown.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels: convert them to 8 or 16 bits first")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode in ("RGB", "L", "CMYK") else image.convert("RGB")


def _to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """The picture in RGB, its colours those of sRGB, which is what pictures without a profile are taken for."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), picture.mode, "RGB")
            return transform.apply(picture)
        except (OSError, ValueError, ImageCms.PyCMSError):
            pass  # a profile that is damaged, or that of another kind of picture, says nothing
    return picture.convert("RGB")


Box = tuple[int, int, int, int]


def _crop(picture: Image.Image, size: int) -> tuple[Image.Image, Box]:
    """The square at the centre, resized to size x size."""
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling.LANCZOS, box=box), (0, 0, size, size)


def _pad(picture: Image.Image, size: int) -> tuple[Image.Image, Box]:
    """All of the picture, its longer side resized to `size`, in the middle of grey; and where it lies."""
    width, height = (max(1, round(side * size / max(picture.size))) for side in picture.size)
    left, top = (size - width) // 2, (size - height) // 2
    padded = Image.new(picture.mode, (size, size), (128,) * len(picture.getbands()))
    padded.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (left, top))
    return padded, (left, top, left + width, top + height)
