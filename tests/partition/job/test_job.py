"""`elements partition`, from photos to records; a bad photo is skipped, and a bad command is one clear error."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from elements_jax.data.record import DROPPED
from partition.__main__ import main
from partition.job import worker
from partition.job.filters import is_held_out
from partition.job.job import Job
from tests.helpers.jobs import SMALL, contents, manifest, read
from tests.helpers.sources import write_tar


def test_good_photos_become_records_and_bad_ones_are_reported(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--segmenter", "slic", "--masks", str(photos / "masks"), "--shard-size", "4"]
    assert main([str(photos), str(out), *SMALL, *arguments]) == 0

    records = read(out)
    good = ["below/ok.png", *(f"scene-000000{i}.png" for i in range(6))]
    assert [record.source_id for record in records] == good
    for record in records:
        original = np.asarray(Image.open(photos / record.source_id))
        np.testing.assert_array_equal(record.image, original)
        assert record.settings["segmenter"] == "slic"
        assert record.settings["num_elements"] == 64
        assert record.settings["grid"] == 8
    scene = records[2]
    label_map = np.asarray(Image.open(photos / "masks" / "scene-0000001.png"))
    np.testing.assert_array_equal(scene.object_masks, [label_map == k for k in np.unique(label_map) if k])
    assert scene.caption == (photos / "scene-0000001.txt").read_text().strip()

    bad = {"cut.jpg", "empty.jpg", "scene-0000000a.png", "text.webp"}
    lines = manifest(out)
    assert set(lines) == bad | set(good)
    assert {name for name, line in lines.items() if line["status"] == "failed" and line["reason"]} == bad
    elements = [len(np.setdiff1d(record.label_map, [DROPPED])) for record in records]
    assert [lines[name]["elements"] for name in good] == elements
    assert {lines[name]["split"] for name in good} == {"train"}
    summary = json.loads((out / "partition-train.json").read_text())
    assert (summary["written"], summary["filtered"], summary["failed"]) == (7, 0, 4)
    assert summary["failed_because"] == {name: lines[name]["reason"] for name in sorted(bad)}
    assert summary["elements"]["mean"] == pytest.approx(np.mean(elements))
    printed = capsys.readouterr().out
    assert "7 images written" in printed
    assert "4 images failed" in printed
    assert all(name in printed for name in bad)


def test_bad_annotations_cost_no_photograph_and_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a", "b", "c"):
        Image.new("RGB", (64, 64), "red").save(photos / f"{name}.png")
    square = [[8, 8, 40, 8, 40, 40, 8, 40]]
    annotations = [
        {"image_id": 1, "segmentation": square},
        {"image_id": 99, "segmentation": square},
        {"image_id": 2, "segmentation": []},
        {"image_id": 2, "segmentation": [[1, 2, 3, 4]]},
        {"image_id": 2, "segmentation": square},
        {"image_id": 2, "segmentation": {"size": [9, 9], "counts": [81]}},
        {"image_id": 3, "bbox": [1, 1, 9, 9]},
    ]
    images = [{"id": number, "file_name": f"{name}.png"} for number, name in enumerate("abc", start=1)]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    arguments = ["--segmenter", "grid", "--masks", str(tmp_path / "coco.json")]
    assert main([str(photos), str(tmp_path / "out"), *SMALL, *arguments]) == 0

    assert [len(record.object_masks) for record in read(tmp_path / "out")] == [1, 1, 0]
    lines = manifest(tmp_path / "out")
    assert "masks_left_out" not in lines["a.png"]
    reasons = {"no segmentation": 1, "a polygon of fewer than three points": 1}
    assert lines["b.png"]["masks_left_out"] == reasons | {"of another size than the photograph": 1}
    assert lines["b.png"]["first_left_out"] == f"{tmp_path}/coco.json: annotation 2: no segmentation"
    summary = json.loads((tmp_path / "out" / "partition-train.json").read_text())
    assert summary["masks_left_out"] == {
        "no segmentation": 2,
        "a polygon of fewer than three points": 1,
        "of another size than the photograph": 1,
        "of an image that the file does not list": 1,
    }
    assert "skipped 2 annotations: no segmentation" in capsys.readouterr().out


def test_files_that_are_ignored_are_counted_by_suffix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    (photos / "below").mkdir(parents=True)
    for name in ("a.png", "b.jfif", "c.JPE"):
        Image.new("RGB", (64, 64)).save(photos / name, "PNG" if name == "a.png" else "JPEG")
    for name in ("a.txt", "a.json", "d.heic", "below/e.HEIC", "README", ".hidden"):
        (photos / name).write_text("{}")
    assert main([str(photos), str(tmp_path / "out"), *SMALL, "--segmenter", "grid"]) == 0
    summary = json.loads((tmp_path / "out" / "partition-train.json").read_text())
    assert (summary["written"], summary["ignored"]) == (3, {".heic": 2, "no suffix": 1})
    assert "ignored files, by suffix: 2 .heic, 1 no suffix" in capsys.readouterr().out

    picture = (photos / "a.png").read_bytes()
    tar = write_tar(tmp_path / "tars" / "0.tar", ("a.png", picture), ("001.000.png", picture), ("a.cls", b"3"))
    (tmp_path / "tars" / "0_stats.json").write_text("{}")
    assert main([str(tar.parent), str(tmp_path / "of-tars"), *SMALL, "--segmenter", "grid"]) == 0
    summary = json.loads((tmp_path / "of-tars" / "partition-train.json").read_text())
    assert (summary["written"], summary["ignored"]) == (1, {".000.png": 1, ".cls": 1})
    assert manifest(tmp_path / "of-tars")["0/001.000.png"] == {
        "source_id": "0/001.000.png",
        "status": "ignored",
        "reason": ".000.png",
    }


def test_masks_that_match_no_photograph_are_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    Image.new("L", (64, 64), 1).save(masks / "other.png")
    arguments = [*SMALL, "--segmenter", "grid", "--masks", str(masks)]
    assert main([str(photos), str(tmp_path / "out"), *arguments]) == 1
    assert f"{masks}: no masks of the photographs there; those of the first would be" in capsys.readouterr().err

    tar = write_tar(tmp_path / "tars" / "0.tar", ("k.png", (photos / "scene-0000001.png").read_bytes()))
    assert main([str(tar.parent), str(tmp_path / "of-tars"), *arguments]) == 1
    assert "those of the first would be one of 0/KEY.png, 0/KEY.json, 0/KEY/*.png" in capsys.readouterr().err
    (masks / "0").mkdir()
    Image.new("L", (64, 64), 1).save(masks / "0" / "other.png")
    assert main([str(tar.parent), str(tmp_path / "of-tars"), *arguments]) == 0
    assert "no photograph has an object mask: files of --masks must have" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--workers", "2"], ["--devices", "cpu", "cpu"], ["--engine", "beam"]])
def test_every_engine_writes_the_same_bytes(photos: Path, tmp_path: Path, arguments: list[str]) -> None:
    if "beam" in arguments:
        pytest.importorskip("apache_beam")
    command = [*SMALL, "--segmenter", "slic", "--shard-size", "2", "--masks", str(photos / "masks")]
    for out, more in (("one", []), ("two", arguments)):
        assert main([str(photos), str(tmp_path / out), *command, *more]) == 0
    assert "elements-train.tfrecord-00001-of-00006" in contents(tmp_path / "one")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_images_are_filtered_by_their_metadata_and_size(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    metadata = {
        "good": {"aesthetic": 6.3, "similarity": 0.3},
        "ugly": {"aesthetic": 6.25, "similarity": 0.3},
        "astray": {"AESTHETIC_SCORE": "7", "similarity": 0.25},
        "unknown": {"similarity": 0.3},
        "odd": {"aesthetic": "high", "similarity": 0.3},
        "small": {"aesthetic": 9, "similarity": 1},
    }
    for name, values in metadata.items():
        Image.effect_noise((80, 47 if name == "small" else 48), 90).save(folder / f"{name}.png")
        (folder / f"{name}.json").write_text(json.dumps(values))
    paper = ["--filters.aesthetic", "6.25", "--filters.alignment", "0.25", "--filters.min-side", "48"]
    assert main([str(folder), str(tmp_path / "out"), *SMALL, "--segmenter", "grid", *paper]) == 0
    reasons = {name: line.get("reason") for name, line in manifest(tmp_path / "out").items()}
    assert reasons == {
        "good.png": None,
        "ugly.png": "aesthetic score not above 6.25",
        "astray.png": "alignment not above 0.25",
        "unknown.png": "no aesthetic score in the metadata (aesthetic_score, aesthetic, aesthetic_score_laion_v2)",
        "odd.png": "aesthetic score is 'high'",
        "small.png": "shorter side below 48 pixels",
    }
    assert [record.source_id for record in read(tmp_path / "out")] == ["good.png"]


def test_odd_images_are_each_taken_or_named(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    photo = Image.effect_noise((80, 64), 90)
    frames = [Image.new("P", (64, 64), colour) for colour in (1, 2)]
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.full((64, 64), 40000, np.uint16)).save(folder / "deep.png")
    frames[0].save(folder / "animated.gif", save_all=True, append_images=frames[1:])
    photo.save(folder / "rotated.jpg", exif=exif)
    Image.new("RGB", (1, 1)).save(folder / "point.png")
    Image.new("RGB", (20000, 10)).save(folder / "line.png")
    Image.new("F", (64, 64)).save(folder / "real.tif")
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("no image")
    assert main([str(folder), str(tmp_path / "out"), *SMALL, "--segmenter", "grid"]) == 0
    lines = manifest(tmp_path / "out")
    assert {name for name, line in lines.items() if line["status"] == "written"} == {
        "animated.gif",
        "cmyk.jpg",
        "deep.png",
        "rotated.jpg",
    }
    reasons = {name: line["reason"] for name, line in lines.items() if line["status"] != "written"}
    assert reasons == {
        "empty.jpg": "the image file is empty",
        "line.png": "shorter side below 16 pixels",
        "point.png": "shorter side below 16 pixels",
        "real.tif": "floating-point pixels: convert them to 8 or 16 bits first",
        "text.png": "not an image, an unknown format, or damaged at its start",
    }
    assert {name for name, line in lines.items() if line["status"] == "filtered"} == {"line.png", "point.png"}


def test_the_held_out_split_depends_only_on_the_name(photos: Path, tmp_path: Path) -> None:
    command = ["--segmenter", "grid", "--held-out", "0.4", *SMALL]
    assert main([str(photos), str(tmp_path / "one"), *command]) == 0
    (photos / "scene-0000000.png").unlink()
    assert main([str(photos), str(tmp_path / "two"), *command, "--shard-size", "3"]) == 0
    one, two = ({s: {r.source_id for r in read(tmp_path / o, s)} for s in ("train", "val")} for o in ("one", "two"))
    assert one["train"]
    assert one["val"]
    assert two == {split: names - {"scene-0000000.png"} for split, names in one.items()}
    for split, names in one.items():
        assert {name for name, line in manifest(tmp_path / "one").items() if line.get("split") == split} == names


@given(st.floats(0, 1), st.lists(st.text(), min_size=1, max_size=20))
def test_a_larger_share_holds_out_the_same_images_and_more(share: float, names: list[str]) -> None:
    assert not any(is_held_out(name, 0) for name in names)
    assert all(is_held_out(name, 1) for name in names)
    assert all(is_held_out(name, (share + 1) / 2) for name in names if is_held_out(name, share))


def test_the_share_that_is_held_out_is_as_asked() -> None:
    count = sum(is_held_out(f"{number // 10000:05d}/{number:09d}", 1 / 30) for number in range(30000))
    assert abs(count - 1000) < 4 * 1000**0.5  # four standard deviations


def test_the_message_to_a_worker_per_image_is_small(tmp_path: Path) -> None:
    (tmp_path / "photos.txt").write_text("\n".join(f"{number:09d}.jpg" for number in range(100_000)))
    job = Job(str(tmp_path / "photos.txt"), tmp_path / "out", segmenter="grid", workers=1)
    assert len(job.shards) == 100
    with worker.ShardWorker(job, "cpu") as one:
        assert len(pickle.dumps((one._load, one._finish))) < 10_000


def test_tensorflow_datasets_reads_the_folder(photos: Path, tmp_path: Path) -> None:
    """It does so even if every photo of a shard is bad."""
    tfds = pytest.importorskip("tensorflow_datasets")
    (photos / "below" / "ok.png").unlink()
    for split in ("train", "test"):
        assert (
            main(
                [
                    str(photos),
                    str(tmp_path / "out"),
                    *SMALL,
                    "--segmenter",
                    "grid",
                    "--shard-size",
                    "1",
                    "--split",
                    split,
                ]
            )
            == 0
        )
    builder = tfds.builder_from_directory(tmp_path / "out")
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 6, "test": 6}
    examples = list(tfds.as_numpy(builder.as_dataset("train")))
    assert len(examples) == 6
    record = {record.source_id: record for record in read(tmp_path / "out")}[examples[0]["source_id"].decode()]
    np.testing.assert_array_equal(examples[0]["label_map"][..., 0], record.label_map)
