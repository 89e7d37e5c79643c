"""The work on one shard: images are read and decoded, segmented on a device, encoded and written."""

import itertools
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Int

from elements_jax.data.object_store import AnyPath
from elements_jax.data.record import Record
from elements_jax.data.tfrecord import new_tfrecord
from elements_jax.data.webdataset import new_tar
from partition.components import Segmenter, partition_image
from partition.config import PartitionConfig, Precision
from partition.job.filters import is_held_out
from partition.job.job import HELD_OUT, Job, SegmenterName, require_checkpoint
from partition.job.manifest import Outcome, write_manifest
from partition.job.pool import process_pool
from partition.masks import MaskSource
from partition.photos import SquarePhoto, read_photo
from partition.segmenters.superpixels import Grid, Slic
from partition.sources.sample import Failure, Ignored, Sample

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, eq=False)
class Loaded:
    """An image before segmentation."""

    source_id: str
    photo: SquarePhoto


@dataclass(frozen=True, eq=False)
class Segmented:
    """An image with its elements and objects."""

    loaded: Loaded
    assignment: Int[np.ndarray, "H W"]
    object_masks: Bool[np.ndarray, "M H W"]


@dataclass(frozen=True)
class Done:
    """The outcome of an image, and its record if it has one."""

    outcome: Outcome
    example: bytes = b""


class ShardWorker:
    """Turns shards into records, on one device and with its own processes for decoding and encoding.

    The same shard gives the same bytes, whatever else the worker processes. Use it in a `with` statement.
    """

    def __init__(self, job: Job, device: str, processes: int | None = None):
        """Raises ValueError if SAM's checkpoint is wrong, the device does not exist, or masks cannot be found.

        Args:
            processes: number of processes that decode and encode images; by default `job.workers`, or one per core.
        """
        self.job = job
        self._processes = processes or job.workers or os.cpu_count() or 1
        kind, self._segmenter = make_segmenter(job.segmenter, job.checkpoint, job.config, device, job.precision)
        self._batch = job.batch or (1 if device == "cpu" else 8)
        settings_only = replace(job)  # the list of all shards is not sent to the processes with every image
        self._load = partial(load, job=settings_only, masks=job.mask_sources())
        self._finish = partial(finish, job=settings_only, settings=record_settings(job.config, kind))
        self._pool: Executor = ThreadPoolExecutor(1) if self._processes == 1 else process_pool(self._processes)

    def __enter__(self) -> "ShardWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, number: int, progress: Callable[[int], object] = lambda _: None) -> None:
        """Write the records of shard `number` of the job and then its manifest.

        A bad image is an outcome, not an error. Raises OSError naming the file that cannot be written.

        Args:
            progress: called with 1 after each image.
        """
        outcomes = []
        new_shard = new_tar if self.job.format == "webdataset" else new_tfrecord
        with ExitStack() as files:
            paths = {split: self.job.records_path(number, split) for split in self.job.splits}
            append = {split: files.enter_context(new_shard(path)) for split, path in paths.items()}
            for done in self._divide(self.job.shards[number].samples()):
                if done.outcome.split is not None:
                    append[done.outcome.split](done.example)
                outcomes.append(done.outcome)
                if done.outcome.status != "ignored":
                    progress(1)
        write_manifest(self.job.manifest_path(number), outcomes)

    def _divide(self, samples: Iterable[Sample | Failure | Ignored]) -> Iterator[Done]:
        """Yield the outcome of each sample, in order. Processes decode the next images and encode the last ones
        meanwhile."""
        ahead = 2 * (self._processes + self._batch)
        if self.job.uses_sam:
            loaded = _map(self._pool, self._load, samples, ahead)
            return _map(self._pool, self._finish, self._segment(loaded), ahead)
        process = partial(divide, load=self._load, segmenter=self._segmenter, finish=self._finish)
        return _map(self._pool, process, samples, ahead)

    def _segment(self, loaded: Iterable[Loaded | Done]) -> Iterator[Segmented | Done]:
        """Segment batches with SAM; samples that are not images pass through."""
        keep = self.job.mask_filter if "auto" in self.job.mask_names else None
        loaded = iter(loaded)
        while group := list(itertools.islice(loaded, self._batch)):
            images = [item for item in group if isinstance(item, Loaded)]
            found = iter(())
            if images:
                found = self._segmenter.segment(np.stack([item.photo.image for item in images]), keep)
            for item in group:
                yield Segmented(item, *next(found)) if isinstance(item, Loaded) else item


def make_segmenter(
    name: SegmenterName,
    checkpoint: AnyPath | None,
    config: PartitionConfig,
    device: str = "cpu",
    precision: Precision | None = None,
) -> tuple[str, Any]:
    """Return the segmenter's name in the records, for SAM the checkpoint's kind, and the segmenter.

    Raises ValueError if SAM has no checkpoint or a wrong one, or the device does not exist.
    """
    match name:
        case "slic":
            return name, Slic(config)
        case "grid":
            return name, Grid(config)
    # PyTorch is imported only for SAM: without it, processes that decode images start three times faster.
    from partition.segmenters.sam import SamSegmenter, load_sam, use_device

    weights = require_checkpoint(name, checkpoint)
    if name == "sam2":
        from partition.segmenters.sam2 import Sam2Segmenter, load_sam2

        return name, Sam2Segmenter(load_sam2(weights.parent).to(use_device(device)), config, precision)
    model, kind = load_sam(weights, None if name == "sam" else name)
    return kind, SamSegmenter(model.to(use_device(device)), config, precision)


def record_settings(config: PartitionConfig, kind: str) -> dict[str, Any]:
    """Return the settings that a record stores."""
    return {**asdict(config), "segmenter": kind, "num_elements": config.num_elements}


def load(sample: Sample | Failure | Ignored, job: Job, masks: Sequence[MaskSource]) -> Loaded | Done:
    """Decode an image, if the filters accept it."""
    if isinstance(sample, Ignored):
        return Done(Outcome(sample.source_id, "ignored", sample.reason))
    if isinstance(sample, Failure):
        return Done(Outcome(sample.source_id, "failed", sample.reason))
    if objection := job.filters.objection_to_metadata(sample.metadata):
        return Done(Outcome(sample.source_id, "filtered", objection))
    try:
        photo = read_photo(sample, job.config.size, masks, job.mask_filter)
    except ValueError as error:
        return Done(Outcome(sample.source_id, "failed", str(error)))
    if objection := job.filters.objection_to_size(photo.width, photo.height, job.config.size):
        return Done(Outcome(sample.source_id, "filtered", objection))
    return Loaded(sample.source_id, photo)


def finish(segmented: Segmented | Done, job: Job, settings: dict[str, Any]) -> Done:
    """Turn a segmented image into a record."""
    if isinstance(segmented, Done):
        return segmented
    source_id, photo = segmented.loaded.source_id, segmented.loaded.photo
    partition = partition_image(photo.image, lambda _: segmented.assignment, job.config)
    masks = np.concatenate([photo.object_masks, segmented.object_masks])
    record = Record(photo.image, partition.label_map, photo.caption, masks, source_id, settings)
    outcome = Outcome(
        source_id,
        "written",
        split=HELD_OUT if is_held_out(source_id, job.held_out) else job.split,
        elements=int(partition.valid.sum()),
        dropped_percent=round(100 * partition.dropped, 4),
        object_masks=len(masks),
        masks_left_out=dict(Counter(each.reason for each in photo.masks_left_out)) or None,
        first_left_out=photo.masks_left_out[0].detail if photo.masks_left_out else None,
    )
    return Done(outcome, record.to_example(job.image_format))


def divide(
    sample: Sample | Failure | Ignored,
    load: Callable[[Sample | Failure | Ignored], Loaded | Done],
    segmenter: Segmenter,
    finish: Callable[[Segmented | Done], Done],
) -> Done:
    """Process a sample completely, for segmenters that need no device."""
    loaded = load(sample)
    if isinstance(loaded, Done):
        return loaded
    image = loaded.photo.image
    return finish(Segmented(loaded, segmenter(image), np.zeros((0, *image.shape[:2]), bool)))


def _map(pool: Executor, function: Callable[[In], Out], items: Iterable[In], ahead: int) -> Iterator[Out]:
    """Map `function` over `items` in a pool, in order, with at most `ahead` items in flight."""
    waiting: deque = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
