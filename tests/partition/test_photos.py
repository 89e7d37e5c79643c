"""Photographs of every kind are read as they should look, or errors say why not; masks stay on their objects."""

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from partition.masks import MaskFilter, MaskFolder
from partition.photos import SquarePhoto, read_photo
from partition.sources.sample import Sample
from tests.helpers.photographs import swapped_profile

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)
ALL = MaskFilter(min_area=0, max_area=1)


def encode(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(encoded: bytes, size: int = 1) -> SquarePhoto:
    return read_photo(Sample("p", encoded), size)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_the_centre_square_is_cut_out_and_masks_with_it(tmp_path: Path) -> None:
    """A photo of a grid of colours and its label map show the same colour at the same place after cropping."""
    rng = np.random.default_rng(0)
    palette = np.concatenate([[[0, 0, 0]], rng.integers(60, 256, (40, 3))]).astype(np.uint8)
    label_map = np.arange(40).reshape(5, 8).repeat(20, axis=0).repeat(20, axis=1).astype(np.uint8)  # 100 x 160
    Image.fromarray(label_map).save(tmp_path / "p.png")
    sample = Sample("p.jpg", encode(Image.fromarray(palette[label_map])), "a caption")
    photo = read_photo(sample, 50, [MaskFolder(tmp_path)])
    assert photo.image.shape == (50, 50, 3)
    assert (photo.width, photo.height, photo.caption) == (160, 100, "a caption")
    cropped = label_map[:, 30:130]
    present = [value for value in np.unique(cropped) if value]
    assert len(photo.object_masks) == len(present)
    expected = palette[cropped[::2, ::2]].astype(int)  # 100 -> 50 px
    flat = (np.abs(photo.image.astype(int) - expected) < 8).all(-1)
    assert flat.mean() > 0.7  # all but the edges of the colours
    for value, mask in zip(present, photo.object_masks, strict=True):
        np.testing.assert_array_equal(mask & flat, (cropped[::2, ::2] == value) & flat)


def test_masks_are_filtered_by_their_share_of_the_square(tmp_path: Path) -> None:
    label_map = np.zeros((20, 40), np.uint8)
    label_map[:, :10] = 1  # outside of the square
    label_map[:, 10:18] = 2  # 40 %
    label_map[0, 20:22] = 3  # 0.5 %
    Image.fromarray(label_map).save(tmp_path / "p.png")
    sample = Sample("p.jpg", encode(Image.new("RGB", (40, 20))))
    for keep, sizes in ((ALL, [160, 2]), (MaskFilter(min_area=0.01), [160]), (MaskFilter(max_area=0.3), [2])):
        masks = read_photo(sample, 20, [MaskFolder(tmp_path)], keep).object_masks
        assert [mask.sum() for mask in masks] == sizes


def test_a_photo_without_masks_has_none(tmp_path: Path) -> None:
    sample = Sample("p.jpg", encode(Image.new("RGB", (8, 6))))
    assert read_photo(sample, 4, [MaskFolder(tmp_path)]).object_masks.shape == (0, 4, 4)
    assert read_photo(sample, 4).object_masks.shape == (0, 4, 4)


def test_a_photo_of_the_right_size_is_not_touched() -> None:
    np.testing.assert_array_equal(read(encode(Image.fromarray(noise(16, 16, 3))), 16).image, noise(16, 16, 3))


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (10, 20_000)])
def test_photos_of_odd_shapes_are_read(size: tuple[int, int]) -> None:
    photo = read(encode(Image.new("RGB", size, RED), "jpeg", quality=95), 64)
    assert (photo.width, photo.height) == size
    np.testing.assert_allclose(photo.image, np.broadcast_to(RED, (64, 64, 3)), atol=2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_the_photo(tmp_path: Path, orientation: int) -> None:
    """Masks are drawn on the upright image, so only the photo is turned."""
    upright = np.zeros((8, 6, 3), np.uint8)
    upright[:4, :3] = 255
    stored = {
        1: lambda seen: seen,
        2: np.fliplr,
        3: lambda seen: np.rot90(seen, 2),
        4: np.flipud,
        5: lambda seen: seen.transpose(1, 0, 2),
        6: np.rot90,  # the camera was turned: rotate by 90 degrees clockwise to see it upright
        7: lambda seen: np.rot90(seen, 2).transpose(1, 0, 2),
        8: lambda seen: np.rot90(seen, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    sample = Sample("p.png", encode(Image.fromarray(np.ascontiguousarray(stored)), exif=exif))
    Image.fromarray((upright[..., 0] > 0).astype(np.uint8)).save(tmp_path / "p.png")
    photo = read_photo(sample, 6, [MaskFolder(tmp_path)])
    assert (photo.width, photo.height) == (6, 8)
    np.testing.assert_array_equal(photo.image, upright[1:-1])
    np.testing.assert_array_equal(photo.object_masks[0], upright[1:-1, :, 0] > 0)


def palette_with_transparency() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putdata([0, 1])
    image.info["transparency"] = b"\xff\x00"
    return image


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (encode(Image.new("RGB", (1, 1), RED)), RED),
        (encode(Image.new("L", (1, 1), 7)), (7, 7, 7)),
        (encode(Image.new("1", (1, 1), 1)), WHITE),
        (encode(Image.new("1", (1, 1), 1), "tiff", compression="group4"), WHITE),
        (encode(Image.fromarray(np.array([[0x1234]], np.uint16))), (0x12,) * 3),
        (encode(Image.fromarray(np.array([[0x1234]], np.uint16)), "tiff"), (0x12,) * 3),
        (encode(Image.fromarray(np.array([[0xFFFF]], np.uint16))), WHITE),
        (encode(Image.fromarray(np.array([[0x70000]], np.int32)), "tiff"), WHITE),
        (encode(Image.new("RGBA", (1, 1), (255, 0, 0, 0))), WHITE),
        (encode(Image.new("RGBA", (1, 1), (255, 0, 0, 51))), (255, 204, 204)),
        (encode(Image.new("LA", (1, 1), (0, 51))), (204, 204, 204)),
        (encode(palette_with_transparency().crop((0, 0, 1, 1))), RED),
        (encode(palette_with_transparency().crop((1, 0, 2, 1)), transparency=b"\xff\x00"), WHITE),
        (encode(Image.new("RGB", (1, 1), RED), transparency=RED), WHITE),
        (encode(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "tiff"), RED),
        (encode(Image.new("YCbCr", (16, 16), (76, 85, 255)), "tiff", compression="jpeg"), RED),
        (encode(Image.new("RGB", (1, 1), RED), "webp", lossless=True), RED),
        (encode(Image.new("RGB", (1, 1), RED), "bmp"), RED),
        (encode(Image.new("RGB", (64, 64), RED), "avif", quality=100), RED),
    ],
    ids=[
        *("rgb", "grey", "bits", "fax", "16-bit grey", "16-bit grey tiff", "16-bit white", "32-bit grey", "clear"),
        *("half clear", "grey alpha", "palette", "clear palette", "clear colour", "cmyk tiff", "ycbcr", "webp"),
        *("bmp", "avif"),
    ],
)
def test_every_mode_becomes_rgb(encoded: bytes, expected: tuple[int, int, int]) -> None:
    image = read(encoded).image
    assert image.dtype == np.uint8
    np.testing.assert_allclose(image[0, 0], expected, atol=1)


def png(colour_type: int, pixel: bytes) -> bytes:
    """Return a 16-bit PNG of one pixel, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + pixel)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*content) for content in chunks)


@pytest.mark.parametrize(
    ("colour_type", "pixel", "expected"),
    [
        (0, (0xABCD,), (0xAB,) * 3),
        (2, (0xFFFF, 0x1280, 0), (255, 0x12, 0)),
        (4, (0, 0x3333), (204,) * 3),
        (6, (0xFFFF, 0, 0, 0x3333), (255, 204, 204)),
    ],
    ids=["grey", "rgb", "grey alpha", "rgb alpha"],
)
def test_16_bit_png_keeps_its_upper_8_bits(colour_type: int, pixel: tuple[int, ...], expected: tuple) -> None:
    encoded = png(colour_type, struct.pack(f">{len(pixel)}H", *pixel))
    np.testing.assert_array_equal(read(encoded).image[0, 0], expected)


def test_cmyk_jpeg_is_read_by_adobes_convention() -> None:
    """Programs write CMYK JPEGs with inverted ink, with or without Adobe's marker, and readers expect that."""
    encoded = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "jpeg", quality=95)
    marker = encoded.index(b"\xff\xee")
    assert encoded[marker + 4 : marker + 9] == b"Adobe"
    length = 2 + int.from_bytes(encoded[marker + 2 : marker + 4])
    for variant in (encoded, encoded[:marker] + encoded[marker + length :]):
        np.testing.assert_allclose(read(variant).image[0, 0], RED, atol=3)


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, WHITE)]
    options = {"lossless": True} if kind == "webp" else {}
    encoded = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(encoded)) as file:
        assert getattr(file, "n_frames", 1) == 3
    np.testing.assert_array_equal(read(encoded).image[0, 0], RED)


def test_a_gif_is_white_where_it_is_clear() -> None:
    image = Image.new("P", (1, 1), 1)
    image.putpalette([*RED, *GREEN])
    np.testing.assert_array_equal(read(encode(image, "gif")).image[0, 0], GREEN)
    np.testing.assert_array_equal(read(encode(image, "gif", transparency=1)).image[0, 0], WHITE)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
def test_colours_follow_the_profile(kind: str) -> None:
    image = Image.new("RGB", (16, 16), RED)
    np.testing.assert_allclose(read(encode(image, kind)).image[0, 0], RED, atol=2)
    np.testing.assert_allclose(read(encode(image, kind, icc_profile=swapped_profile())).image[0, 0], GREEN, atol=2)


def test_a_profile_holds_for_clear_and_palette_pictures_too() -> None:
    half = Image.new("RGBA", (1, 1), (*RED, 51))
    np.testing.assert_allclose(read(encode(half, icc_profile=swapped_profile())).image[0, 0], (204, 255, 204), atol=2)
    palette = palette_with_transparency().crop((0, 0, 1, 1))
    np.testing.assert_allclose(read(encode(palette, icc_profile=swapped_profile())).image[0, 0], GREEN, atol=2)


def test_srgbs_own_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = read(encode(Image.fromarray(noise(64, 64, 3)), icc_profile=profile), 64).image
    assert np.abs(image.astype(int) - noise(64, 64, 3)).max() <= 1


@pytest.mark.parametrize(
    ("mode", "profile"),
    [("RGB", b"no profile"), ("RGB", swapped_profile()[:200]), ("CMYK", swapped_profile()), ("L", swapped_profile())],
    ids=["broken", "cut", "RGB profile of a CMYK picture", "RGB profile of a grey picture"],
)
def test_an_unusable_profile_is_ignored(mode: str, profile: bytes) -> None:
    image = Image.new("RGB", (16, 16), (90, 90, 90)).convert(mode)
    np.testing.assert_allclose(read(encode(image, "jpeg", icc_profile=profile)).image[0, 0], (90, 90, 90), atol=2)


def test_a_picture_below_twice_pillows_limit_is_read_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings(record=True) as caught:
        assert read(encode(Image.new("RGB", (14, 14))), 8).image.shape == (8, 8, 3)
    assert not caught
    with pytest.raises(ValueError, match=r"225 pixels\) exceeds limit of 200"):
        read(encode(Image.new("RGB", (15, 15))), 8)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "tiff", "bmp", "avif"])
def test_a_photo_that_is_cut_short_says_so(kind: str) -> None:
    encoded = encode(Image.fromarray(noise(64, 64, 3)), kind)
    for length in (len(encoded) // 2, 30, 5):
        with pytest.raises(ValueError, match=r"^((?! at 0x).)+$"):  # no address in memory
            read(encoded[:length])


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "the image file is empty"),
        (b"<html>404</html>", "not an image, an unknown format, or damaged at its start"),
        (encode(Image.fromarray(noise(64, 64, 3)), "jpeg")[:-100], "image file is truncated"),
        (encode(Image.new("F", (1, 1)), "tiff"), "floating-point pixels"),
    ],
    ids=["empty", "no image", "cut", "floats"],
)
def test_reasons_are_for_people(encoded: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read(encoded)


@given(st.sampled_from(["jpeg", "png", "webp", "gif", "tiff", "bmp"]), st.data())
def test_a_damaged_photo_is_read_or_a_value_error(kind: str, data: st.DataObject) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = bytearray(encode(Image.fromarray(noise(12, 16, 3)), kind, **({"exif": exif} if kind != "bmp" else {})))
    start = data.draw(st.integers(0, len(encoded) - 1))
    damage = data.draw(st.binary(min_size=1, max_size=12))
    encoded[start : start + len(damage)] = damage
    try:
        assert read(bytes(encoded), 8).image.shape == (8, 8, 3)
    except ValueError as error:
        assert str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("size", "box"), [((40, 20), (0, 8, 32, 24)), ((20, 41), (8, 0, 24, 32)), ((7, 7), (0, 0, 32, 32))]
)
def test_a_padded_photograph_is_complete_and_centred_on_grey(
    size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    pixels = noise(*size[::-1], 3)
    photo = read_photo(Sample("a", encode(Image.fromarray(pixels))), 32, fit="pad")
    left, top, right, bottom = box
    assert photo.box == box
    inside = np.asarray(Image.fromarray(pixels).resize((right - left, bottom - top), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(photo.image[top:bottom, left:right], inside)
    outside = np.ones((32, 32), bool)
    outside[top:bottom, left:right] = False
    assert (photo.image[outside] == 128).all()
    again = read_photo(
        Sample("b", encode(Image.fromarray(inside))), 32, fit="pad"
    )  # a cut-out is pasted back unchanged
    np.testing.assert_array_equal(again.image, photo.image)
    assert again.box == box
