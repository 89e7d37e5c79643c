"""TFRecord files: complete or absent, read in any order, damage located."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elements_jax.data.tfrecord import TFRecordSource, find_shards, scan_tfrecord, shard_path, write_tfrecord


@pytest.fixture
def files(tmp_path):
    """Three files of 3, 0 and 4 records, and the records."""
    rng = np.random.default_rng(0)
    records = [[rng.bytes(size) for size in sizes] for sizes in ([5, 0, 70_000], [], [1, 2, 3, 4])]
    paths = [tmp_path / f"{number}.tfrecord" for number in range(3)]
    for path, contents in zip(paths, records, strict=True):
        write_tfrecord(path, contents)
    return paths, [record for contents in records for record in contents]


def _read_all(path):
    source = TFRecordSource([path])
    return [source[i] for i in range(len(source))]


@settings(max_examples=30, deadline=None)
@given(records=st.lists(st.binary(max_size=50), max_size=8))
def test_what_was_written_is_read(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("records") / "file"
    write_tfrecord(path, iter(records))
    assert _read_all(path) == records


def test_several_files_are_one_sequence_in_any_order(files):
    paths, records = files
    source = TFRecordSource(paths)
    assert len(source) == 7
    for index in (6, 0, 3, 2, 5, 1, 4, 3):
        assert source[index] == records[index]
    assert source[np.int64(2)] == records[2]
    assert source.where(2) == f"{paths[0]} record 2"
    assert source.where(3) == f"{paths[2]} record 0"
    for index in (-1, 7):
        with pytest.raises(IndexError, match=f"record {index} of 7"):
            source[index]


def test_a_source_is_pickled_and_shared_by_threads(files):
    paths, records = files
    source = pickle.loads(pickle.dumps(TFRecordSource(paths)))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(source.__getitem__, list(range(7)) * 20)) == records * 20


def test_tensorflow_reads_and_writes_the_same_files(files, tmp_path):
    tf = pytest.importorskip("tensorflow")
    paths, records = files
    assert [record.numpy() for record in tf.data.TFRecordDataset([str(path) for path in paths])] == records
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records:
            writer.write(record)
    write_tfrecord(tmp_path / "ours", records)
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "ours").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_tfrecord(path, [b"old"])

    def examples():
        yield b"new"
        raise RuntimeError("the disk burns")

    with pytest.raises(RuntimeError, match="the disk burns"):
        write_tfrecord(path, examples())
    assert TFRecordSource([path])[0] == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_every_truncation_is_located(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    write_tfrecord(whole, [b"one", b"three"])
    data = whole.read_bytes()
    boundary = 16 + len(b"one")
    for length in set(range(1, len(data))) - {boundary}:
        cut.write_bytes(data[:length])
        start = 0 if length < boundary else boundary
        with pytest.raises(ValueError, match=f"{cut}: the file ends .*within the record at offset {start}$"):
            TFRecordSource([cut])


def test_every_flipped_bit_is_located(tmp_path):
    path = tmp_path / "file"
    write_tfrecord(path, [b"one", b"three"])
    data = path.read_bytes()
    boundary = 16 + len(b"one")
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        start = 0 if bit // 8 < boundary else boundary
        with pytest.raises(ValueError, match=f"{path}: .* offset {start} "):
            _read_all(path)


def test_scan_skips_damaged_data_and_stops_at_a_damaged_length(tmp_path):
    path = tmp_path / "file"
    records = [b"one", b"three", b"seven"]
    write_tfrecord(path, records)
    whole = path.read_bytes()
    assert list(scan_tfrecord(path)) == records
    starts = [0, 19, 40]
    for offset in range(len(whole)):
        damaged = bytearray(whole)
        damaged[offset] ^= 1
        path.write_bytes(damaged)
        broken = max(number for number, start in enumerate(starts) if start <= offset)
        found = list(scan_tfrecord(path))
        in_length = offset < starts[broken] + 12
        assert len(found) == (broken + 1 if in_length else 3)
        for number, data in enumerate(found):
            if number == broken:
                assert isinstance(data, ValueError)
                assert f"{path}: " in str(data)
                assert f"offset {starts[broken]} " in str(data)
            else:
                assert data == records[number]


def test_scan_reads_everything_before_a_cut(tmp_path):
    path = tmp_path / "file"
    write_tfrecord(path, [b"one", b"three"])
    whole = path.read_bytes()
    for length in range(20, len(whole)):
        path.write_bytes(whole[:length])
        first, error = scan_tfrecord(path)
        assert first == b"one"
        assert str(error) == f"{path}: the file ends within the record at offset 19"


def test_a_file_that_shrinks_after_indexing_is_named(tmp_path):
    path = tmp_path / "file"
    write_tfrecord(path, [b"one", b"three"])
    source = TFRecordSource([path])
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=f"{path}: the file ends within the record at offset 19"):
        source[1]


def test_shards_are_found_by_split(tmp_path):
    shards = {
        split: [shard_path(tmp_path, split, i, n) for i in range(n)] for split, n in {"train": 3, "val": 1}.items()
    }
    assert shards["train"][1].name == "elements-train.tfrecord-00001-of-00003"
    for path in (*shards["train"], *shards["val"], tmp_path / "dataset_info.json"):
        path.touch()
    assert find_shards(tmp_path) == shards
    shards["train"][1].unlink()
    with pytest.raises(
        ValueError, match=r"'train' must have 3 shards; .* \['elements-train.tfrecord-00001-of-00003'\]"
    ):
        find_shards(tmp_path)


def test_shards_of_two_runs_are_not_mixed(tmp_path):
    for shard, shards in ((0, 1), (0, 2), (1, 2)):
        shard_path(tmp_path, "train", shard, shards).touch()
    with pytest.raises(ValueError, match=r"left over: \['elements-train.tfrecord-00000-of-00001'\]"):
        find_shards(tmp_path)
