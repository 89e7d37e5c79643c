"""Conversion between any photograph's colours and the 8-bit sRGB of models."""

import io
from functools import cache

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageCms

from elements_jax.photograph.file import Photograph, Pixels


def rgb8(pixels: Pixels) -> UInt8[np.ndarray, "H W 3"]:
    """Return the colours in 8 bits, in the photograph's own colour space, without transparency."""
    shallow = pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
    if pixels.shape[2] < 3:
        return np.repeat(shallow[..., :1], 3, axis=2)
    return np.ascontiguousarray(shallow[..., :3])


def like(colours: UInt8[np.ndarray, "h w 3"], pixels: Pixels) -> Integer[np.ndarray, "h w c"]:
    """Convert 8-bit colours to the depth of a photograph's pixels, and to grey if it is grey (BT.601)."""
    if pixels.shape[2] < 3:
        colours = np.asarray(Image.fromarray(colours).convert("L"))[..., None]
    return colours if pixels.dtype == np.uint8 else colours.astype(np.uint16) * 257


def to_srgb(picture: UInt8[np.ndarray, "H W 3"], photograph: Photograph) -> UInt8[np.ndarray, "H W 3"]:
    """Convert colours from a photograph's profile to sRGB; unchanged if its profile is damaged or not RGB."""
    return _converted(picture, photograph.metadata.get("icc_profile"), None)


def from_srgb(picture: UInt8[np.ndarray, "H W 3"], photograph: Photograph) -> UInt8[np.ndarray, "H W 3"]:
    """Invert `to_srgb`, up to rounding and colours outside the profile's gamut."""
    return _converted(picture, None, photograph.metadata.get("icc_profile"))


def adapted(other: Photograph, photograph: Photograph) -> Pixels:
    """Convert another photograph's pixels to the channels, the depth and, in 8-bit RGB, the profile of a photograph.

    If only the other has transparency, it is laid on white.
    """
    pixels, wanted = other.pixels, photograph.pixels
    channels, most = pixels.shape[2], np.iinfo(pixels.dtype).max
    alpha = pixels[..., -1:] if channels in (2, 4) else None
    colours = pixels[..., : channels - (alpha is not None)]
    if alpha is not None and wanted.shape[2] in (1, 3):
        share = alpha.astype(np.float32) / most
        colours = np.rint(share * colours + (1 - share) * most).astype(pixels.dtype)
    if colours.dtype == wanted.dtype and colours.shape[2] == 1 and wanted.shape[2] < 3:
        pass
    elif colours.dtype == np.uint8:
        profiles = other.metadata.get("icc_profile"), photograph.metadata.get("icc_profile")
        colours = like(_converted(rgb8(colours), *profiles), wanted)
    elif wanted.dtype == np.uint8:
        colours = like(rgb8(colours), wanted)
    elif colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    elif wanted.shape[2] < 3:
        colours = np.rint(colours @ np.array([0.299, 0.587, 0.114])).astype(np.uint16)[..., None]
    if wanted.shape[2] in (1, 3):
        return colours
    opaque = np.full((*pixels.shape[:2], 1), np.iinfo(wanted.dtype).max, wanted.dtype)
    if alpha is not None:
        opaque = np.rint(alpha.astype(np.float64) / most * np.iinfo(wanted.dtype).max).astype(wanted.dtype)
    return np.concatenate([colours, opaque], axis=2)


def _converted(
    picture: UInt8[np.ndarray, "H W 3"], source: bytes | None, target: bytes | None
) -> UInt8[np.ndarray, "H W 3"]:
    transform = None if source == target else _transform(source, target)
    return picture if transform is None else np.asarray(transform.apply(Image.fromarray(picture)))


@cache
def _transform(source: bytes | None, target: bytes | None) -> ImageCms.ImageCmsTransform | None:
    """Return the transform between two profiles, where None is sRGB; None if one of them is not an RGB profile."""
    try:
        there, back = (
            ImageCms.ImageCmsProfile(io.BytesIO(profile) if profile else ImageCms.createProfile("sRGB"))
            for profile in (source, target)
        )
        return ImageCms.buildTransform(there, back, "RGB", "RGB")
    except (OSError, ValueError, ImageCms.PyCMSError):
        return None
