"""Photographs of every kind come out as they are meant to be seen; masks stay on their objects."""

from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image

from partition.photos import find_photos, read_photo, to_rgb


def test_photos_are_found_below_the_folder_but_for_masks_hidden_and_skipped_ones(tmp_path: Path) -> None:
    names = [
        "b.JPG",
        "a/z.png",
        "a.webp",
        "notes.txt",
        "masks/b.png",
        "a/masks/z.png",
        ".cache/t.jpg",
        "._b.jpg",
        "out/p.png",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    found = find_photos(tmp_path, skip=[tmp_path / "a" / ".." / "out"])
    assert [str(name) for name in found] == ["a/z.png", "a.webp", "b.JPG"]


def test_a_folder_without_photos_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match="no photographs there"):
        find_photos(tmp_path)
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        find_photos(tmp_path / "nowhere")


def test_the_centre_square_is_cut_out_and_masks_with_it(tmp_path: Path) -> None:
    """A photo of a grid of colours and its label map show the same colour at the same place after cropping."""
    rng = np.random.default_rng(0)
    palette = np.concatenate([[[0, 0, 0]], rng.integers(60, 256, (40, 3))]).astype(np.uint8)
    label_map = np.arange(40).reshape(5, 8).repeat(20, axis=0).repeat(20, axis=1).astype(np.uint8)  # 100 x 160
    Image.fromarray(palette[label_map]).save(tmp_path / "p.png")
    (tmp_path / "m").mkdir()
    Image.fromarray(label_map).save(tmp_path / "m" / "p.png")
    photo = read_photo(tmp_path, PurePosixPath("p.png"), 50, tmp_path / "m")
    assert photo.image.shape == (50, 50, 3)
    cropped = label_map[:, 30:130]
    present = [value for value in np.unique(cropped) if value]
    assert len(photo.object_masks) == len(present)
    expected = palette[cropped[::2, ::2]].astype(int)  # 100 -> 50 px
    flat = (np.abs(photo.image.astype(int) - expected) < 8).all(-1)
    assert flat.mean() > 0.7  # all but the edges of the colours
    for value, mask in zip(present, photo.object_masks, strict=True):
        np.testing.assert_array_equal(mask & flat, (cropped[::2, ::2] == value) & flat)


def test_a_photo_of_the_right_size_is_not_touched(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "p.png")
    np.testing.assert_array_equal(read_photo(tmp_path, PurePosixPath("p.png"), 16).image, image)


def test_captions_lie_beside_photos(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "a.txt").write_text("\ufeffa café\r\n", encoding="utf-8")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\xfa")
    assert read_photo(tmp_path, PurePosixPath("a.png"), 4).caption == "a café"
    assert read_photo(tmp_path, PurePosixPath("b.png"), 4).caption == ""
    with pytest.raises(UnicodeDecodeError):
        read_photo(tmp_path, PurePosixPath("c.png"), 4)


def test_masks_in_a_folder_are_one_object_each(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "p.png")
    folder = tmp_path / "m" / "p"
    folder.mkdir(parents=True)
    left = np.zeros((8, 8), np.uint8)
    left[:, :4] = 255
    colour = np.stack([np.zeros_like(left), left.T, left.T], axis=-1)
    Image.fromarray(left).convert("1").save(folder / "1.png")
    Image.fromarray(np.dstack([colour, np.full((8, 8), 255, np.uint8)])).save(folder / "2.png")  # opaque everywhere
    Image.fromarray(left.astype(np.uint16) * 257).save(folder / "3.png")
    Image.new("L", (8, 8)).save(folder / "4.png")  # nothing: left out
    masks = read_photo(tmp_path, PurePosixPath("p.png"), 8, tmp_path / "m").object_masks
    np.testing.assert_array_equal(masks, np.stack([left, left.T, left]) > 0)


def test_a_photo_without_masks_has_none(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "p.png")
    (tmp_path / "m").mkdir()
    assert read_photo(tmp_path, PurePosixPath("p.png"), 4, tmp_path / "m").object_masks.shape == (0, 4, 4)
    assert read_photo(tmp_path, PurePosixPath("p.png"), 4).object_masks.shape == (0, 4, 4)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("L", (6, 8)), r"m.p\.png: expected the photo's 8 x 6 pixels, got 6 x 8"),
        (Image.new("RGB", (8, 6)), r"m.p\.png: a label map has one channel, this has 3"),
    ],
)
def test_masks_that_do_not_fit_are_named(tmp_path: Path, mask: Image.Image, message: str) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "p.png")
    (tmp_path / "m").mkdir()
    mask.save(tmp_path / "m" / "p.png")
    with pytest.raises(ValueError, match=message):
        read_photo(tmp_path, PurePosixPath("p.png"), 4, tmp_path / "m")


def test_exif_orientation_is_applied_to_the_photo(tmp_path: Path) -> None:
    """Masks are drawn on the picture as it is seen, so only the photo turns."""
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    Image.fromarray(np.rot90(upright)).save(tmp_path / "p.png", exif=exif)
    (tmp_path / "m").mkdir()
    Image.fromarray((upright[..., 0] > 0).astype(np.uint8)).save(tmp_path / "m" / "p.png")
    photo = read_photo(tmp_path, PurePosixPath("p.png"), 8, tmp_path / "m")
    np.testing.assert_array_equal(photo.image, upright)
    np.testing.assert_array_equal(photo.object_masks[0], upright[..., 0] > 0)


RED = (255, 0, 0)


def palette_with_transparency() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 255, 0])
    image.putdata([0, 1])
    image.info["transparency"] = b"\xff\x00"
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("RGB", (1, 1), RED), [RED]),
        (Image.new("CMYK", (1, 1), (0, 255, 255, 0)), [RED]),
        (Image.new("L", (1, 1), 7), [(7, 7, 7)]),
        (Image.new("1", (1, 1), 1), [(255, 255, 255)]),
        (Image.fromarray(np.array([[0, 0x1234, 0xFFFF]], np.uint16)), [(0,) * 3, (0x12,) * 3, (255,) * 3]),
        (Image.fromarray(np.array([[0, 0x1234, 0x70000]], np.int32)), [(0,) * 3, (0x12,) * 3, (255,) * 3]),
        (Image.new("RGBA", (1, 1), (255, 0, 0, 0)), [(255, 255, 255)]),
        (Image.new("RGBA", (1, 1), (255, 0, 0, 51)), [(255, 204, 204)]),
        (Image.new("LA", (1, 1), (0, 51)), [(204, 204, 204)]),
        (palette_with_transparency(), [RED, (255, 255, 255)]),
    ],
    ids=["rgb", "cmyk", "grey", "bits", "16-bit grey", "32-bit grey", "clear", "half clear", "grey alpha", "palette"],
)
def test_every_mode_becomes_rgb(image: Image.Image, expected: list[tuple[int, int, int]]) -> None:
    converted = to_rgb(image)
    assert converted.mode == "RGB"
    np.testing.assert_allclose(np.asarray(converted)[0], expected, atol=1)


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="floating-point"):
        to_rgb(Image.new("F", (1, 1)))
