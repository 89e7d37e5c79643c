"""Batches of records for training: read, shuffled over the whole split, decoded and stacked by Grain.

The examples of a run form one endless stream: the split, reshuffled in every epoch. A batch is a run of this stream,
whatever the number of hosts and workers, so the place in it is a number, the examples before it, and that number is all
that must be saved to resume.
"""

import functools
import signal
import sys

import grain
import numpy as np
from absl import flags
from jaxtyping import Bool, Int

from train.input.augment import Augmentation
from train.input.memory import InMemory, available_memory
from train.input.stored import Choose, Example, Folders, Records, Stored, Tokenize

_BATCHES_AHEAD = 4  # read and decoded beforehand, by as many threads, in each worker


def dataset(
    records: Folders,
    split: str,
    *,
    batch_size: int,
    seed: int,
    shuffle: bool,
    tokenize: Tokenize | None,
    start: int = 0,
    rows: Int[np.ndarray, " b"] | None = None,
    masks: bool = True,
    cached: bool = False,
    augmentation: Augmentation | None = None,
    in_memory: bool = False,
    workers: int = 0,
) -> grain.DatasetIterator[Example]:
    """Endless batches of a split, this host's rows of each.

    A batch is a dict of arrays, with b = len(rows) examples each:

        image        uint8 (b, H, W, 3)
        label_map    uint8 or uint16 (b, H, W)   each pixel's element; num_elements where it belongs to none
        tokens       int32 (b, L)        of the caption, where `tokenize` is given
        index        int32 (b,)          the example's place in the stream, unique in a run
        object_mask  bool  (b, H, W)     where `masks`: one of the record's object masks, drawn at random; where it has
                                         none, one of another record; empty where no record of the split has one
        own_mask     bool  (b,)          where `masks`: whether the mask is one of the record's own
        latent_mean, latent_logvar, text   float16 (b, numbers)   where `cached`

    Args:
      records: the folders that `python -m partition` wrote, or one.
      split: "train" or "val".
      batch_size: examples in a batch, over all hosts.
      seed: of the order and of the draws of object masks.
      shuffle: whether examples come in random order, else in that of the files.
      tokenize: from a caption to its tokens (L,).
      start: examples of the stream before the first batch; to begin late costs nothing.
      rows: places within the batch of the examples that this host reads; by default all.
      masks: whether to read object masks.
      cached: whether to read what `elements cache` wrote into the records.
      augmentation: how images, label maps and object masks are changed, by draws from the seed and the example's place.
      in_memory: whether to decode every record once, now, and keep it. The batches are the same.
      workers: processes that read and decode; 0 does so in threads of this one.

    Returns:
      An iterator; `close` it.

    Raises:
      ValueError: where the split has no shards, or a shard is missing or damaged, or the memory does not hold the set;
        and, on reading it, where a record is not whole, does not fit the first in size and number of elements, or lacks
        what is cached.
    """
    stored = Stored(records, split, tokenize, masks=masks, cached=cached)
    source: Records = stored
    if in_memory:
        source = InMemory(stored, available_memory)
    order = grain.MapDataset.range(len(source))
    if shuffle:
        order = order.shuffle(seed=seed)
    own = np.arange(batch_size) if rows is None else rows
    place = functools.partial(_place, start=start, batch_size=batch_size, rows=own)
    read = functools.partial(_example, order=order.repeat(), records=source, seed=seed, augmentation=augmentation)
    examples = grain.MapDataset.range(sys.maxsize).map(place).map(read)
    threads = grain.ReadOptions(num_threads=_BATCHES_AHEAD, prefetch_buffer_size=_BATCHES_AHEAD)
    # Nothing remains of an endless stream; without `drop_remainder` Grain rounds its length up, out of range.
    batches = examples.batch(len(own), drop_remainder=True).to_iter_dataset(threads)
    if workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain hands absl's flags to its workers, and absl.app does not run here
        options = grain.MultiprocessingOptions(num_workers=workers)
        batches = batches.mp_prefetch(options, worker_init_fn=_ignore_interrupts)
    return iter(batches)


def _ignore_interrupts(worker: int, workers: int) -> None:
    """A terminal sends Ctrl-C to all processes; the one that trains says what to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _place(number: int, *, start: int, batch_size: int, rows: Int[np.ndarray, " b"]) -> int:
    """Where in the stream this host's example `number` is."""
    batch, row = divmod(number, len(rows))
    return start + batch * batch_size + int(rows[row])


def _example(
    index: int,
    *,
    order: grain.MapDataset[int],
    records: Records,
    seed: int,
    augmentation: Augmentation | None,
) -> Example:
    """The example at place `index` of the stream, in which the records have this `order`.

    What it draws follows from the seed and its place alone, so it is the same on any number of hosts and workers.
    """

    def draw(masks: int) -> list[int]:
        return [int(np.random.default_rng((seed, index)).integers(masks))] if records.masks and masks else []

    example, masks = records.read(order[index], draw)
    example["index"] = np.array(index, np.int32)
    if records.masks:
        example["own_mask"] = np.array(len(masks) > 0)
        if records.any_masks and not len(masks):
            masks = _mask_of_another(records, np.random.default_rng((seed, index, 1)), draw)
        shape = example["label_map"].shape
        example["object_mask"] = np.asarray(masks.any(axis=0)) if len(masks) else np.zeros(shape, bool)
    if augmentation is not None:
        example = augmentation(example, np.random.default_rng((seed, index, 2)))
    return example


def _mask_of_another(records: Records, rng: np.random.Generator, choose_masks: Choose) -> Bool[np.ndarray, "1 H W"]:
    """A mask of a random record that has masks: Section 3.3's mask database."""
    while True:
        if len(masks := records.object_masks(int(rng.integers(len(records))), choose_masks)):
            return masks
