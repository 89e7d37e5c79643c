"""Parquet files with images: both layouts, wrong rows, and a truncated file."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from partition.__main__ import main
from partition.sources.plan import plan_shards
from partition.sources.sample import Failure, Sample
from tests.helpers.jobs import SMALL, manifest, read

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
    return path


def samples(path: Path) -> list[Sample | Failure]:
    (shard,) = plan_shards(str(path), 1000)
    return list(shard.samples())


def test_the_layout_of_hugging_face(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": png(i), "path": f"{i}.png"}, "text": f" about {i} ", "label": i} for i in range(40)]
    found = samples(write(tmp_path / "train-00000-of-00001.parquet", rows))
    assert [sample.source_id for sample in found] == [f"train-00000-of-00001/{i:07d}" for i in range(40)]
    assert [sample.encoded for sample in found] == [png(i) for i in range(40)]
    assert found[3].caption == "about 3"
    assert found[3].metadata["label"] == 3


def test_the_layout_of_img2dataset_and_rows_without_an_image(tmp_path: Path) -> None:
    rows = [
        {
            "jpg": png(0),
            "key": "000000000",
            "caption": "a",
            "url": "http://a/0",
            "similarity": 0.3,
            "error_message": None,
        },
        {
            "jpg": None,
            "key": "000000001",
            "caption": "b",
            "url": "http://a/1",
            "similarity": 0.2,
            "error_message": "404",
        },
        {
            "jpg": png(2),
            "key": "000000002",
            "caption": None,
            "url": "http://a/2",
            "similarity": 0.4,
            "error_message": None,
        },
        {
            "jpg": png(3),
            "key": "000000002",
            "caption": "d",
            "url": "http://a/2",
            "similarity": 0.4,
            "error_message": None,
        },
    ]
    first, second, third, fourth = samples(write(tmp_path / "00000.parquet", rows))
    assert first == Sample("00000/000000000", png(0), "a", first.metadata)
    assert first.metadata["url"] == "http://a/0"
    assert first.metadata["similarity"] == 0.3
    assert second == Failure("00000/000000001", "404")
    assert third.caption == ""
    assert fourth == Failure("00000/000000002", "its key occurred before")


def test_a_file_without_images_or_truncated_is_reported(tmp_path: Path) -> None:
    (only,) = samples(write(tmp_path / "urls.parquet", [{"url": "http://a/0", "caption": "a"}]))
    assert "no column of images" in only.reason
    assert "img2dataset" in only.reason
    path = write(tmp_path / "cut.parquet", [{"image": png(i)} for i in range(9)])
    path.write_bytes(path.read_bytes()[:-100])
    (only,) = samples(path)
    assert "cut short or damaged after 0 rows" in only.reason


def test_a_folder_of_parquet_files_becomes_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(2):
        write(folder / f"{number}.parquet", [{"image": png(10 * number + i), "aesthetic": 5.0 + i} for i in range(3)])
    filters = ["--segmenter", "grid", "--filters.aesthetic", "5.5"]
    assert main([str(folder), str(tmp_path / "out"), *SMALL, *filters]) == 0
    assert [record.source_id for record in read(tmp_path / "out")] == [
        *("0/0000001", "0/0000002"),
        *("1/0000001", "1/0000002"),
    ]
    assert manifest(tmp_path / "out")["0/0000000"]["status"] == "filtered"
    # Next to images they are img2dataset's metadata.
    (folder / "photo.png").write_bytes(png(0))
    assert main([str(folder), str(tmp_path / "photos"), *SMALL, "--segmenter", "grid"]) == 0
    assert [record.source_id for record in read(tmp_path / "photos")] == ["photo.png"]
    assert "ignored files, by suffix: 2 .parquet" in capsys.readouterr().out


def label_map(*rows: int) -> bytes:
    """Return a PNG of 64 px whose top has these values, a row of pixels each eight times."""
    values = np.zeros((64, 64), np.uint8)
    values[: 8 * len(rows)] = np.repeat(rows, 8)[:, None]
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("wrapped", [False, True])
def test_masks_are_columns(tmp_path: Path, wrapped: bool) -> None:
    """One label map or a list of them, as bytes or as Hugging Face's structs; a damaged one is counted."""

    def cell(content: bytes | None) -> Any:
        return {"bytes": content, "path": None} if wrapped else content

    rows = [
        {"image": cell(png(0)), "mask": cell(label_map(1, 1, 2)), "masks": [cell(label_map(0, 0, 0, 0, 255))]},
        {"image": cell(png(1)), "mask": cell(None), "masks": []},
        {"image": cell(png(2)), "mask": cell(b"no PNG"), "masks": None},
    ]
    source = write(tmp_path / "photos.parquet", rows)
    records, without = tmp_path / "records", tmp_path / "without"
    assert main([str(source), str(records), *SMALL, "--segmenter", "grid", "--masks", "columns"]) == 0
    counts = [(line["object_masks"], line.get("masks_left_out")) for line in manifest(records).values()]
    assert counts == [(3, None), (0, None), (0, {"not readable": 1})]
    rows = [{"image": png(0), "mask": "https://example.com/mask.png"}]
    [sample] = samples(write(tmp_path / "names.parquet", rows))
    assert (sample.masks, sample.metadata["mask"]) == ((), "https://example.com/mask.png")
    [first, second, _] = read(records)
    heights = [np.flatnonzero(mask.any(1)).tolist() for mask in first.object_masks]
    assert heights == [list(range(16)), list(range(16, 24)), list(range(32, 40))]
    assert second.object_masks.shape[0] == 0
    assert main([str(source), str(without), *SMALL, "--segmenter", "grid"]) == 0
    assert [line["object_masks"] for line in manifest(without).values()] == [0, 0, 0]
