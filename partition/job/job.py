"""The job, from images to sharded records. It can be killed at any time and resumed with the same command."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import tyro

from elements_jax.arguments import PathOrURL
from elements_jax.bounds import COUNT, FieldError, require_within
from elements_jax.data.atomic import LARGEST_FILE, new_file
from elements_jax.data.object_store import (
    UNFINISHED,
    AnyPath,
    abort_uploads,
    as_path,
    is_url,
    local_copy,
    require_writable,
)
from elements_jax.data.tfds_metadata import METADATA, write_metadata
from elements_jax.data.tfrecord import DATASET, shard_path
from elements_jax.data.webdataset import tar_path
from partition.config import PartitionConfig, Precision
from partition.job.filters import Filters
from partition.job.manifest import lengths, manifest_path, read_manifest, summarise
from partition.masks import UNLISTED, MaskFilter, MaskFolder, MaskSource, SourceMasks, mask_source
from partition.segmenters.checkpoints import find_checkpoint, find_sam2
from partition.sources.plan import PhotoShard, ignored_files, plan_shards
from partition.sources.sample import Shard, as_source_id
from partition.sources.tar import TarShard, without_suffix

SegmenterName = Literal["sam", "vit_b", "vit_l", "vit_h", "mobile-sam", "sam2", "slic", "grid"]


HELD_OUT = "val"
"""The split of held-out images."""


@dataclass(frozen=True)
class Job:
    """Segment images into image elements and write them as records.

    One shard of the source becomes one shard of records. Run the same command again to process the missing shards. Next
    to the records, manifest/ has a line for every image: written, filtered or failed, and why; and for every ignored
    file. partition-SPLIT.json is the summary.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A folder of photographs or of .tar, .tar.gz or .tgz files (WebDataset, img2dataset); one of these; a list of
    paths (.txt, .lst); or tfds:NAME[:SPLIT]. An image's caption is the .txt next to it, its metadata the .json. All may
    be URLs: s3://BUCKET/FOLDER."""
    out: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder for the records, or its URL."""
    segmenter: SegmenterName = "sam"
    """SAM (`sam` detects the kind of the checkpoint; the next four name it), SAM 2 with transformers, SLIC superpixels,
    or a regular grid."""
    checkpoint: Annotated[PathOrURL | None, tyro.conf.arg(metavar="FILE")] = None
    """Checkpoint of SAM or MobileSAM: the official file, or transformers' file or folder; or mobile-sam, vit_b, vit_l
    or vit_h, which are downloaded from the Hugging Face hub. Of SAM 2, transformers' folder, or the name of one on the
    hub, such as facebook/sam2.1-hiera-large."""
    masks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DIR|FILE|auto|columns|none")] = ()
    """Object masks: `auto` (SAM's own), `columns` (those of Parquet files), a COCO file, or a folder of STEM.png (label
    maps; 0: no object), STEM/*.png (one object each), STEM.json (COCO's run lengths); several are combined. The default
    is `auto` with SAM and `none` otherwise. Stage 2 of training needs masks for element dropout (Section 3.3)."""
    split: str = "train"
    """Name of the split."""
    held_out: float = 0.0
    """Share of the images that go into the split `val` instead, chosen by their names (paper: 1/30)."""
    shard_size: int = 1000
    """Most photographs of a folder or list in a shard; a .tar file is one shard."""
    format: Literal["tfrecord", "webdataset"] = "tfrecord"
    """Format of the records: TFRecord, which training and all other commands read; or tar files in WebDataset's layout,
    for other programs."""
    image_format: Literal["jpeg", "png"] = "jpeg"
    """Format of stored images: JPEG at quality 95; or PNG, which is exact, and better for small images."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Start from scratch if another job, or this one with other settings or images, has written the split."""
    retry_failed: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Process shards again in which images failed."""
    engine: Literal["local", "ray", "spark", "beam"] = "local"
    """Where shards are processed: this machine, a Ray cluster, a Spark cluster, or Apache Beam."""
    address: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Address of the Ray cluster, HOST:6379 or ray://HOST:10001; by default the cluster of this machine."""
    actors: int | None = None
    """Ray's workers; by default as many as fit into the cluster. A number makes an autoscaling cluster grow."""
    master: str | None = None
    """Master of the Spark cluster: spark://HOST:7077, yarn, k8s://...; by default spark-submit's, or else local[*]."""
    runner: str = "DirectRunner"
    """Beam's runner: DirectRunner, DataflowRunner, FlinkRunner, SparkRunner ..."""
    runner_options: str = ""
    """Beam's own options, as one text: "--project=p --region=r"."""
    devices: Annotated[tuple[str, ...], tyro.conf.arg(metavar="cpu|cuda:N")] = ()
    """Devices for segmenters, one process each; by default every GPU, or else the CPU."""
    precision: Precision | None = None
    """Precision of SAM's matrix products; by default float32 on a CPU and bfloat16 on a GPU."""
    batch: int | None = None
    """Images that SAM encodes at once; by default 1 on a CPU and 8 on a GPU."""
    workers: int | None = None
    """Processes per device that decode and encode images; by default one for each core of the machine, on Ray a GPU's
    share of its node's cores, and on Spark 1."""
    largest_file: int = LARGEST_FILE >> 20
    """Largest file, or member of a tar file, in MiB; a larger one is counted as failed."""
    filters: Filters = field(default_factory=Filters)
    mask_filter: MaskFilter = field(default_factory=MaskFilter)
    config: Annotated[PartitionConfig, tyro.conf.arg(name="")] = field(default_factory=PartitionConfig)

    def __post_init__(self) -> None:
        require_within(self, workers=(1, 4096), shard_size=COUNT, batch=COUNT, largest_file=COUNT, actors=COUNT)
        if not 0 <= self.held_out < 1:
            raise FieldError(self, ("held_out",), f"must be at least 0 and below 1, got {self.held_out}")

    @property
    def uses_sam(self) -> bool:
        """Whether SAM segments the images."""
        return self.segmenter not in ("slic", "grid")

    @property
    def mask_names(self) -> tuple[str, ...]:
        """`masks` with the default filled in; empty for `none`."""
        if not self.masks:
            return ("auto",) if self.uses_sam else ()
        return () if self.masks == ("none",) else self.masks

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that the job writes."""
        return (self.split, HELD_OUT) if self.held_out else (self.split,)

    @cached_property
    def shards(self) -> Sequence[Shard]:
        """The shards of the source."""
        return plan_shards(self.source, self.shard_size, self.skipped, self.largest_file << 20)

    @property
    def skipped(self) -> list[Path]:
        """Folders in which the job does not look for photographs."""
        return [self.out, *(as_path(masks) for masks in self.mask_names if masks not in ("auto", "columns"))]

    def mask_sources(self) -> list[MaskSource]:
        """Return the sources of object masks. Raises ValueError if one does not exist."""
        return [
            SourceMasks() if masks == "columns" else mask_source(local_copy(as_path(masks)))
            for masks in self.mask_names
            if masks != "auto"
        ]

    def records_path(self, number: int, split: str) -> Path:
        """Return the path of a shard's records."""
        path = tar_path if self.format == "webdataset" else shard_path
        return path(self.out, split, number, len(self.shards))

    def manifest_path(self, number: int) -> Path:
        """Return the path of a shard's manifest."""
        return manifest_path(self.out, self.split, number, len(self.shards))

    def unfinished(self) -> list[int]:
        """Return the numbers of unfinished shards, of which a file is missing."""

        there = {path.name for folder in (self.out, self.out / "manifest") for path in _listed(folder)}

        def finished(number: int) -> bool:
            records = (self.records_path(number, split) for split in self.splits)
            return all(path.name in there for path in (self.manifest_path(number), *records))

        return [number for number in range(len(self.shards)) if not finished(number)]


_NOT_IN_RECORDS = {
    *("source", "shard_size"),  # the shards themselves are compared
    *("out", "overwrite", "retry_failed", "engine", "runner", "runner_options", "devices", "workers"),
    *("address", "actors", "master"),
    "largest_file",
}
"""Settings that may differ when a job resumes."""


def check(job: Job) -> None:
    """Raise ValueError naming the option that makes a job impossible, or OSError naming the URL."""
    require_writable(job.out)
    if not re.fullmatch(r"\w+", job.split):
        raise ValueError(f"--split must consist of letters, digits and underscores, got {job.split!r}")
    if job.held_out and job.split == HELD_OUT:
        raise ValueError(f"--split {HELD_OUT} is the split that --held-out writes")
    if job.uses_sam or job.checkpoint is not None:
        require_checkpoint(job.segmenter, job.checkpoint)
    if "auto" in job.mask_names and not job.uses_sam:
        raise ValueError(f"--masks auto needs SAM, but --segmenter is {job.segmenter}")
    shards = job.shards  # raises ValueError if the source does not exist
    for source in job.mask_sources():
        if isinstance(source, MaskFolder):
            _require_masks(source, shards)


def _require_masks(masks: MaskFolder, shards: Sequence[Shard]) -> None:
    """Raise ValueError if a folder has no mask of any photograph, which would otherwise show only at the end."""

    def has(stem: PurePosixPath) -> bool:
        base = masks.folder / stem
        return base.is_dir() or any(base.with_name(base.name + end).is_file() for end in (".png", ".PNG", ".json"))

    example = ""
    for shard in shards:
        if isinstance(shard, PhotoShard):
            stems = [PurePosixPath(as_source_id(photo)).with_suffix("") for photo in shard.photos]
            example = example or str(stems[0])
        elif isinstance(shard, TarShard):  # its photographs' masks are in a subfolder
            stems = [PurePosixPath(as_source_id(without_suffix(shard.name)))]
            example = example or f"{stems[0]}/KEY"
        else:  # its photographs have no names that files could have
            return
        if any(map(has, stems)):
            return
    files = ", ".join(f"{example}{end}" for end in (".png", ".json", "/*.png"))
    raise ValueError(f"{masks.folder}: no masks of the photographs there; those of the first would be one of {files}")


def _listed(folder: AnyPath) -> list[AnyPath]:
    """Return the paths in a folder, or none without one. One listing is faster than asking a store about each path."""
    return list(folder.iterdir()) if folder.is_dir() else []


def require_checkpoint(segmenter: SegmenterName, checkpoint: AnyPath | None) -> Path:
    """Return SAM's checkpoint, for a URL its local copy. Raises ValueError if there is none."""
    if checkpoint is None:
        which = "transformers' folder of SAM 2" if segmenter == "sam2" else "an official checkpoint of SAM or MobileSAM"
        raise ValueError(f"--segmenter {segmenter} needs --checkpoint, {which}")
    return find_sam2(checkpoint) if segmenter == "sam2" else find_checkpoint(checkpoint)


def begin(job: Job) -> None:
    """Prepare OUT to start or resume a job.

    Raises ValueError if another job has written one of its splits, or the source now has other images.
    """
    settings = {name: value for name, value in asdict(job).items() if name not in _NOT_IN_RECORDS}
    settings["masks"] = job.mask_names
    if job.checkpoint is not None:  # it may be moved
        weights = require_checkpoint(job.segmenter, job.checkpoint)
        settings["checkpoint"] = f"{weights.name}, {weights.stat().st_size} bytes"
    state = {"settings": settings, "shards": {shard.name: shard.bytes for shard in job.shards}}
    state = json.loads(json.dumps(state, default=str))
    path = job.out / f"job-{job.split}.json"
    before = json.loads(path.read_text()) if path.is_file() else None
    if there := _files(job):
        difference = _difference(before, state)
        if difference and not job.overwrite:
            raise ValueError(f"{there[0]} already exists, {difference}; --overwrite starts from scratch")
        for old in there if difference or before is None else list(_stale(job, before, state)):
            old.unlink()
        for name in METADATA if difference else ():  # it describes what was there
            (job.out / name).unlink(missing_ok=True)
    if not is_url(job.out):
        (job.out / "manifest").mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        file.write(json.dumps(state, indent=1, ensure_ascii=False).encode())


def finish(job: Job) -> dict[str, Any]:
    """Write the metadata for TensorFlow Datasets and the summary from the finished shards; return the summary.

    Raises ValueError if shards are unfinished.
    """
    if missing := job.unfinished():
        names = ", ".join(job.shards[number].name for number in missing[:3])
        raise ValueError(f"{job.out}: {len(missing)} of {len(job.shards)} shards are unfinished: {names} ...")
    summary = summarise([job.manifest_path(number) for number in range(len(job.shards))])
    for suffix, count in ignored_files(job.source, job.skipped).items():
        summary["ignored"][suffix] = summary["ignored"].get(suffix, 0) + count
    if unlisted := sum(source.unlisted() for source in job.mask_sources()):
        summary["masks_left_out"][UNLISTED] = unlisted
    with new_file(job.out / f"partition-{job.split}.json") as file:
        file.write(json.dumps(summary, indent=1, ensure_ascii=False).encode() + b"\n")
    # All shards are done, so unfinished files are leftovers of killed processes.
    abort_uploads(job.out)
    for split in [] if is_url(job.out) else job.splits:
        for path in job.out.glob(f".{DATASET}-{split}[.-]*{UNFINISHED}"):
            path.unlink()
    for path in [] if is_url(job.out) else (job.out / "manifest").glob(f".{job.split}-*{UNFINISHED}"):
        path.unlink()
    if summary["written"] and job.format == "tfrecord":
        write_metadata(job.out, lengths=lengths(_listed(job.out / "manifest")) if is_url(job.out) else None)
    return summary


def _files(job: Job) -> list[AnyPath]:
    """Return the existing files of the job's splits; the manifests, which mark finished shards, come first."""
    of_splits = "|".join(job.splits)
    name = rf"{DATASET}-({of_splits})(\.tfrecord-.*|-\d+-of-\d+\.tar(\.md5)?)"
    records = [path for path in _listed(job.out) if re.fullmatch(name, path.name)]
    listed = _listed(job.out / "manifest")
    manifests = [path for path in listed if re.fullmatch(rf"{job.split}-.*-of-.*\.jsonl", path.name)]
    return sorted(manifests, key=str) + sorted(records, key=str)


def _difference(before: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """Return why a job cannot resume the earlier one, or an empty string."""
    if before is None:
        return "made by another job"
    old, new = before["settings"], now["settings"]
    if changed := [f"{name} ({old.get(name)}, now {new[name]})" for name in new if old.get(name) != new[name]]:
        return f"made with other settings: {', '.join(changed)}"
    if list(before["shards"]) != list(now["shards"]):
        return f"made of other images ({len(before['shards'])} shards, now {len(now['shards'])})"
    return ""


def _stale(job: Job, before: dict[str, Any], now: dict[str, Any]) -> Iterator[Path]:
    """Yield manifests of shards to process again: their file now has another size, or they have failures."""
    for number, (name, size) in enumerate(now["shards"].items()):
        path = job.manifest_path(number)
        if path.is_file():
            failed = job.retry_failed and any(outcome.status == "failed" for outcome in read_manifest(path))
            if failed or before["shards"][name] != size:
                yield path
