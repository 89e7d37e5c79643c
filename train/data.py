"""Batches of records for training: read, shuffled over the whole split, decoded and stacked by Grain.

The examples of a run form one endless stream: the split, shuffled anew in every epoch. A batch is a run of this stream,
whatever the number of hosts and workers, so the place in it is a number, the examples before it, and that number is all
that must be saved to resume.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grain
import numpy as np
from absl import flags
from jaxtyping import Int

from elements_jax import record_index
from elements_jax.config import ElementsConfig
from elements_jax.records import TFRecordSource, find_shards, shard_path
from elements_jax.schema import CACHED, DROPPED, Record

Tokenize = Callable[[str], np.ndarray]

_BATCHES_AHEAD = 4  # read and decoded beforehand, by as many threads, in each worker


def dataset(
    records_dir: Path,
    split: str,
    *,
    batch_size: int,
    seed: int,
    shuffle: bool,
    tokenize: Tokenize | None,
    start: int = 0,
    rows: Int[np.ndarray, " b"] | None = None,
    cached: bool = False,
    workers: int = 0,
) -> grain.DatasetIterator[dict[str, np.ndarray]]:
    """Endless batches of a split, this host's rows of each.

    A batch is a dict of arrays, with b = len(rows) examples each:

        image        uint8 (b, H, W, 3)
        label_map    int32 (b, H, W)     each pixel's element; num_elements where it belongs to none
        object_mask  bool  (b, H, W)     one of the record's object masks, drawn at random; empty if it has none
        tokens       int32 (b, L)        of the caption, where `tokenize` is given
        index        int32 (b,)          the example's place in the stream, unique in a run
        latent_mean, latent_logvar, text   float16 (b, numbers)   where `cached`

    Args:
      records_dir: the folder that `python -m partition` wrote.
      split: "train" or "val".
      batch_size: examples in a batch, over all hosts.
      seed: of the order and of the draws of object masks.
      shuffle: whether examples come in random order, else in that of the files.
      tokenize: from a caption to its tokens (L,).
      start: examples of the stream that lie before the first batch; to begin late costs nothing.
      rows: places within the batch of the examples that this host reads; by default all.
      cached: whether to read what `elements cache` wrote into the records.
      workers: processes that read and decode; 0 does so in threads of this one.

    Returns:
      An iterator; `close` it.

    Raises:
      ValueError: where the split has no shards, or a shard is missing or damaged; and, on reading it, where a record is
        not whole, does not fit the first in size and number of elements, or lacks what is cached.
    """
    source = _source(records_dir, split)
    order = grain.MapDataset.range(len(source))
    if shuffle:
        order = order.shuffle(seed=seed)
    own = np.arange(batch_size) if rows is None else rows
    place = functools.partial(_place, start=start, batch_size=batch_size, rows=own)
    first, order = _record(source, 0), order.repeat()
    read = functools.partial(
        _example, order=order, source=source, first=first, seed=seed, tokenize=tokenize, cached=cached
    )
    examples = grain.MapDataset.range(sys.maxsize).map(place).map(read)
    threads = grain.ReadOptions(num_threads=_BATCHES_AHEAD, prefetch_buffer_size=_BATCHES_AHEAD)
    # Nothing remains of an endless stream; without `drop_remainder` Grain rounds its length up, out of range.
    batches = examples.batch(len(own), drop_remainder=True).to_iter_dataset(threads)
    if workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain hands absl's flags to its workers, and absl.app does not run here
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(batches)


def count(records_dir: Path, split: str) -> int:
    """The number of records of a split. Raises ValueError as `dataset` does."""
    return len(_source(records_dir, split))


def captions(records_dir: Path, split: str) -> Iterator[str]:
    """The captions of a split, in the order of the files. Raises ValueError as `dataset` does."""
    source = _source(records_dir, split)
    return (_record(source, record).caption for record in range(len(source)))


def require_fit(records_dir: Path, split: str, elements: ElementsConfig) -> None:
    """Raises ValueError where the records are of another image size or number of elements than the model."""
    first = _record(_source(records_dir, split), 0)
    try:
        record_index.require_fit(first, elements)
    except ValueError as error:
        raise ValueError(f"{records_dir}: {error}") from error


def _source(records_dir: Path, split: str) -> TFRecordSource:
    shards = find_shards(records_dir).get(split)
    if not shards:
        pattern = shard_path(records_dir, split, 0, 1).name.replace("00000-of-00001", "?????-of-?????")
        raise ValueError(f"{records_dir}: no records of split {split!r}; expected files {pattern}")
    source = TFRecordSource(shards)
    if not len(source):
        raise ValueError(f"{records_dir}: split {split!r} holds no record")
    return source


def _record(source: TFRecordSource, number: int, choose_masks: Callable[[int], list[int]] = lambda _: []) -> Record:
    return Record.from_example(source[number], source.where(number), choose_masks)


def _place(number: int, *, start: int, batch_size: int, rows: Int[np.ndarray, " b"]) -> int:
    """Where in the stream this host's example `number` lies."""
    batch, row = divmod(number, len(rows))
    return start + batch * batch_size + int(rows[row])


def _example(
    index: int,
    *,
    order: grain.MapDataset[int],
    source: TFRecordSource,
    first: Record,
    seed: int,
    tokenize: Tokenize | None,
    cached: bool,
) -> dict[str, np.ndarray]:
    """The example at place `index` of the stream, in which the records have this `order`."""

    def draw(masks: int) -> list[int]:  # by the place alone: the same on any number of hosts and workers
        return [int(np.random.default_rng((seed, index)).integers(masks))] if masks else []

    record = _record(source, number := order[index], draw)
    have = (*record.image.shape[:2], count := record.settings["num_elements"])
    want = (*first.image.shape[:2], first.settings["num_elements"])
    if have != want:
        place = f"{source.where(number)} ({record.source_id})"
        raise ValueError(f"{place}: expected {_described(*want)} as in the first record, got {_described(*have)}")
    example: dict[str, np.ndarray] = {
        "image": record.image,
        "label_map": np.where(record.label_map == DROPPED, count, record.label_map).astype(np.int32),
        "object_mask": np.asarray(record.object_masks.any(axis=0)),
        "index": np.array(index, np.int32),
    }
    if tokenize is not None:
        example["tokens"] = np.asarray(tokenize(record.caption), np.int32)
    if cached:
        if missing := [name for name in CACHED if name not in record.cached]:
            raise ValueError(f"{source.where(number)}: no {', '.join(missing)}, which `elements cache` writes")
        example |= record.cached
    return example


def _described(height: int, width: int, num_elements: int) -> str:
    return f"images of {height} x {width} px in {num_elements} elements"
