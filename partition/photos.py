"""Turn a photograph of any kind into a square image of one size, with its object masks."""

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
    """A photograph, cropped to the square at its centre and resized, with its caption and masks."""

    image: UInt8[np.ndarray, "H W 3"]
    caption: str
    object_masks: Bool[np.ndarray, "M H W"]
    width: int
    """Width of the complete photograph in pixels, in the orientation in which it is shown."""
    height: int
    box: "Box"
    """Left, top, right and bottom of the photograph in the image; the rest is grey margins."""
    masks_left_out: tuple[LeftOut, ...] = ()
    """Annotations of the photograph that gave no object mask."""


def read_photo(
    sample: Sample,
    size: int,
    masks: Sequence[MaskSource] = (),
    keep: MaskFilter = DEFAULT_FILTER,
    fit: Literal["crop", "pad"] = "crop",
) -> SquarePhoto:
    """Decode a sample, with the object masks that pass the filter `keep`.

    Args:
        size: side of the image, in pixels.
        fit: take the square at the centre, as in the paper, or all of the photograph, which then cannot have masks.

    Of an animation, the first frame is used. Masks that cannot be read are skipped and reported. Raises ValueError
    saying what is wrong with the image.
    """
    with warnings.catch_warnings():
        # Pillow warns of large images that it still accepts, and of odd metadata: a user can change neither.
        for category in (Image.DecompressionBombWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        image, profile = _decode(sample.encoded)
        height, width = image.height, image.width
        found = [mask for source in masks for mask in source.find(sample, (height, width), keep)]
    left_out = [mask for mask in found if isinstance(mask, LeftOut)]
    cropped = [crop_labels(mask, size) for mask in found if not isinstance(mask, LeftOut)]
    object_masks = np.array([mask for mask in cropped if keep.fits(mask)], bool).reshape(-1, size, size)
    left_out += [LeftOut(OTHER_AREA, f"a mask of the photograph: {OTHER_AREA}")] * (len(cropped) - len(object_masks))
    squared, box = _crop(image, size) if fit == "crop" else _pad(image, size)
    return SquarePhoto(
        np.asarray(_to_srgb(squared, profile)), sample.caption, object_masks, width, height, box, tuple(left_out)
    )


def divide_photo(
    encoded: bytes, segmenter: Segmenter, config: PartitionConfig, fit: Literal["crop", "pad"] = "crop"
) -> Photo:
    """Decode an image file and segment it into elements; margins belong to none. Raises ValueError as `read_photo`
    does."""
    square = read_photo(Sample("", encoded), config.size, fit=fit)
    label_map = np.full((config.size, config.size), DROPPED, np.uint16)
    left, top, right, bottom = square.box
    inside = np.s_[top:bottom, left:right]
    label_map[inside] = partition_image(square.image, segmenter, config).label_map[inside]
    return Photo(square.image, label_map, square.box)


def crop_labels(labels: Shaped[np.ndarray, "h w"], size: int) -> Shaped[np.ndarray, "H W"]:
    """Crop a photo's mask or label map as `read_photo` crops the photo, taking the nearest pixel."""
    side = min(labels.shape)
    pixel = (np.arange(size) + 0.5) * side / size
    rows, columns = (((length - side) / 2 + pixel).astype(int) for length in labels.shape)
    return labels[rows[:, None], columns]


def _decode(encoded: bytes) -> tuple[Image.Image, bytes | None]:
    """Return the upright image, in RGB, L or CMYK, and its colour profile if it has one."""
    if not encoded:
        raise ValueError("the image file is empty")
    try:
        with Image.open(io.BytesIO(encoded)) as file:
            ImageOps.exif_transpose(file, in_place=True)
            return _flatten(file), file.info.get("icc_profile")
    except UnidentifiedImageError as error:  # its message is an address in memory
        raise ValueError("not an image, an unknown format, or damaged at its start") from error
    except ValueError:
        raise
    except Exception as error:  # decoders raise many types on damaged files
        raise ValueError(str(error) or f"damaged image ({type(error).__name__})") from error


def _flatten(image: Image.Image) -> Image.Image:
    """Convert the image to 8-bit RGB, L or CMYK, with transparent parts on white; 16-bit grey keeps its upper 8 bits.

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


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert the image to RGB in sRGB's colours; an image without a profile is taken for sRGB."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB")
            return transform.apply(image)
        except (OSError, ValueError, ImageCms.PyCMSError):
            pass  # a profile that is damaged, or for another kind of image, is ignored
    return image.convert("RGB")


Box = tuple[int, int, int, int]


def _crop(image: Image.Image, size: int) -> tuple[Image.Image, Box]:
    """Cut the square at the centre and resize it to size x size."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box), (0, 0, size, size)


def _pad(image: Image.Image, size: int) -> tuple[Image.Image, Box]:
    """Resize the image so that its longer side is `size`, and centre it on grey; return its place, too."""
    width, height = (max(1, round(side * size / max(image.size))) for side in image.size)
    left, top = (size - width) // 2, (size - height) // 2
    padded = Image.new(image.mode, (size, size), (128,) * len(image.getbands()))
    padded.paste(image.resize((width, height), Image.Resampling.LANCZOS), (left, top))
    return padded, (left, top, left + width, top + height)
