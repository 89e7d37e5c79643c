"""Batches of records for training: read, shuffled over the complete split, decoded and stacked by Grain.

The examples of a run form one endless stream: the split, reshuffled in every epoch. A batch is a contiguous part of
this stream, whatever the number of hosts and workers. So the place in the stream is one number, the count of examples
before it, and a run saves only that number to resume.
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
    """Return endless batches of a split, with this host's rows of each.

    A batch is a dict of arrays, with b = len(rows) examples each:

        image        uint8 (b, H, W, 3)
        label_map    uint8 or uint16 (b, H, W)   each pixel's element; num_elements for a pixel of none
        tokens       int32 (b, L)        the caption's tokens, if `tokenize` is given
        index        int32 (b,)          the example's place in the stream, unique in a run
        object_mask  bool  (b, H, W)     if `masks`: one of the record's object masks, drawn at random; if it has none,
                                         a mask of another record; empty if no record of the split has a mask
        own_mask     bool  (b,)          if `masks`: whether the mask is the record's own
        latent_mean, latent_logvar, text   float16 (b, numbers)   if `cached`

    Args:
      records: one or several folders that `elements partition` wrote.
      split: "train" or "val".
      batch_size: examples in a batch, over all hosts.
      seed: seed of the order and of the draws of object masks.
      shuffle: whether examples come in random order or in that of the files.
      tokenize: from a caption to its tokens (L,).
      start: examples of the stream before the first batch; skipping costs nothing.
      rows: places within the batch of the examples that this host reads; by default all.
      masks: whether to read object masks.
      cached: whether to read the features that `elements cache` wrote into the records.
      augmentation: random changes of images, label maps and object masks; draws depend on the seed and the example's
        place.
      in_memory: whether to decode every record once, now, and keep it. The batches are the same.
      workers: processes that read and decode; 0 reads in threads of this process.

    Returns:
      An iterator; `close` it.

    Raises:
      ValueError: if the split has no shards, a shard is missing or damaged, or the set does not fit into memory;
        when read, if a record is incomplete, differs from the first in size or elements, or lacks cached features.
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
    # An endless stream has no remainder, but without `drop_remainder` Grain rounds its length up, out of range.
    batches = examples.batch(len(own), drop_remainder=True).to_iter_dataset(threads)
    if workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain hands absl's flags to its workers, and absl.app does not run here
        options = grain.MultiprocessingOptions(num_workers=workers)
        batches = batches.mp_prefetch(options, worker_init_fn=_ignore_interrupts)
    return iter(batches)


def _ignore_interrupts(worker: int, workers: int) -> None:
    """Ignore Ctrl-C, which a terminal sends to all processes: the training process decides what to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _place(number: int, *, start: int, batch_size: int, rows: Int[np.ndarray, " b"]) -> int:
    """Return the place in the stream of this host's example `number`."""
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
    """Read the example at place `index` of the stream, in which the records have this `order`.

    Its draws depend only on the seed and its place, so they are the same on any number of hosts and workers.
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
    """Draw a mask of a random record that has masks: the mask database of Section 3.3."""
    while True:
        if len(masks := records.object_masks(int(rng.integers(len(records))), choose_masks)):
            return masks
