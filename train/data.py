"""Batches of records for training: read, shuffled over the whole split, decoded and stacked by Grain.

The examples of a run form one endless stream: the split, shuffled anew in every epoch. A batch is a run of this stream,
whatever the number of hosts and workers, and the place in it is all that must be saved to resume.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import grain
import jax
import numpy as np
from absl import flags

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
    cached: bool = False,
    workers: int = 0,
) -> grain.DatasetIterator[dict[str, np.ndarray]]:
    """Endless batches of a split, this host's part of each.

    A batch is a dict of arrays, b = batch_size / hosts examples each:

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
      cached: whether to read what `elements cache` wrote into the records.
      workers: processes that read and decode; 0 does so in threads of this one.

    Returns:
      An iterator. `get_state` and `set_state` save its place and return to it, with as many workers. `close` it.

    Raises:
      ValueError: where the split has no shards, a shard is missing or damaged, or `batch_size` does not divide; and, on
        reading it, where a record is not whole, does not fit the first in size and number of elements, or lacks
        what is cached.
    """
    if batch_size % jax.process_count():
        raise ValueError(f"batch_size = {batch_size} must be a multiple of the number of hosts, {jax.process_count()}")
    source = _source(records_dir, split)
    first = _record(source, 0)
    read = functools.partial(_example, source=source, first=first, seed=seed, tokenize=tokenize, cached=cached)
    order = grain.MapDataset.range(len(source))
    if shuffle:
        order = order.shuffle(seed=seed)
    examples = order.repeat().map_with_index(read)
    own = examples[jax.process_index() :: jax.process_count()]
    threads = grain.ReadOptions(num_threads=_BATCHES_AHEAD, prefetch_buffer_size=_BATCHES_AHEAD)
    # Nothing remains of an endless stream; without `drop_remainder` Grain rounds its length up, out of range.
    batches = own.batch(batch_size // jax.process_count(), drop_remainder=True).to_iter_dataset(threads)
    if workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain hands absl's flags to its workers, and absl.app does not run here
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(batches)


def captions(records_dir: Path, split: str) -> Iterator[str]:
    """The captions of a split, in the order of the files. Raises ValueError as `dataset` does."""
    source = _source(records_dir, split)
    return (_record(source, record).caption for record in range(len(source)))


def require_fit(records_dir: Path, split: str, elements: ElementsConfig) -> None:
    """Raises ValueError where the records are of another image size or number of elements than the model."""
    first = _record(_source(records_dir, split), 0)
    have = (*first.image.shape[:2], first.settings["num_elements"])
    want = (elements.image_size, elements.image_size, elements.num_elements)
    if have != want:
        raise ValueError(f"{records_dir}: the model takes {_described(*want)}, the records have {_described(*have)}")


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


def _example(
    index: int,
    number: int,
    *,
    source: TFRecordSource,
    first: Record,
    seed: int,
    tokenize: Tokenize | None,
    cached: bool,
) -> dict[str, np.ndarray]:
    """The example at place `index` of the stream, which is record `number`."""

    def draw(masks: int) -> list[int]:  # by the place alone: the same on any number of hosts and workers
        return [int(np.random.default_rng((seed, index)).integers(masks))] if masks else []

    record = _record(source, number, draw)
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
