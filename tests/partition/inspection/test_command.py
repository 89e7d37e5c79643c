"""`elements partition inspect`: its report, and that no damage stops it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import io

from elements_jax.data.record import DROPPED, Record
from elements_jax.data.tfrecord import TFRecordSource, find_shards, scan_tfrecord, write_tfrecord
from elements_jax.scenes.drawn import write_folder
from partition.__main__ import main
from partition.inspection.boundary_scores import score_partition
from partition.inspection.command import Distribution

SMALL = ["--segmenter", "slic", "--size", "64", "--grid", "8", "--image-format", "png", "--workers", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Photos with masks, and their records: 7 in 3 shards of `train`, 2 in one of `val`; some pixels are dropped."""
    folder = tmp_path_factory.mktemp("inspect")
    photos, records = folder / "photos", folder / "records"
    for split, seeds in (("train", range(7)), ("val", range(7, 9))):
        write_folder(photos / split, seeds, 64)
        arguments = ["--split", split, "--shard-size", "3", "--masks", str(photos / split / "masks"), *SMALL]
        assert main([str(photos / split), str(records), *arguments]) == 0
    for shards in find_shards(records).values():
        for path in shards:
            write_tfrecord(path, [drop_corner(record).to_example("png") for record in read(path)])
    return photos, records


@pytest.fixture
def records(made: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the records, to be damaged."""
    for path in made[1].glob("*"):
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def read(path: Path) -> list[Record]:
    source = TFRecordSource([path])
    return [Record.from_example(source[i], source.where(i)) for i in range(len(source))]


def drop_corner(record: Record) -> Record:
    """Drop pixels, more for longer captions, since scenes segmented by SLIC drop none."""
    label_map = record.label_map.copy()
    label_map[: len(record.caption) % 20, :5] = DROPPED
    return replace(record, label_map=label_map)


def inspect(records: Path, *arguments: str) -> int:
    return main(["inspect", str(records), "--workers", "1", *arguments])


def summary(folder: Path) -> dict:
    return json.loads((folder / "inspect.json").read_text())


def test_statistics_cover_all_records(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(records, "--pictures", "0") == 0
    found = summary(records / "inspect")
    assert list(found) == ["train", "val"]
    for split, shards in find_shards(records).items():
        whole = [record for path in shards for record in read(path)]
        areas = [np.bincount(r.label_map[r.label_map != DROPPED], minlength=64) for r in whole]
        dropped = [100 * np.mean(record.label_map == DROPPED) for record in whole]
        expected = {
            "dropped_percent": dropped,
            "elements": [(area > 0).sum() for area in areas],
            "empty_elements": [(area == 0).sum() for area in areas],
            "element_pixels": np.concatenate([area[area > 0] for area in areas]),
            "object_masks": [len(record.object_masks) for record in whole],
            "object_mask_percent": [100 * mask.mean() for record in whole for mask in record.object_masks],
        }
        assert found[split]["records"] == len(whole)
        assert found[split]["damage"] == []
        assert list(found[split]["statistics"]) == list(expected)
        for name, values in expected.items():
            columns = found[split]["statistics"][name]
            assert columns["count"] == len(values)
            for column, value in {"mean": np.mean(values), "min": np.min(values), "max": np.max(values)}.items():
                assert columns[column] == pytest.approx(value), (name, column)
            for column, share in {"5 %": 5, "median": 50, "95 %": 95}.items():
                value = np.percentile(values, share, method="inverted_cdf")
                assert columns[column] == pytest.approx(value, rel=0.006), (name, column)  # three digits
        worst = sorted(zip(dropped, (record.source_id for record in whole), strict=True), reverse=True)[:5]
        assert list(found[split]["most_dropped_percent"]) == [source_id for _, source_id in worst]
        assert len(found[split]["settings"]) == 1
    printed = capsys.readouterr().out
    assert "train: 7 records\n" in printed
    assert "val: 2 records\n" in printed
    assert "dropped percent" in printed
    assert "warning" not in printed


def test_processes_find_the_same(records: Path) -> None:
    assert inspect(records, "--out", str(records / "one")) == 0
    assert main(["inspect", str(records), "--workers", "2", "--out", str(records / "two")]) == 0
    assert summary(records / "one") == summary(records / "two")


def test_pictures_are_taken_evenly(records: Path) -> None:
    assert inspect(records, "--pictures", "3") == 0
    assert inspect(records / "elements-val.tfrecord-00000-of-00001", "--out", str(records / "one")) == 0
    names = [path.name for path in sorted((records / "inspect").glob("*.png"))]
    assert names == ["train-1.png", "train-2.png", "train-3.png", "val-1.png", "val-2.png"]
    for name in names:
        with Image.open(records / "inspect" / name) as picture:
            assert picture.width == 2 * 1024 + 12  # two panels and the margin
            assert 1024 + 40 < picture.height < 1024 + 200
    # A single file gives the same images.
    alone = records / "one" / "elements-val.tfrecord-00000-of-00001-2.png"
    assert alone.read_bytes() == (records / "inspect" / "val-2.png").read_bytes()


def test_a_record_without_objects_is_one_panel(records: Path) -> None:
    (record,) = read(records / "elements-train.tfrecord-00000-of-00003")[:1]
    bare = replace(record, caption="a very long caption, " * 30, object_masks=record.object_masks[:0])
    write_tfrecord(records / "bare.tfrecord", [bare.to_example("png")])
    assert inspect(records / "bare.tfrecord") == 0
    with Image.open(records / "inspect" / "bare.tfrecord-1.png") as picture:
        assert picture.width == 1024
        assert picture.height > 1024 + 8 * 24  # the caption takes many lines


@pytest.mark.parametrize("suffix", [".png", ".mat"])
def test_records_with_a_truth_are_scored(
    made: tuple[Path, Path], records: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The truths belong to a wider photo, and the records hold its centre square."""
    truth = records / "truth"
    truth.mkdir()
    expected = []
    for record in read(records / "elements-val.tfrecord-00000-of-00001"):
        drawn = np.asarray(Image.open(made[0] / "val" / "masks" / record.source_id)).astype(int)
        wide = np.pad(np.kron(drawn, np.ones((3, 3), int)), ((0, 0), (30, 30)), constant_values=9)
        path = (truth / record.source_id).with_suffix(suffix)
        if suffix == ".png":
            Image.fromarray(wide.astype(np.uint8)).save(path)
            expected.append(score_partition(record.label_map, [drawn]))
        else:
            people = np.empty((1, 2), object)
            people[0, 0], people[0, 1] = {"Segmentation": wide}, {"Segmentation": np.zeros_like(wide)}
            io.savemat(path, {"groundTruth": people})
            expected.append(score_partition(record.label_map, [drawn, np.zeros_like(drawn)]))
    assert inspect(records, "--truth", str(truth)) == 0
    for name, values in zip(expected[0]._fields, zip(*expected, strict=True), strict=True):
        columns = summary(records / "inspect")["val"]["statistics"][name]
        assert columns["count"] == 2
        assert columns["mean"] == pytest.approx(np.mean(values))
    assert "boundary_recall" not in summary(records / "inspect")["train"]["statistics"]
    assert f"no record has a truth in {truth}" in capsys.readouterr().out  # of train


def test_damage_costs_no_other_record(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One shard has a flipped byte in a record's data, one a field that is not a PNG, and one is truncated."""
    flipped, wrong, cut = find_shards(records)["train"]
    data = bytearray(flipped.read_bytes())
    data[len(data) // 4] ^= 4  # in the first of two records
    flipped.write_bytes(data)
    examples = [bytes(example) for example in scan_tfrecord(wrong)]
    examples[1] = examples[1].replace(b"\x89PNG", b"\x88PNG")
    write_tfrecord(wrong, examples)
    cut.write_bytes(cut.read_bytes()[:-100])

    assert inspect(records) == 1
    found = summary(records / "inspect")["train"]
    assert found["records"] == 7 - 3
    assert [line.split(":")[0] for line in found["damage"]] == [str(flipped), f"{wrong} record 1", str(cut)]
    assert "at offset 0 is damaged: its checksum" in found["damage"][0]
    assert "field 'image' must be a JPEG or PNG in RGB" in found["damage"][1]
    assert "the file ends within the record at offset" in found["damage"][2]
    assert summary(records / "inspect")["val"]["records"] == 2
    printed = capsys.readouterr().out
    assert "train: 4 records, damage at 3 places\n" in printed
    assert all(line in printed for line in found["damage"])
    assert len(list((records / "inspect").glob("train-*.png"))) >= 3


@given(st.data())
def test_any_damage_to_an_example_is_named(made: tuple[Path, Path], data: st.DataObject) -> None:
    """The checksum is correct, as after a fault in memory: the result is a record, or an error with its place."""
    (example, *_) = scan_tfrecord(made[1] / "elements-val.tfrecord-00000-of-00001")
    damaged = bytearray(example)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(damaged)), st.integers(0, len(damaged))))
    try:
        Record.from_example(bytes(damaged[:cut]), "here")
    except ValueError as error:
        assert str(error).startswith("here")  # noqa: PT017


def test_a_file_cut_between_two_records_is_named(records: Path) -> None:
    """The file itself looks complete, but the data set's metadata reveal the cut."""
    path = records / "elements-train.tfrecord-00001-of-00003"
    write_tfrecord(path, [bytes(example) for example in scan_tfrecord(path)][:1])
    assert inspect(records) == 1
    assert summary(records / "inspect")["train"]["damage"] == [
        f"{path}: 1 records found, 2 in dataset_info.json",
    ]


def test_records_of_different_settings_give_a_warning(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = records / "elements-train.tfrecord-00001-of-00003"
    for record in (odd := read(path)):
        record.settings["beta"] = 16.0
    write_tfrecord(path, [record.to_example("png") for record in odd])
    assert inspect(records) == 0
    printed = capsys.readouterr().out
    assert "warning: records were made with 2 different settings" in printed
    assert "5 with beta 64.0\n" in printed
    assert "2 with beta 16.0\n" in printed
    assert [each["records"] for each in summary(records / "inspect")["train"]["settings"]] == [5, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pictures", "-1"], "--pictures must be at least 0"),
        (["--workers", "0"], "--workers must be from 1"),
        (["--truth", "nowhere"], "--truth: nowhere is not a folder"),
    ],
)
def test_an_impossible_command_is_one_error(
    records: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["inspect", str(records), *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (records / "inspect").exists()


def test_a_folder_without_records_and_a_missing_shard_are_errors(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect(records / "nowhere") == 1
    assert "nowhere: no such folder or file of records" in capsys.readouterr().err
    (records / "empty").mkdir()
    assert inspect(records / "empty") == 1
    assert "there are no shards of records" in capsys.readouterr().err
    (records / "elements-train.tfrecord-00001-of-00003").unlink()
    assert inspect(records) == 1
    assert "split 'train' must have 3 shards" in capsys.readouterr().err


def test_a_truth_that_cannot_be_read_is_an_error(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (records / "truth").mkdir()
    (records / "truth" / "scene-0000007.png").write_text("no PNG")
    assert inspect(records, "--truth", str(records / "truth")) == 1
    assert "scene-0000007.png: expected BSDS500's" in capsys.readouterr().err


@given(st.lists(st.lists(st.integers(0, 10**6), min_size=1), min_size=1), st.floats(0.01, 1))
def test_distributions_add_up(parts: list[list[int]], share: float) -> None:
    whole = Distribution()
    for part in parts:
        one = Distribution()
        one.add(part)
        whole.merge(one)
    values = np.concatenate(parts)
    columns = whole.summary()
    assert columns["count"] == len(values)
    assert columns["mean"] == pytest.approx(values.mean())
    assert (columns["min"], columns["max"]) == (values.min(), values.max())
    rounded = [float(f"{value:.3g}") for value in values]
    enough = [value for value in rounded if sum(other <= value for other in rounded) >= share * len(rounded)]
    assert whole.quantile(share) == min(enough)


def test_memory_does_not_grow_with_the_numbers() -> None:
    distribution = Distribution()
    distribution.add(np.random.default_rng(0).lognormal(5, 1, 20_000))
    assert len(distribution.counts) < 4 * 900
