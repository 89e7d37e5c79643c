"""WebDataset records hold the same data as TFRecords, and a job that writes them resumes like any other."""

import gc
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from elements_jax.data.record import Example, Record
from elements_jax.data.tfrecord import TFRecordSource, find_shards
from partition.__main__ import main
from tests.helpers.jobs import SMALL, contents

SHARDS = 4
SETTINGS = [*SMALL, "--segmenter", "slic", "--shard-size", "3", "--held-out", "0.5"]


def divide(photos: Path, out: Path, *more: str) -> int:
    return main([str(photos), str(out), *SETTINGS, "--masks", str(photos / "masks"), *more])


@pytest.fixture
def tars(photos: Path, tmp_path: Path) -> Path:
    out = tmp_path / "tars"
    assert divide(photos, out, "--format", "webdataset") == 0
    return out


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves files open
@pytest.mark.parametrize("image_format", ["jpeg", "png"])
def test_the_package_reads_what_tfrecords_hold(photos: Path, tmp_path: Path, image_format: str) -> None:
    webdataset = pytest.importorskip("webdataset")
    records, tars = tmp_path / "records", tmp_path / "tars"
    for out, name in ((records, "tfrecord"), (tars, "webdataset")):
        assert divide(photos, out, "--image-format", image_format, "--format", name) == 0
    assert contents(tars / "manifest") == contents(records / "manifest")
    keys = set()
    for split, shards in find_shards(records).items():
        source = TFRecordSource(shards)
        files = sorted(map(str, tars.glob(f"elements-{split}-*.tar")))
        assert len(files) == len(shards) == SHARDS
        samples = list(webdataset.WebDataset(files, shardshuffle=False, empty_check=False))
        assert len(samples) == len(source) > 0
        for number, sample in enumerate(samples):
            stored = Example.FromString(source[number]).features.feature
            stored = {name: list(feature.bytes_list.value) for name, feature in stored.items()}
            keys.add(sample["__key__"])
            masks = [
                sample[name]
                for name in sorted(sample, key=lambda name: (len(name), name))
                if name.startswith("object_mask.")
            ]
            assert sample[{"jpeg": "jpg", "png": "png"}[image_format]] == stored["image"][0]
            assert sample["label_map.png"] == stored["label_map"][0]
            assert sample["txt"] == stored["caption"][0]
            assert masks == stored["object_masks"]
            settings = json.loads(stored["settings"][0])
            assert json.loads(sample["json"]) == {"source_id": stored["source_id"][0].decode(), "settings": settings}
            assert len(sample) == 4 + len(masks) + sum(name.startswith("__") for name in sample)
            # As the documentation says, Pillow reads label maps.
            record = Record.from_example(source[number], "here")
            label_map = np.asarray(Image.open(io.BytesIO(sample["label_map.png"])))
            np.testing.assert_array_equal(label_map, record.label_map)
    assert len(keys) == 7
    gc.collect()


def test_each_tar_has_its_checksum(tars: Path) -> None:
    for tar in tars.glob("*.tar"):
        expected = f"{hashlib.md5(tar.read_bytes()).hexdigest()}  {tar.name}\n"
        assert tar.with_name(f"{tar.name}.md5").read_text() == expected
    assert len(list(tars.glob("*.md5"))) == 2 * SHARDS


def test_a_stopped_job_goes_on(photos: Path, tars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(tars)
    (tars / "manifest" / "train-00001-of-00004.jsonl").unlink()
    (tars / "elements-val-00002-of-00004.tar").unlink()
    (tars / ".elements-train-00001-of-00004.tar.1.unfinished").write_bytes(b"half a rec")
    capsys.readouterr()
    assert divide(photos, tars, "--format", "webdataset") == 0
    assert "2 of 4 shards are already done" in capsys.readouterr().out
    assert contents(tars) == before


def test_one_folder_holds_one_format(photos: Path, tars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert divide(photos, tars) == 1
    assert "made with other settings: format (webdataset, now tfrecord)" in capsys.readouterr().err
    assert divide(photos, tars, "--overwrite") == 0
    assert not list(tars.glob("*.tar*"))
    assert (tars / "dataset_info.json").is_file()
    assert divide(photos, tars, "--format", "webdataset", "--overwrite") == 0
    assert not list(tars.glob("*.tfrecord-*"))
    assert not (tars / "dataset_info.json").exists()


def test_who_reads_tfrecords_says_so(tars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"elements-train-00000-of-00004\.tar: records as WebDataset"):
        find_shards(tars)
    assert main(["inspect", str(tars)]) == 1
    assert "records as WebDataset" in capsys.readouterr().err


def test_they_can_be_partitioned_again(tars: Path, tmp_path: Path) -> None:
    assert main([str(tars), str(tmp_path / "out"), *SMALL, "--segmenter", "grid"]) == 0
    source = TFRecordSource(find_shards(tmp_path / "out")["train"])
    records = [Record.from_example(source[number], "here") for number in range(len(source))]
    assert sorted(bool(record.caption) for record in records) == [False, *6 * [True]]
