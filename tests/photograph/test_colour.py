"""Colours of photographs of every kind, converted for models and back."""

import numpy as np
import pytest
from PIL import ImageCms

from elements_jax.photograph.colour import adapted, from_srgb, like, rgb8, to_srgb
from elements_jax.photograph.file import Photograph

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def photograph(channels: int, dtype: type = np.uint8, profile: bytes | None = None) -> Photograph:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, channels)).astype(np.uint8)
    deep = pixels.astype(np.uint16) * 257 if dtype is np.uint16 else pixels
    return Photograph(deep, b"", "PNG", metadata={"icc_profile": profile})


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_depth_is_added_and_taken_away_exactly(channels):
    shallow, deep = photograph(channels).pixels, photograph(channels, np.uint16).pixels
    np.testing.assert_array_equal(rgb8(shallow), rgb8(deep))
    colours = channels - (channels in (2, 4))
    np.testing.assert_array_equal(like(rgb8(shallow), shallow), shallow[..., :colours])
    np.testing.assert_array_equal(like(rgb8(deep), deep), deep[..., :colours])


@pytest.mark.parametrize("profile", [None, SRGB, LAB, b"not a profile"])
def test_srgb_and_unreadable_profiles_leave_colours_unchanged(profile):
    photo = photograph(3, profile=profile)
    for convert in (to_srgb, from_srgb):
        assert np.abs(convert(photo.pixels, photo).astype(int) - photo.pixels).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("other_dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("others", [1, 2, 3, 4])
def test_another_photograph_takes_on_channels_and_depth(dtype, channels, other_dtype, others):
    photo, other = photograph(channels, dtype), photograph(others, other_dtype)
    pixels = adapted(other, photo)
    assert (pixels.shape[2], pixels.dtype) == (channels, dtype)
    if (channels, dtype) == (others, other_dtype):
        np.testing.assert_array_equal(pixels, other.pixels)


def test_transparency_of_only_the_other_is_laid_on_white():
    other = Photograph(np.zeros((2, 2, 4), np.uint8), b"", "PNG")
    assert (adapted(other, photograph(3)) == 255).all()
