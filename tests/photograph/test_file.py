"""Photograph files: reading, and that written files keep everything of the input."""

import contextlib
import io
import struct
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo

from elements_jax.photograph.exif import without_gps, without_thumbnail, xmp_without_gps
from elements_jax.photograph.file import Photograph, format_of, turned
from tests.helpers.photographs import SRGB, exif, picture, saved


def opened(encoded: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(encoded))
    image.load()
    return image


LOSSLESS = {
    "png": saved(picture(), "PNG", dpi=(300, 300), icc_profile=SRGB),
    "grey": saved(picture().convert("L"), "PNG"),
    "one-bit": saved(picture().convert("1"), "PNG"),
    "palette": saved(picture().quantize(16), "PNG"),
    "transparent palette": saved(picture().quantize(16), "PNG", transparency=0),
    "alpha": saved(picture().convert("RGBA"), "PNG"),
    "grey 16": saved(Image.fromarray(np.arange(240, dtype=np.uint16).reshape(12, 20) * 257), "PNG"),
    "tiff": saved(picture(), "TIFF", compression="tiff_lzw", dpi=(300, 300)),
    "bmp": saved(picture(), "BMP"),
    "webp": saved(picture().convert("RGBA"), "WEBP", lossless=True, exact=True),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_files_keep_every_pixel_and_their_metadata(name):
    photograph = Photograph.decode(LOSSLESS[name])
    again = photograph.encode(photograph.pixels, photograph.format)
    np.testing.assert_array_equal(Photograph.decode(again).pixels, photograph.pixels)
    before, after = opened(LOSSLESS[name]), opened(again)
    assert after.format == before.format
    for what in ("icc_profile", "dpi", "compression"):
        assert after.info.get(what) == before.info.get(what)
    if name not in ("one-bit", "palette", "transparent palette"):
        assert after.mode == before.mode
        assert not photograph.notes
    else:
        assert len(photograph.notes) == 1


@pytest.mark.parametrize(
    "options", [{"quality": 30}, {"quality": 100, "subsampling": 0}, {"progressive": True, "quality": 60}]
)
def test_jpeg_keeps_its_encoding_settings(options):
    encoded = saved(
        picture(), "JPEG", exif=exif(6).tobytes(), icc_profile=SRGB, comment=b"mine", dpi=(72, 72), **options
    )
    photograph = Photograph.decode(encoded)
    assert photograph.size == (56, 40)
    again = photograph.encode(photograph.pixels, "JPEG")
    before, after = opened(encoded), opened(again)
    assert after.quantization == before.quantization
    assert JpegImagePlugin.get_sampling(after) == JpegImagePlugin.get_sampling(before)
    for what in ("icc_profile", "comment", "dpi", "exif", "progressive"):
        assert after.info.get(what) == before.info.get(what), what
    assert len(again) <= 1.3 * len(encoded)
    # Encoding again with the same tables changes less than the first encoding did.
    lost = np.abs(np.asarray(before).astype(int) - np.asarray(picture())).mean()
    assert np.abs(np.asarray(before).astype(int) - np.asarray(after)).mean() <= max(lost, 0.5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_kept(orientation):
    encoded = saved(picture(), "PNG", exif=exif(orientation).tobytes())
    photograph = Photograph.decode(encoded)
    from PIL import ImageOps

    np.testing.assert_array_equal(photograph.pixels, np.asarray(ImageOps.exif_transpose(opened(encoded))))
    after = opened(photograph.encode(photograph.pixels, "PNG"))
    np.testing.assert_array_equal(np.asarray(after), np.asarray(picture()))
    assert after.getexif()[0x0112] == orientation


@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 5))
def test_turning_back_is_the_inverse(orientation, height, width):
    pixels = np.arange(height * width).reshape(height, width, 1)
    there = turned(pixels, orientation)
    np.testing.assert_array_equal(turned(there, orientation, back=True), pixels)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_survive(channels, format):
    if format == "TIFF":
        pytest.importorskip("tifffile")
    pixels = np.random.default_rng(0).integers(0, 2**16, (9, 7, channels)).astype(np.uint16)
    first = Photograph(pixels, b"", format).encode(pixels, format)
    photograph = Photograph.decode(first)
    assert photograph.pixels.dtype == np.uint16
    np.testing.assert_array_equal(photograph.pixels, pixels)
    np.testing.assert_array_equal(Photograph.decode(photograph.encode(pixels, format)).pixels, pixels)


def test_pillow_reads_the_upper_bytes_of_our_sixteen_bit_png():
    pixels = np.random.default_rng(0).integers(0, 2**16, (9, 7, 3)).astype(np.uint16)
    png = Photograph(pixels, b"", "PNG", metadata={"dpi": (300, 300), "icc_profile": SRGB}).encode(pixels, "PNG")
    image = opened(png)
    np.testing.assert_array_equal(np.asarray(image), pixels >> 8)
    assert image.info["icc_profile"] == SRGB


def test_writes_noise_larger_than_pillows_buffer():
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3)).astype(np.uint8)
    encoded = saved(Image.fromarray(noise), "JPEG", qtables=[[1] * 64] * 2, subsampling=0)
    photograph = Photograph.decode(encoded)
    assert opened(photograph.encode(photograph.pixels, "JPEG")).size == (800, 600)


def test_only_gps_is_removed():
    encoded = saved(picture(), "JPEG", exif=exif().tobytes())
    photograph = Photograph.decode(encoded).without_gps()
    for content in (photograph.encoded, photograph.encode(photograph.pixels, "JPEG")):
        tags = opened(content).getexif()
        assert not tags.get_ifd(0x8825)
        assert (tags[0x010F], tags[0x0132]) == ("Maker", "2024:05:01 12:00:00")
    np.testing.assert_array_equal(np.asarray(opened(photograph.encoded)), np.asarray(opened(encoded)))
    assert len(photograph.encoded) == len(encoded)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_gps_goes_from_other_formats_too(format):
    options = {"lossless": True} if format == "WEBP" else {}
    if format == "PNG":
        xmp = PngInfo()
        xmp.add_itxt("XML:com.adobe.xmp", '<x exif:GPSLatitude="1,2N" exif:Pixel="3"/>')
        options["pnginfo"] = xmp
    encoded = saved(picture(), format, exif=exif().tobytes(), **options)
    assert opened(encoded).getexif().get_ifd(0x8825)
    photograph = Photograph.decode(encoded).without_gps()
    for content in (photograph.encoded, photograph.encode(photograph.pixels, format)):
        image = opened(content)
        assert not image.getexif().get_ifd(0x8825)
        assert image.getexif()[0x010F] == "Maker"
        assert b"GPSLatitude" not in content
        np.testing.assert_array_equal(np.asarray(image), np.asarray(picture()))


def tiff(order: str, *directories: list[tuple[int, int, int, int]], behind: bytes = b"") -> bytes:
    """Return an EXIF block of consecutive directories, from entries (tag, type, count, value)."""
    block = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    for i, entries in enumerate(directories):
        block += struct.pack(order + "H", len(entries))
        for entry in entries:
            block += struct.pack(order + "HHII", *entry)
        end = len(block) + 4
        block += struct.pack(order + "I", end if i + 1 < len(directories) else 0)
    return b"Exif\0\0" + block + behind


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_thumbnail_is_removed_and_the_rest_keeps_its_place(order):
    jpeg = saved(picture(), "JPEG")
    where = 8 + 2 + 12 + 4 + 2 + 24 + 4
    block = tiff(order, [(0x0110, 4, 1, 7)], [(0x0201, 4, 1, where), (0x0202, 4, 1, len(jpeg))], behind=jpeg)
    cleaned = without_thumbnail(block)
    assert len(cleaned) == len(block)
    assert cleaned[: 6 + 8 + 2 + 12] == block[: 6 + 8 + 2 + 12]
    assert not any(cleaned[6 + 8 + 2 + 12 :])


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_damaged_exif_is_never_a_crash(noise):
    for block in (noise, b"Exif\0\0II*\0" + noise, b"Exif\0\0MM\0*\0\0\0\x08" + noise):
        assert len(without_thumbnail(block)) == len(block)
        with contextlib.suppress(ValueError):
            assert len(without_gps(block)) == len(block)


def test_gps_in_xmp_becomes_spaces():
    xmp = b'<x exif:GPSLatitude="1,2N" exif:Pixel="3"><exif:GPSLongitude>4E</exif:GPSLongitude><a>b</a></x>'
    cleaned = xmp_without_gps(xmp)
    assert len(cleaned) == len(xmp)
    assert b"GPS" not in cleaned
    assert b'exif:Pixel="3"' in cleaned
    assert b"<a>b</a>" in cleaned


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", "empty"),
        (b"<html>", "not a readable image"),
        (LOSSLESS["png"][:200], "."),
        (saved(picture().convert("CMYK"), "JPEG"), "CMYK .* convert the photograph to RGB"),
        (saved(picture(), "GIF", save_all=True, append_images=[picture(40, 56).rotate(90)]), "2 images in one GIF"),
        (saved(picture(), "GIF"), "GIF can be read but not written"),
        (saved(picture().convert("F"), "TIFF"), "F pixels"),
    ],
)
def test_rejects_uneditable_files_with_a_remedy(encoded, message):
    with pytest.raises(ValueError, match=message):
        Photograph.decode(encoded)


def test_suffixes_decide_the_format():
    assert format_of(Path("a/b.JPEG")) == "JPEG"
    assert format_of(Path("b.tif")) == "TIFF"
    for name in ("b", "b.jpgg", "b.gif"):
        with pytest.raises(ValueError, match="unknown suffix; expected one of"):
            format_of(Path(name))


@pytest.mark.parametrize(
    ("dtype", "channels", "format", "message"),
    [(np.uint8, 4, "JPEG", "transparency"), (np.uint8, 2, "BMP", "transparency"), (np.uint16, 3, "JPEG", "16 bits")],
)
def test_a_format_that_cannot_hold_the_pixels_is_refused(dtype, channels, format, message):
    pixels = np.zeros((4, 4, channels), dtype)
    with pytest.raises(ValueError, match=message):
        Photograph(pixels, b"", "PNG").encode(pixels, format)
