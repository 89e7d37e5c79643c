"""`elements edit` on photographs: every kind of file stays unchanged except for the edit."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, JpegImagePlugin

from elements_jax.cli.main import main
from elements_jax.photograph import composition
from elements_jax.pipeline.pipeline import ElementsPipeline
from tests.helpers.photographs import SRGB, exif, picture, saved

MASK = np.zeros((40, 56), bool)
MASK[10:22, 8:20] = True
FAR = np.s_[:, 46:]
"""Columns far from every edit here, in upright photographs."""


@pytest.fixture(autouse=True)
def _quick_fill(monkeypatch):
    monkeypatch.setattr(
        composition,
        "fill_hole",
        lambda colours, hole, guide=None, probes=None: np.where(hole[..., None], 99, colours).astype(np.uint8),
    )


@pytest.fixture
def edit(tmp_path, pipeline, monkeypatch):
    """Run `elements edit` with a move of the mask and a pipeline that is compiled once; return the exit code."""
    pytest.importorskip("skimage")
    monkeypatch.setattr(ElementsPipeline, "from_pretrained", lambda *_, **__: pipeline)
    Image.fromarray(MASK).save(tmp_path / "mask.png")
    move = {"edit": "move", "object": {"mask": "mask.png"}, "by": [0.3, 0.0]}

    def run(photo: Path, *options: str, edits: list | None = None) -> int:
        script = {"version": 1, "edits": [move] if edits is None else edits, "sampling": {"steps": 1}}
        (tmp_path / "edit.json").write_text(json.dumps(script))
        command = ["edit", str(photo), "--script", str(tmp_path / "edit.json"), "--model", "model"]
        return main([*command, "--segmenter", "grid", *options])

    return run


def upside(**options) -> bytes:
    turned = picture().transpose(Image.Transpose.ROTATE_90)
    return saved(turned, "JPEG", exif=exif(6).tobytes(), icc_profile=SRGB, quality=60, **options)


KINDS = {
    "photo.jpg": upside(),
    "progressive.JPEG": upside(progressive=True, subsampling=2),
    "in-truth-a.jpg": saved(picture(), "PNG"),
    "grey.jpg": saved(picture().convert("L"), "JPEG"),
    "alpha.png": saved(picture().convert("RGBA"), "PNG"),
    "grey-16.png": saved(Image.fromarray(np.asarray(picture().convert("L")).astype(np.uint16) * 257), "PNG"),
    "palette.png": saved(picture().quantize(16), "PNG"),
    "one-bit.png": saved(picture().convert("1"), "PNG"),
    "broken-profile.png": saved(picture(), "PNG", icc_profile=b"not a profile"),
    "photo.tiff": saved(picture(), "TIFF", compression="tiff_lzw", dpi=(300, 300)),
    "photo.webp": saved(picture(), "WEBP", lossless=True),
    "lossy.webp": saved(picture(), "WEBP", quality=90),
    "photo.bmp": saved(picture(), "BMP"),
    "trailing.jpg": upside() + bytes(5000),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_format_stays_unchanged_except_for_the_edit(name, tmp_path, edit, capsys):
    photo = tmp_path / name
    photo.write_bytes(KINDS[name])
    assert edit(photo) == 0
    written = [path for path in tmp_path.iterdir() if "-edited" in path.name]
    assert photo.read_bytes() == KINDS[name]
    (out,) = written
    with Image.open(photo) as before, Image.open(out) as after:
        assert (after.format, after.size) == (before.format, before.size)
        for what in ("icc_profile", "dpi", "exif", "compression"):
            assert after.info.get(what) == before.info.get(what), what
        wider = {"P": "RGB", "1": "L"}
        assert after.mode == wider.get(before.mode, before.mode)
        assert (before.mode in wider) == ("becomes" in capsys.readouterr().out)
        mode = "I" if before.mode.startswith("I") else "RGBA"
        seen = [np.asarray(ImageOps.exif_transpose(image).convert(mode)).astype(int) for image in (before, after)]
        assert (np.abs(seen[0] - seen[1])[12:20, 12:16] > 5).any()
        difference = np.abs(seen[0] - seen[1])[FAR]
        if before.format in ("JPEG", "WEBP") and name != "photo.webp":
            assert difference.mean() < 2
            if before.format == "JPEG":
                assert after.quantization == before.quantization
                assert JpegImagePlugin.get_sampling(after) == JpegImagePlugin.get_sampling(before)
                assert after.info.get("progressive") == before.info.get("progressive")
        else:
            np.testing.assert_array_equal(difference, 0)


@pytest.mark.parametrize("name", KINDS)
def test_an_empty_script_gives_the_very_bytes(name, tmp_path, edit, capsys):
    photo, out = tmp_path / name, tmp_path / f"out.{name.rpartition('.')[2]}"
    photo.write_bytes(KINDS[name])
    if name == "in-truth-a.jpg":
        out = tmp_path / "out.png"
    assert edit(photo, "--out", str(out), edits=[]) == 0
    assert out.read_bytes() == KINDS[name]
    assert "unchanged" in capsys.readouterr().out


def test_without_a_model_no_network_is_loaded(tmp_path, edit, monkeypatch, capsys):
    def loaded(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(ElementsPipeline, "from_pretrained", loaded)
    (tmp_path / "photo.png").write_bytes(saved(picture(), "PNG"))
    command = ["edit", str(tmp_path / "photo.png"), "--script", str(tmp_path / "edit.json"), "--segmenter", "grid"]
    for selection in ({"object": {"mask": "mask.png"}}, {"elements": [9]}):
        fields = {"version": 1, "edits": [{"edit": "delete", **selection}]}
        (tmp_path / "edit.json").write_text(json.dumps(fields))
        assert main(command) == 0
        assert "blurred" not in capsys.readouterr().err
        with Image.open(tmp_path / "photo-edited.png") as edited:
            assert (np.asarray(edited) == 99).all(axis=-1).any()
    (tmp_path / "edit.json").write_text(json.dumps(fields | {"prompt": "a cat"}))
    with pytest.raises(AssertionError, match="a model was loaded"):
        main(command)


def test_the_suffix_decides_the_format(tmp_path, edit):
    photo = tmp_path / "photo.png"
    photo.write_bytes(saved(picture(), "PNG", icc_profile=SRGB, dpi=(300, 300)))
    for suffix, format in ((".jpg", "JPEG"), (".webp", "WEBP"), (".tif", "TIFF")):
        assert edit(photo, "--out", str(tmp_path / f"out{suffix}")) == 0
        with Image.open(tmp_path / f"out{suffix}") as after:
            assert (after.format, after.info["icc_profile"]) == (format, SRGB)


def test_gps_is_dropped_on_request(tmp_path, edit):
    photo, out = tmp_path / "photo.jpg", tmp_path / "out.jpg"
    photo.write_bytes(upside())
    for options, there in (([], True), (["--drop-gps"], False)):
        for edits in (None, []):
            assert edit(photo, "--out", str(out), *options, edits=edits) == 0
            with Image.open(out) as after:
                assert bool(after.getexif().get_ifd(0x8825)) == there
                assert after.getexif()[0x010F] == "Maker"


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("photo.png", saved(picture(), "PNG"), ["--out", "out.jpgg"], "unknown suffix"),
        ("alpha.png", KINDS["alpha.png"], ["--out", "out.jpg"], "transparency; use .png"),
        ("deep.png", KINDS["grey-16.png"], ["--out", "out.jpg"], "16 bits; use .png"),
        ("photo.png", saved(picture(), "PNG"), ["--out", "photo.png"], "is the photograph itself"),
        ("photo.png", saved(picture(), "PNG"), ["--drawing", "drawing.png"], "--drawing is for a file"),
        ("cmyk.jpg", saved(picture().convert("CMYK"), "JPEG"), [], "convert the photograph to RGB"),
        (
            "two.gif",
            saved(picture(), "GIF", save_all=True, append_images=[picture().rotate(9)]),
            [],
            "2 images in one",
        ),
        ("cut.jpg", upside()[:400], [], "cut.jpg"),
    ],
)
def test_refusals_are_one_line_before_any_work(name, content, options, message, tmp_path, edit, capsys, monkeypatch):
    monkeypatch.setattr(ElementsPipeline, "from_pretrained", lambda *_: pytest.fail("work began"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert edit(tmp_path / name, *options) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert (tmp_path / name).read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {name, "mask.png", "edit.json"}


def test_the_photograph_is_overwritten_on_request(tmp_path, edit):
    photo = tmp_path / "photo.png"
    photo.write_bytes(saved(picture(), "PNG"))
    assert edit(photo, "--out", str(photo), "--overwrite") == 0
    with Image.open(photo) as after:
        assert (np.asarray(after) != np.asarray(picture())).any()


def test_points_need_sam_and_boxes_do_not(tmp_path, edit, capsys):
    pixels = np.full((40, 56, 3), 60, np.uint8)
    pixels[12:24, 10:22] = (220, 30, 30)
    photo = tmp_path / "photo.png"
    photo.write_bytes(saved(Image.fromarray(pixels), "PNG"))
    assert edit(photo, edits=[{"edit": "delete", "object": {"point": [0.3, 0.5]}}]) == 1
    assert "edits[0] (delete): finding an object from a point needs SAM: give --checkpoint" in capsys.readouterr().err
    box = {"box": [7 / 56, 9 / 40, 25 / 56, 27 / 40]}
    assert edit(photo, edits=[{"edit": "move", "object": box, "by": [0.4, 0.0]}]) == 0
    with Image.open(tmp_path / "photo-edited.png") as after:
        moved = np.asarray(after)
    assert (moved[14:22, 34:42] == (220, 30, 30)).all()
    assert (moved[:8] == 60).all()


def test_orientation_8_photographs_are_edited_upright(tmp_path, edit):
    photo = tmp_path / "photo.png"
    turned = picture().transpose(Image.Transpose.ROTATE_270)
    photo.write_bytes(saved(turned, "PNG", exif=exif(8).tobytes()))
    assert edit(photo) == 0
    with Image.open(tmp_path / "photo-edited.png") as after:
        seen = np.asarray(ImageOps.exif_transpose(after))
    np.testing.assert_array_equal(seen[13:19, 28:33], np.asarray(picture())[13:19, 11:16])
