"""The job: a folder of photographs in, sharded records out."""

import json
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import tyro
from jaxtyping import Bool, UInt8
from tqdm import tqdm

from elements_jax.records import DATASET, shard_path, write_tfrecord
from elements_jax.schema import Record
from partition.config import PartitionConfig
from partition.elements import Segmenter, partition_image
from partition.masks import MaskFolder
from partition.photos import read_photo
from partition.picture import draw_partition
from partition.sources import PhotoShard, plan, read_sample
from partition.superpixels import Grid, Slic
from partition.tfds_metadata import write_metadata

FindObjects: TypeAlias = Callable[[UInt8[np.ndarray, "H W 3"]], Bool[np.ndarray, "M H W"]]

SegmenterName = Literal["sam", "vit_b", "vit_l", "vit_h", "mobile-sam", "slic", "grid"]


@dataclass(frozen=True)
class Job:
    """Divide photographs into image elements and write them as records.

    A photo's caption is the text file beside it with its stem. Beside the records, partition-SPLIT.json lists what
    became of every photo: its elements and dropped pixels, or why it was skipped.
    """

    photos: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTOS")]
    """Folder of photographs; folders below it are searched too, but for those named `masks`."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder for the records."""
    segmenter: SegmenterName = "sam"
    """SAM (`sam` finds out which the checkpoint is; the next four name it), SLIC superpixels, or a regular grid."""
    checkpoint: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Official checkpoint of SAM or MobileSAM."""
    masks: Annotated[str | None, tyro.conf.arg(metavar="DIR|auto")] = None
    """Object masks: DIR/STEM.png (label maps, 0 is no object), DIR/STEM/*.png (one object each), or SAM's own."""
    split: str = "train"
    """Name of the split."""
    shards: int = 1
    """Files to write."""
    image_format: Literal["jpeg", "png"] = "jpeg"
    """How images are stored: JPEG at quality 95; or PNG, which is exact, and better for small pictures."""
    pictures: int = 0
    """Draw the partition of the first so many photos, in OUT/pictures."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the split if it is there already."""
    device: Annotated[Literal["cpu", "cuda"] | None, tyro.conf.arg(metavar="cpu|cuda")] = None
    """Where SAM runs; by default on a GPU if there is one."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes for SLIC and grid; SAM runs in one. The records do not depend on it."""
    config: Annotated[PartitionConfig, tyro.conf.arg(name="")] = field(default_factory=PartitionConfig)


@dataclass(frozen=True)
class Outcome:
    """What became of a photo: a serialised example, or the reason why there is none."""

    source_id: str
    skipped: str = ""
    example: bytes = b""
    elements: int = 0
    dropped: float = 0.0
    masks: int = 0


def run(job: Job) -> dict[str, Any]:
    """Do the job and return its summary, which is written beside the records. The same job writes the same bytes.

    A photo that cannot be read is skipped. Raises ValueError for what concerns all photos, such as a wrong checkpoint.
    """
    names = _check(job)
    kind, segmenter, find_objects = make_segmenter(job.segmenter, job.checkpoint, job.config, job.device)
    if job.masks == "auto" and find_objects is None:
        raise ValueError(f"--masks auto needs SAM, but --segmenter is {job.segmenter}")
    job.out.mkdir(parents=True, exist_ok=True)
    for path in _existing(job):
        path.unlink()

    settings = {**asdict(job.config), "segmenter": kind, "num_elements": job.config.num_elements}
    work = partial(
        divide,
        job=job,
        settings=settings,
        segmenter=segmenter,
        find_objects=find_objects if job.masks == "auto" else None,
    )
    outcomes = iter(tqdm(_outcomes(work, job, names), total=len(names), desc="partition", unit="photo"))
    done: list[Outcome] = []

    def examples(count: int) -> Iterator[bytes]:
        for outcome in islice(outcomes, count):
            done.append(outcome)
            if not outcome.skipped:
                yield outcome.example

    shards = min(job.shards, len(names))
    paths = [shard_path(job.out, job.split, shard, shards) for shard in range(shards)]
    for shard, path in enumerate(paths):
        first, last = (len(names) * edge // shards for edge in (shard, shard + 1))
        write_tfrecord(path, examples(last - first))

    summary = _summarise(job, settings, done)
    (job.out / f"partition-{job.split}.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    if summary["written"]:
        write_metadata(job.out)
    else:
        for path in paths:
            path.unlink()
    return summary


def make_segmenter(
    name: SegmenterName, checkpoint: Path | None, config: PartitionConfig, device: str | None = None
) -> tuple[str, Segmenter, FindObjects | None]:
    """The segmenter, its name as the records keep it (the checkpoint's kind), and what finds objects, which SAM has.

    Raises ValueError where SAM has no checkpoint or a wrong one, or there is no such device.
    """
    match name:
        case "slic":
            return name, Slic(config), None
        case "grid":
            return name, Grid(config), None
    # PyTorch is imported for SAM alone: the processes of SLIC and grid start in a third of the time without it.
    import torch

    from partition.sam import SamSegmenter, load_sam

    if checkpoint is None:
        raise ValueError(f"--segmenter {name} needs --checkpoint, an official checkpoint of SAM or MobileSAM")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: PyTorch finds no GPU here")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, kind = load_sam(checkpoint, None if name == "sam" else name)
    segmenter = SamSegmenter(model.to(device), config)
    return kind, segmenter, segmenter.object_masks


def divide(
    name: PurePosixPath,
    draw: bool,
    *,
    job: Job,
    settings: dict[str, Any],
    segmenter: Segmenter,
    find_objects: FindObjects | None,
) -> Outcome:
    """Make one photo a record; `draw` asks for the picture of its partition too."""
    masks = [] if find_objects or job.masks is None else [MaskFolder(Path(job.masks))]
    try:
        photo = read_photo(read_sample(job.photos / name, str(name)), job.config.size, masks)
    except Exception as error:  # decoders raise all sorts on damaged files
        return Outcome(str(name), skipped=str(error) or type(error).__name__)
    result = partition_image(photo.image, segmenter, job.config)
    objects = find_objects(photo.image) if find_objects else photo.object_masks
    if draw:
        path = job.out / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_partition(photo.image, result).save(path)
    record = Record(photo.image, result.label_map, photo.caption, objects, str(name), settings)
    return Outcome(
        source_id=str(name),
        example=record.to_example(job.image_format),
        elements=int(result.valid.sum()),
        dropped=result.dropped,
        masks=len(objects),
    )


def _outcomes(work: Callable[..., Outcome], job: Job, names: Sequence[PurePosixPath]) -> Iterator[Outcome]:
    """The outcome of every photo, in order."""
    draw = [number < job.pictures for number in range(len(names))]
    if job.segmenter not in ("slic", "grid") or min(job.workers, len(names)) < 2:
        yield from map(work, names, draw)
        return
    with ProcessPoolExecutor(job.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(work, names, draw, chunksize=8)
        finally:
            pool.shutdown(cancel_futures=True)


def _check(job: Job) -> list[PurePosixPath]:
    """The names of the photos. Raises ValueError for a job that cannot be done, before any work."""
    if not re.fullmatch(r"\w+", job.split):
        raise ValueError(f"--split must consist of letters, digits and underscores, got {job.split!r}")
    if job.shards < 1 or job.workers < 1:
        raise ValueError(f"--shards and --workers must be at least 1, got {job.shards} and {job.workers}")
    folder = [] if job.masks in (None, "auto") else [Path(job.masks)]
    if folder and not folder[0].is_dir():
        raise ValueError(f"--masks: {job.masks} is no folder (nor `auto`)")
    if _existing(job) and not job.overwrite:
        raise ValueError(f"{job.out}: split {job.split!r} is there already; --overwrite replaces it")
    shards = plan(str(job.photos), 1000, skip=[job.out, *folder])
    return [PurePosixPath(photo) for shard in shards if isinstance(shard, PhotoShard) for photo in shard.photos]


def _existing(job: Job) -> list[Path]:
    return sorted(job.out.glob(f"{DATASET}-{job.split}.tfrecord-*"))


def _summarise(job: Job, settings: dict[str, Any], done: list[Outcome]) -> dict[str, Any]:
    written = [outcome for outcome in done if not outcome.skipped]

    def spread(values: list[int] | list[float]) -> dict[str, float]:
        return {"mean": sum(values) / len(values), "min": min(values), "max": max(values)} if values else {}

    return {
        "split": job.split,
        "settings": settings,
        "written": len(written),
        "skipped": {outcome.source_id: outcome.skipped for outcome in done if outcome.skipped},
        "elements": spread([outcome.elements for outcome in written]),
        "dropped_percent": spread([100 * outcome.dropped for outcome in written]),
        "object_masks": spread([outcome.masks for outcome in written]),
        "images": {
            outcome.source_id: {"elements": outcome.elements, "dropped_percent": round(100 * outcome.dropped, 4)}
            for outcome in written
        },
    }
