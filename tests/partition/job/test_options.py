"""Options of `elements partition`: help, wrong ones, and where object masks come from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from elements_jax.data.record import DROPPED
from partition.__main__ import main
from partition.job.job import Job
from tests.helpers.jobs import SMALL, read


def test_a_job_that_writes_nothing_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    (photos / "empty.jpg").touch()
    assert main([str(photos), str(out), *SMALL, "--segmenter", "grid"]) == 1
    assert "0 images written" in capsys.readouterr().out
    assert list(json.loads((out / "partition-train.json").read_text())["failed_because"]) == ["empty.jpg"]
    assert not (out / "dataset_info.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--segmenter", "mobile-sam"], "--segmenter mobile-sam needs --checkpoint"),
        (["--checkpoint", "nowhere.pt"], "--checkpoint: no such file: nowhere.pt"),
        (["--segmenter", "grid", "--masks", "auto"], "--masks auto needs SAM"),
        (["--segmenter", "grid", "--masks", "nowhere"], "nowhere: neither a folder of masks nor a COCO file"),
        (["--segmenter", "grid", "--held-out", "1"], "--held-out must be"),
        (["--segmenter", "grid", "--held-out", "0.1", "--split", "val"], "--split val is the split that"),
        (["--segmenter", "grid", "--split", "a-b"], "--split must consist of"),
        (["--segmenter", "grid", "--shard-size", "0"], "--shard-size must be at least 1"),
    ],
)
def test_an_impossible_command_is_one_error(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main([str(photos), str(tmp_path / "out"), *SMALL, *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("segmenter", "masks", "expected"),
    [
        ("sam", (), ("auto",)),
        ("mobile-sam", ("none",), ()),
        ("vit_h", ("folder",), ("folder",)),
        ("slic", (), ()),
        ("grid", ("auto", "folder"), ("auto", "folder")),
    ],
)
def test_sam_gives_object_masks_unless_told_otherwise(
    segmenter: Any, masks: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert Job("photos", Path("out"), segmenter=segmenter, masks=masks).mask_names == expected


def test_mobile_sam_partitions_a_photo_with_automatic_masks(
    shared_data: Path, disc: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    image, inside = disc
    (tmp_path / "photos").mkdir()
    Image.fromarray(image).save(tmp_path / "photos" / "disc.png")
    (tmp_path / "masks").mkdir()
    corner = np.zeros((128, 128), np.uint8)
    corner[:20, :20] = 1
    Image.fromarray(corner).save(tmp_path / "masks" / "disc.png")
    checkpoint = str(shared_data / "weights" / "mobile_sam.pt")
    # With beta = 4 a pixel pays 0.25 for a pitch of this grid, as with the paper's 64 and 16 x 16.
    small = ["--size", "128", "--grid", "4", "--beta", "4", "--checkpoint", checkpoint]
    small += ["--masks", "auto", str(tmp_path / "masks")]
    assert main([str(tmp_path / "photos"), str(tmp_path / "out"), *small]) == 0
    (record,) = read(tmp_path / "out")
    assert record.settings["segmenter"] == "mobile-sam"
    overlap = (record.object_masks & inside).sum((1, 2)) / (record.object_masks | inside).sum((1, 2))
    assert overlap.max() > 0.95
    np.testing.assert_array_equal(record.object_masks[0], corner > 0)  # SAM's own masks follow those in files
    areas = list(record.object_masks[1:].sum((1, 2)))
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
        "SOURCE",
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
