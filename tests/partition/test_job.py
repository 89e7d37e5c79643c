"""`python -m partition`: photos in, records out; a bad photo is skipped, a bad command is one clear error."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import cuda

from elements_jax.records import TFRecordSource, find_shards
from elements_jax.scenes import write_folder
from elements_jax.schema import DROPPED, Record
from partition.__main__ import main

SMALL = ["--size", "64", "--grid", "8", "--image-format", "png", "--workers", "1"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six scenes with captions and masks, and four files that only look like photos."""
    folder = tmp_path / "photos"
    write_folder(folder, range(6), 64)
    whole = (folder / "scene-0000000.png").read_bytes()
    (folder / "scene-0000000a.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.webp").write_text("no photo")
    (folder / "below").mkdir()
    (folder / "below" / "folder.png").mkdir()
    (folder / "below" / "ok.png").write_bytes(whole)
    jpeg = folder / "cut.jpg"
    Image.effect_noise((200, 200), 90).save(jpeg)
    jpeg.write_bytes(jpeg.read_bytes()[:2000])
    return folder


def read(out: Path, split: str = "train") -> list[Record]:
    source = TFRecordSource(find_shards(out)[split])
    return [Record.from_example(source[i], source.where(i)) for i in range(len(source))]


def test_good_photos_become_records_and_bad_ones_are_reported(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--segmenter", "slic", "--masks", str(photos / "masks"), "--shards", "3", "--pictures", "2"]
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
    summary = json.loads((out / "partition-train.json").read_text())
    assert summary["written"] == 7
    assert set(summary["skipped"]) == bad
    assert all(summary["skipped"].values())
    elements = [len(np.setdiff1d(record.label_map, [DROPPED])) for record in records]
    assert [image["elements"] for image in summary["images"].values()] == elements
    assert summary["elements"]["mean"] == pytest.approx(np.mean(elements))
    printed = capsys.readouterr().out
    assert "7 images written" in printed
    assert "4 photos skipped" in printed
    assert all(name in printed for name in bad)

    # Of the first two files one is good.
    drawn = [path for path in (out / "pictures").rglob("*") if path.is_file()]
    assert [path.relative_to(out / "pictures").as_posix() for path in drawn] == ["below/ok.png.png"]
    with Image.open(drawn[0]) as picture:
        assert min(picture.size) >= 1024


def test_the_same_command_writes_the_same_bytes_with_any_number_of_workers(photos: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "one", tmp_path / "two"]
    for out, workers in zip(outs, ("1", "2"), strict=True):
        arguments = [*SMALL[:-1], workers, "--segmenter", "slic", "--shards", "2", "--masks", str(photos / "masks")]
        assert main([str(photos), str(out), *arguments]) == 0
    names = sorted(path.name for path in outs[0].iterdir())
    assert names == sorted(path.name for path in outs[1].iterdir())
    assert "elements-train.tfrecord-00001-of-00002" in names
    for name in names:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), name


def test_tensorflow_datasets_reads_the_folder(photos: Path, tmp_path: Path) -> None:
    """Also when every photo of a shard was bad: the first two of eleven files here."""
    tfds = pytest.importorskip("tensorflow_datasets")
    (photos / "below" / "ok.png").unlink()
    for split in ("train", "test"):
        assert (
            main(
                [str(photos), str(tmp_path / "out"), *SMALL, "--segmenter", "grid", "--shards", "10", "--split", split]
            )
            == 0
        )
    builder = tfds.builder_from_directory(tmp_path / "out")
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 6, "test": 6}
    examples = list(tfds.as_numpy(builder.as_dataset("train")))
    assert len(examples) == 6
    record = {record.source_id: record for record in read(tmp_path / "out")}[examples[0]["source_id"].decode()]
    np.testing.assert_array_equal(examples[0]["label_map"][..., 0], record.label_map)


def test_a_job_that_writes_nothing_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    (photos / "empty.jpg").touch()
    assert main([str(photos), str(out), *SMALL, "--segmenter", "grid"]) == 1
    assert "0 images written" in capsys.readouterr().out
    assert [path.name for path in out.iterdir()] == ["partition-train.json"]
    assert list(json.loads((out / "partition-train.json").read_text())["skipped"]) == ["empty.jpg"]


def test_a_split_is_replaced_only_on_request(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(photos), str(tmp_path / "out"), *SMALL, "--segmenter", "grid"]
    assert main([*command, "--shards", "2"]) == 0
    assert main(command) == 1
    assert "split 'train' is there already; --overwrite" in capsys.readouterr().err
    assert len(find_shards(tmp_path / "out")["train"]) == 2
    assert main([*command, "--overwrite"]) == 0
    assert len(find_shards(tmp_path / "out")["train"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--segmenter", "mobile-sam"], "--segmenter mobile-sam needs --checkpoint"),
        (["--checkpoint", "nowhere.pt"], "nowhere.pt"),
        (["--checkpoint", "nowhere.pt", "--device", "cuda"], "nowhere.pt" if cuda.is_available() else "finds no GPU"),
        (["--segmenter", "grid", "--masks", "auto"], "--masks auto needs SAM"),
        (["--segmenter", "grid", "--masks", "nowhere"], "nowhere is no folder"),
        (["--segmenter", "grid", "--split", "a-b"], "--split must consist of"),
        (["--segmenter", "grid", "--shards", "0"], "--shards and --workers must be at least 1"),
    ],
)
def test_a_command_that_cannot_be_done_is_one_error(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([str(photos), str(tmp_path / "out"), *SMALL, *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_mobile_sam_partitions_a_photo_with_automatic_masks(
    shared_data: Path, disc: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    image, inside = disc
    (tmp_path / "photos").mkdir()
    Image.fromarray(image).save(tmp_path / "photos" / "disc.png")
    checkpoint = str(shared_data / "weights" / "mobile_sam.pt")
    # With beta = 4 a pixel pays 0.25 for a pitch of this grid, as with the paper's 64 and 16 x 16.
    small = ["--size", "128", "--grid", "4", "--beta", "4", "--checkpoint", checkpoint, "--masks", "auto"]
    assert main([str(tmp_path / "photos"), str(tmp_path / "out"), *small]) == 0
    (record,) = read(tmp_path / "out")
    assert record.settings["segmenter"] == "mobile-sam"
    overlap = (record.object_masks & inside).sum((1, 2)) / (record.object_masks | inside).sum((1, 2))
    assert overlap.max() > 0.95
    areas = list(record.object_masks.sum((1, 2)))
    assert areas == sorted(areas, reverse=True)
    # Elements keep to one side of the disc's edge.
    sides = np.zeros((16, 2), int)
    kept = record.label_map != DROPPED
    np.add.at(sides, (record.label_map[kept], inside[kept].astype(int)), 1)
    assert sides.min(1).sum() < 0.02 * inside.size


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    for flag in (
        "PHOTOS",
        "OUT",
        "--segmenter",
        "--checkpoint",
        "--masks",
        "--size",
        "--beta",
        "--distance",
        "--opening",
    ):
        assert flag in printed
