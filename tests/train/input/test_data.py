"""Batches of records: complete, reproducible on any number of hosts and workers, and resumed exactly."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from elements_jax.config import ElementsConfig
from elements_jax.data.record import DROPPED, Record
from elements_jax.data.tfrecord import TFRecordSource, shard_path, write_tfrecord
from train.input.data import dataset
from train.input.memory import InMemory, available_memory
from train.input.stored import Stored, captions, count, require_fit, require_masks, splits

COUNT, SIDE = 23, 8
"""Records in the training split, and their images' side."""


def _record(number: int) -> Record:
    """Make a record identified by its image's first pixel, with `number % 4` masks of one row each."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    image[0, 0] = number
    label_map = np.full((SIDE, SIDE), number % 4, np.uint16)
    label_map[1, 2] = DROPPED
    masks = np.zeros((number % 4, SIDE, SIDE), bool)
    for row, mask in enumerate(masks):
        mask[row] = True
    return Record(image, label_map, f"picture {number}", masks, f"photo {number}", {"num_elements": 4})


def _write(folder, split, records, shards):
    for shard in range(shards):
        path = shard_path(folder, split, shard, shards)
        write_tfrecord(path, (record.to_example("png") for record in records[shard::shards]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    _write(folder, "train", [_record(number) for number in range(COUNT)], shards=3)
    _write(folder, "val", [_record(100), _record(101)], shards=1)
    return folder


def _tokenize(caption: str) -> np.ndarray:
    return np.array([int(caption.split()[1]), 7])


@contextlib.contextmanager
def _batches(folder, split="train", **options):
    """Open `dataset` with small defaults, and close it at the end."""
    defaults = {"batch_size": 4, "seed": 5, "shuffle": True, "tokenize": _tokenize}
    iterator = dataset(folder, split, **defaults | options)
    try:
        yield iterator
    finally:
        iterator.close()


def _numbers(batches):
    return np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches]).tolist()


def _assert_equal(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], name)


def test_a_batch_holds_the_records(folder):
    with _batches(folder, shuffle=False) as iterator:
        batch = next(iterator)
    shapes = {name: (array.dtype.name, array.shape) for name, array in batch.items()}
    assert shapes == {
        "image": ("uint8", (4, SIDE, SIDE, 3)),
        "label_map": ("uint8", (4, SIDE, SIDE)),
        "object_mask": ("bool", (4, SIDE, SIDE)),
        "own_mask": ("bool", (4,)),
        "tokens": ("int32", (4, 2)),
        "index": ("int32", (4,)),
    }
    for place, number in enumerate((0, 3, 6, 9)):  # the first shard's records
        record = _record(number)
        np.testing.assert_array_equal(batch["image"][place], record.image)
        expected = record.label_map.astype(np.int32)
        expected[1, 2] = 4
        np.testing.assert_array_equal(batch["label_map"][place], expected)
        assert batch["tokens"][place].tolist() == [number, 7]
    assert batch["index"].tolist() == [0, 1, 2, 3]


def test_captions_need_no_tokenizer(folder):
    with _batches(folder, tokenize=None) as iterator:
        assert "tokens" not in next(iterator)
    assert list(captions(folder, "val")) == ["picture 100", "picture 101"]
    assert sorted(captions(folder, "train")) == sorted(f"picture {number}" for number in range(COUNT))
    assert count(folder, "train") == COUNT


def test_each_epoch_holds_every_record_once_in_a_new_order(folder):
    with _batches(folder, batch_size=1) as iterator:
        stream = _numbers(next(iterator) for _ in range(3 * COUNT))
    epochs = [stream[start : start + COUNT] for start in range(0, 3 * COUNT, COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    with _batches(folder, batch_size=1, seed=6) as iterator:
        assert _numbers(next(iterator) for _ in range(COUNT)) != epochs[0]


def test_a_split_smaller_than_a_batch_repeats_within_it(folder):
    with _batches(folder, "val", shuffle=False, batch_size=5) as iterator:
        assert _numbers([next(iterator)]) == [100, 101, 100, 101, 100]


def test_masks_are_drawn_one_a_time_and_evenly(folder):
    drawn = {number: [] for number in range(4)}
    with _batches(folder, batch_size=COUNT) as iterator:
        for _ in range(40):
            batch = next(iterator)
            masks = batch["label_map"][:, 0, 0]  # each record's number of masks
            np.testing.assert_array_equal(batch["own_mask"], masks > 0)
            for number, mask in zip(masks, batch["object_mask"], strict=True):
                [row] = np.flatnonzero(mask.any(axis=1))
                drawn[int(number)].append(row)
    # Records without masks draw equally from records with one, two and three: 1/3 (1 + 1/2 + 1/3), 1/3 (1/2 + 1/3),
    # 1/9.
    share = np.bincount(drawn[0], minlength=3) / len(drawn[0])
    np.testing.assert_allclose(share, [11 / 18, 5 / 18, 2 / 18], atol=5 * 0.5 / np.sqrt(len(drawn[0])))
    for masks in (1, 2, 3):
        # About 220 draws: each mask's share is within 5 standard deviations of an even one.
        share = np.bincount(drawn[masks], minlength=masks) / len(drawn[masks])
        np.testing.assert_allclose(share, 1 / masks, atol=5 * 0.5 / np.sqrt(len(drawn[masks])))


def test_without_masks_anywhere_the_drawn_ones_are_empty(tmp_path):
    _write(tmp_path, "train", [_record(0), _record(4)], shards=1)
    with _batches(tmp_path) as iterator:
        batch = next(iterator)
    assert not batch["object_mask"].any()
    assert not batch["own_mask"].any()
    with _batches(tmp_path, masks=False) as iterator:
        assert next(iterator).keys() == {"image", "label_map", "tokens", "index"}


@pytest.mark.parametrize("parts", [[range(4), range(4, 8)], [[0, 1, 6, 7], [2, 3], [4, 5]]])
def test_hosts_share_each_batch_row_by_row(folder, parts):
    with _batches(folder, batch_size=8) as iterator:
        whole = [next(iterator) for _ in range(6)]
    for rows in map(np.array, parts):
        with _batches(folder, batch_size=8, rows=rows) as iterator:
            for batch in whole:
                _assert_equal(next(iterator), {name: array[rows] for name, array in batch.items()})


@pytest.mark.parametrize(
    ("workers", "batch_size"), [(0, 4), (0, 6), pytest.param(2, 4, marks=pytest.mark.slow), (2, 6)]
)
def test_the_stream_resumes_at_any_place(folder, workers, batch_size):
    """It resumes also in batches of another size, and with another number of workers."""
    start = 28  # in the second epoch
    with _batches(folder, batch_size=1) as iterator:
        stream = [next(iterator) for _ in range(start + 3 * batch_size)]
    with _batches(folder, batch_size=batch_size, workers=workers, start=start) as iterator:
        for first in range(start, len(stream), batch_size):
            examples = stream[first : first + batch_size]
            _assert_equal(next(iterator), jax.tree.map(lambda *arrays: np.concatenate(arrays), *examples))


def test_a_place_far_away_is_found_at_once(folder, monkeypatch):
    read = []
    monkeypatch.setattr(TFRecordSource, "__getitem__", _counting(TFRecordSource.__getitem__, read))
    start = 10**9
    with _batches(folder, start=start) as iterator:
        assert next(iterator)["index"].tolist() == list(range(start, start + 4))
    assert len(read) < 100  # for this batch and a few ahead


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize(("batch_size", "start", "rows"), [(4, 0, None), (6, 28, [1, 2, 5])])
def test_in_memory_the_batches_are_the_same(folder, masks, batch_size, start, rows, monkeypatch):
    options = {"batch_size": batch_size, "start": start, "rows": rows and np.array(rows), "masks": masks}
    with _batches(folder, **options) as stored, _batches(folder, in_memory=True, **options) as kept:
        monkeypatch.setattr(TFRecordSource, "__getitem__", None)  # nothing is read from now on
        found = [next(kept) for _ in range(10)]
        monkeypatch.undo()
        for batch in found:
            _assert_equal(batch, next(stored))
            assert {name: array.dtype for name, array in batch.items() if name == "label_map"} == {"label_map": "uint8"}


def test_a_set_that_memory_does_not_hold_is_refused(folder, monkeypatch):
    # Image 192, label map 64 and tokens 8 bytes of 23 records, and 5 * 6 + 1 + 2 masks of 8 bytes.
    needed = 23 * (3 * SIDE**2 + SIDE**2 + 8) + 33 * 8
    stored = Stored(folder, "train", _tokenize, masks=True, cached=False)
    assert len(InMemory(stored, lambda: needed)) == COUNT
    monkeypatch.setattr("train.input.stored.Stored.read", _first_alone(Stored.read))
    message = r"in_memory: 23 records take 6.34e-06 GB decoded, and 6.33e-06 GB may be taken; .*--train.no-in-memory"
    with pytest.raises(ValueError, match=message):
        InMemory(stored, lambda: needed - 8)
    assert 1e8 < available_memory() < 1e14


def _first_alone(method):
    def read(self, number, choose_masks):
        assert number == 0  # nothing else is decoded
        return method(self, number, choose_masks)

    return read


def test_labels_beyond_a_byte_take_two(tmp_path):
    record = _record(1)
    record.label_map[0, 0] = 255
    _write(tmp_path, "train", [dataclasses.replace(record, settings={"num_elements": 256})], shards=1)
    for in_memory in (False, True):
        with _batches(tmp_path, in_memory=in_memory) as iterator:
            label_map = next(iterator)["label_map"]
        assert label_map.dtype == np.uint16
        assert label_map[0, 0, 0] == 255
        assert label_map[0, 1, 2] == 256


def _counting(method, calls):
    def counted(self, index):
        calls.append(index)
        return method(self, index)

    return counted


def test_workers_change_nothing(folder):
    with _batches(folder) as alone, _batches(folder, workers=2) as shared:
        for _ in range(8):
            _assert_equal(next(shared), next(alone))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_record_is_named(tmp_path, workers):
    _write(tmp_path, "train", [_record(0), _record(1)], shards=1)
    path = shard_path(tmp_path, "train", 0, 1)
    damaged = bytearray(path.read_bytes())
    damaged[-10] ^= 1
    path.write_bytes(damaged)
    with (
        _batches(tmp_path, workers=workers, masks=False) as iterator,
        pytest.raises(ValueError, match=f"{path}: the record at offset .* is damaged"),
    ):
        next(iterator)


def test_a_record_of_another_size_is_named(tmp_path):
    other = dataclasses.replace(_record(1), settings={"num_elements": 9})
    _write(tmp_path, "train", [_record(0), other], shards=1)
    message = r"00000-of-00001 record 1 \(photo 1\): expected images of 8 x 8 px in 4 elements .*, got .* in 9 elements"
    with _batches(tmp_path) as iterator, pytest.raises(ValueError, match=message):
        next(iterator)


def test_what_is_missing_is_named(folder, tmp_path):
    with pytest.raises(
        ValueError, match=rf"{folder}: no records of split 'test'; .* elements-test.tfrecord-\?\?\?\?\?-of"
    ):
        dataset(folder, "test", batch_size=4, seed=0, shuffle=True, tokenize=None)
    with pytest.raises(ValueError, match=f"{tmp_path}: no records of split 'train'"):
        captions(tmp_path, "train")
    write_tfrecord(shard_path(tmp_path, "val", 0, 1), [])
    with pytest.raises(ValueError, match=f"{tmp_path}: split 'val' holds no record"):
        dataset(tmp_path, "val", batch_size=4, seed=0, shuffle=True, tokenize=None)


def test_records_must_fit_the_model(folder):
    require_fit(folder, "train", ElementsConfig(image_size=SIDE, grid=2))
    message = (
        f"{folder}/.* record 0: the model takes images of 8 x 8 px in 9 elements, record .photo 0. has images of 8 x 8 "
        "px in 4"
    )
    with pytest.raises(ValueError, match=message):
        require_fit(folder, "train", ElementsConfig(image_size=SIDE, grid=3))


def test_an_odd_record_is_named_before_training(folder, tmp_path):
    other = dataclasses.replace(_record(31), settings={"num_elements": 9})
    _write(tmp_path, "train", [_record(30), other, _record(32)], shards=1)
    with pytest.raises(ValueError, match=rf"{tmp_path}/.* record 1: the model takes .* 4 elements, .*'photo 31' has"):
        require_fit([folder, tmp_path], "train", ElementsConfig(image_size=SIDE, grid=2))


def test_several_folders_are_one_set(folder, tmp_path):
    _write(tmp_path, "train", [_record(number) for number in (40, 44)], shards=2)  # without masks
    both = [tmp_path, folder]
    assert count(both, "train") == COUNT + 2
    assert splits(both) == {"train", "val"}
    assert list(captions(both, "train"))[:3] == ["picture 40", "picture 44", "picture 0"]
    with _batches(both, batch_size=1) as iterator:
        assert sorted(_numbers(next(iterator) for _ in range(COUNT + 2))) == [*range(COUNT), 40, 44]
    with _batches(both, "val", batch_size=2, shuffle=False) as iterator:
        assert _numbers([next(iterator)]) == [100, 101]


def test_a_set_without_masks_is_an_error_before_training(folder, tmp_path):
    _write(tmp_path, "train", [_record(0), _record(4)], shards=1)
    require_masks([tmp_path, folder], "train", 0.5)
    with pytest.raises(ValueError, match=rf"{tmp_path}: .*element_dropout = 0.5.*--masks auto.*--train.element-drop"):
        require_masks(tmp_path, "train", 0.5)
