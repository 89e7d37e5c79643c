"""Photographs' files in every format, and photographs of noise to edit."""

import io

import numpy as np
from PIL import Image, ImageCms

from elements_jax.photograph.file import Photograph

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(height: int = 40, width: int = 56) -> Image.Image:
    """Return an image that is smooth like a photograph, so that JPEG loses little."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 3, y * 4, 255 - x - y], axis=-1).clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def exif(orientation: int = 1) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F], tags[0x0132] = orientation, "Maker", "2024:05:01 12:00:00"
    tags.get_ifd(0x8825).update({1: "N", 2: (1.0, 2.0, 3.0), 3: "E", 4: (4.0, 5.0, 6.0)})
    return tags


def swapped_profile() -> bytes:
    """sRGB's own profile, with the colorants of red and green swapped: its red is green."""
    profile = bytearray(SRGB)
    tags = {bytes(profile[i : i + 4]): i for i in range(132, 132 + 12 * int.from_bytes(profile[128:132]), 12)}
    red, green = tags[b"rXYZ"] + 4, tags[b"gXYZ"] + 4
    profile[red : red + 8], profile[green : green + 8] = profile[green : green + 8], profile[red : red + 8]
    return bytes(profile)


def photograph(height: int, width: int, seed: int = 0, channels: int = 3, dtype: type = np.uint8) -> Photograph:
    """Return a photograph of noise."""
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (height, width, channels), dtype)
    return Photograph(pixels, png(pixels) if dtype == np.uint8 else b"", "PNG")


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def square(height: int = 60, width: int = 90, top: int = 20, left: int = 10, side: int = 20) -> np.ndarray:
    """Return the mask of a square object."""
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def flat_fill(colours: np.ndarray, hole: np.ndarray, guide: object = None, probes: object = None) -> np.ndarray:
    """Fill a hole with one colour, in place of `fill_hole`."""
    return np.where(hole[..., None], np.uint8(99), colours)
