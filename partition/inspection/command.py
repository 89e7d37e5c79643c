"""`elements partition inspect RECORDS`: images, statistics and damage of records."""

import json
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import nlargest
from itertools import islice
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

import numpy as np
import tyro
from jaxtyping import Integer
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from elements_jax.arguments import PathOrURL
from elements_jax.bounds import ANY_SIZE, require_within
from elements_jax.data.atomic import new_file
from elements_jax.data.object_store import is_url, with_local_paths
from elements_jax.data.record import DROPPED, Record
from elements_jax.data.tfrecord import find_shards, scan_tfrecord, shard_path
from partition.components import Partition, measure_elements
from partition.inspection.boundary_scores import read_truths, score_partition
from partition.inspection.drawing import draw_objects, draw_partition
from partition.job.pool import process_pool
from partition.photos import crop_labels

WORST = 5
"""Records of each split that are named for their dropped pixels."""


@dataclass(frozen=True)
class Inspect:
    """Inspect records: draw some, measure all, and name damaged ones.

    The statistics are printed and written to OUT/inspect.json. The exit code is 1 if a record is damaged.
    """

    records: Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="RECORDS")]
    """Folder of records, or one file of them."""
    out: Annotated[PathOrURL | None, tyro.conf.arg(metavar="OUT")] = None
    """Folder for the images and `inspect.json`; by default `inspect` next to the records."""
    pictures: int = 4
    """Records of each split to draw, evenly spaced."""
    truth: Annotated[PathOrURL | None, tyro.conf.arg(metavar="DIR")] = None
    """Human segmentations, to score the partitions: for A/B.jpg, DIR/A/B.png (label map) or B.mat (BSDS)."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Processes that read files."""

    def __post_init__(self) -> None:
        require_within(self, pictures=(0, ANY_SIZE), workers=(1, 4096))


@dataclass
class Distribution:
    """A summary of many numbers: sum, extremes, and counts of values rounded to three significant digits."""

    total: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    counts: Counter[float] = field(default_factory=Counter)

    def add(self, values: Iterable[float]) -> None:
        """Add some numbers."""
        for value in map(float, values):
            self.total += value
            self.low, self.high = min(self.low, value), max(self.high, value)
            self.counts[float(f"{value:.3g}")] += 1

    def merge(self, other: "Distribution") -> None:
        """Add the other's numbers."""
        self.total += other.total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.counts.update(other.counts)

    def quantile(self, share: float) -> float:
        """Return the smallest rounded number that at least this share of the numbers do not exceed."""
        values = sorted(self.counts)
        reached = np.cumsum([self.counts[value] for value in values])
        return values[int(np.searchsorted(reached, share * reached[-1]))]

    def summary(self) -> dict[str, float]:
        """Return the columns of the table."""
        count = self.counts.total()
        quantiles = {"5 %": self.quantile(0.05), "median": self.quantile(0.5), "95 %": self.quantile(0.95)}
        return {"count": count, "mean": self.total / count, "min": self.low, **quantiles, "max": self.high}


@dataclass
class Report:
    """A summary of the records of a file or a split. Its size grows with their damage, not with their number."""

    records: int = 0
    """Undamaged records."""
    damage: list[str] = field(default_factory=list)
    settings: Counter[str] = field(default_factory=Counter)
    """Number of records made with each settings, as JSON."""
    worst: list[tuple[float, str]] = field(default_factory=list)
    """Largest shares of dropped pixels, in %, with source ids."""
    statistics: dict[str, Distribution] = field(default_factory=lambda: defaultdict(Distribution))

    def add(self, record: Record, truths: Sequence[Integer[np.ndarray, "H W"]]) -> None:
        """Measure one record, and score it if there are truths."""
        kept = record.label_map[record.label_map != DROPPED]
        dropped = 100 * (1 - kept.size / record.label_map.size)
        area = np.bincount(kept, minlength=record.settings["num_elements"])
        measures = {
            "dropped_percent": [dropped],
            "elements": [np.count_nonzero(area)],
            "empty_elements": [np.count_nonzero(area == 0)],
            "element_pixels": area[area > 0],
            "object_masks": [len(record.object_masks)],
            "object_mask_percent": 100 * record.object_masks.mean((1, 2)),
        }
        if truths:
            measures |= {name: [score] for name, score in score_partition(record.label_map, truths)._asdict().items()}
        for name, values in measures.items():
            self.statistics[name].add(values)
        self.records += 1
        self.settings[json.dumps(record.settings, sort_keys=True)] += 1
        self.worst = nlargest(WORST, [*self.worst, (dropped, record.source_id)])

    def merge(self, other: "Report") -> None:
        """Add the records of another report."""
        self.records += other.records
        self.damage += other.damage
        self.settings.update(other.settings)
        self.worst = nlargest(WORST, self.worst + other.worst)
        for name, distribution in other.statistics.items():
            self.statistics[name].merge(distribution)

    def summary(self) -> dict[str, Any]:
        """Return the contents of `inspect.json`."""
        return {
            "records": self.records,
            "damage": self.damage,
            "settings": [{"records": n, "settings": json.loads(text)} for text, n in self.settings.most_common()],
            "most_dropped_percent": {source_id: dropped for dropped, source_id in self.worst if dropped},
            "statistics": {name: found.summary() for name, found in self.statistics.items() if found.counts},
        }


def inspect(job: Inspect) -> int:
    """Inspect, print and return the exit code: 1 if a record is damaged. Raises as `run` does, and OSError."""
    if is_url(job.records) and job.out is None:
        raise ValueError(f"{job.records}: --out must name a folder for the images")
    with with_local_paths(job) as local:
        summaries = run(local)
    for split, summary in summaries.items():
        _print(split, summary, job.truth)
    print(f"images and inspect.json are in {_out(job)}")
    return 1 if any(summary["damage"] for summary in summaries.values()) else 0


def run(job: Inspect) -> dict[str, dict[str, Any]]:
    """Inspect, write images and `inspect.json`, and return the contents of that file: a summary of each split.

    Raises ValueError if there are no records, a shard is missing, or a truth cannot be read.
    """
    if not job.records.exists():
        raise ValueError(f"{job.records}: no such folder or file of records")
    if job.truth and not job.truth.is_dir():
        raise ValueError(f"--truth: {job.truth} is not a folder")
    splits = find_shards(job.records) if job.records.is_dir() else {job.records.name: [job.records]}
    if not splits:
        raise ValueError(f"{job.records}: there are no shards of records")
    promised = _promised(job.records if job.records.is_dir() else job.records.parent)
    out, summaries = _out(job), {}
    out.mkdir(parents=True, exist_ok=True)
    for split, shards in splits.items():
        total, found = Report(), {}
        for path, report in zip(shards, _inspect_files(job, shards), strict=True):
            found[path] = report.records + len(report.damage)
            if promised.get(path, found[path]) != found[path]:
                report.damage.append(f"{path}: {found[path]} records found, {promised[path]} in dataset_info.json")
            total.merge(report)
        summaries[split] = total.summary()
        for number, record in enumerate(_evenly(found, job.pictures), start=1):
            with new_file(out / f"{split}-{number}.png") as file:
                draw_record(record).save(file, "PNG")
    with new_file(out / "inspect.json") as file:
        file.write(json.dumps(summaries, indent=1, ensure_ascii=False).encode() + b"\n")
    return summaries


def inspect_file(path: Path, truth: Path | None) -> Report:
    """Measure every record of a file; see `Inspect.truth`."""
    report = Report()
    try:
        for record in _read(path):
            if isinstance(record, Record):
                report.add(record, _truths(record, truth) if truth else [])
            else:
                report.damage.append(str(record))
    except OSError as error:  # from the disk; the rest of this file is lost
        report.damage.append(f"{path}: {error}")
    return report


def draw_record(record: Record) -> Image.Image:
    """Draw a record's partition, its object masks next to it if it has any, and a description below."""
    elements = Partition(record.label_map, *measure_elements(record.label_map, record.settings["num_elements"]))
    panels = [draw_partition(record.image, elements)]
    if len(record.object_masks):
        panels.append(draw_objects(record.image, record.object_masks))
    width, height = panels[0].size
    size, margin = 24, 12
    text = [
        *wrap(_ascii(f"{record.source_id}: {record.caption or 'no caption'}"), len(panels) * width * 2 // size - 4),
        f"{np.count_nonzero(elements.valid)} of {len(elements.valid)} elements (centroids in red), "
        f"{100 * elements.dropped:.2f} % dropped (magenta), {len(record.object_masks)} object masks",
    ]
    full_size = (len(panels) * (width + margin) - margin, height + len(text) * (size + 6) + 2 * margin)
    drawing = Image.new("RGB", full_size, "white")
    for number, panel in enumerate(panels):
        drawing.paste(panel, (number * (width + margin), 0))
    pen = ImageDraw.Draw(drawing)
    font = ImageFont.load_default(size)
    pen.multiline_text((margin, height + margin), "\n".join(text), "black", font, spacing=6)
    return drawing


def _ascii(text: str) -> str:
    """Reduce the text to letters of Pillow's own font: remove accents, and replace other characters by question
    marks."""
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return "".join(letters).encode("ascii", "replace").decode()


def _out(job: Inspect) -> Path:
    return job.out or (job.records if job.records.is_dir() else job.records.parent) / "inspect"


def _inspect_files(job: Inspect, paths: Sequence[Path]) -> Iterator[Report]:
    """Yield the report of every file, in order."""
    work = partial(inspect_file, truth=job.truth)
    progress = partial(tqdm, total=len(paths), desc="inspect", unit="file")
    if min(job.workers, len(paths)) < 2:
        yield from progress(map(work, paths))
        return
    with process_pool(job.workers) as pool:
        try:
            yield from progress(pool.map(work, paths))
        finally:
            pool.shutdown(cancel_futures=True)


def _read(path: Path, first: int = 0) -> Iterator[Record | ValueError]:
    """Yield the records of a file from `first` on, or the errors that name their damage."""
    for number, data in islice(enumerate(scan_tfrecord(path)), first, None):
        if isinstance(data, ValueError):
            yield data
            continue
        try:
            yield Record.from_example(data, f"{path} record {number}")
        except ValueError as error:
            yield error


def _truths(record: Record, folder: Path) -> list[Integer[np.ndarray, "H W"]]:
    base = folder / record.source_id
    found = (path for suffix in (".mat", ".png") if (path := base.with_suffix(suffix)).is_file())
    return [crop_labels(truth, len(record.image)) for path in found for truth in read_truths(path)]


def _promised(folder: Path) -> dict[Path, int]:
    """Return the number of records in each file by `dataset_info.json`, which reveals files cut between two records."""
    info = folder / "dataset_info.json"
    splits = json.loads(info.read_text())["splits"] if info.is_file() else []
    lengths = {split["name"]: split["shardLengths"] for split in splits}
    return {
        shard_path(folder, name, shard, len(shards)): int(length)
        for name, shards in lengths.items()
        for shard, length in enumerate(shards)
    }


def _evenly(found: dict[Path, int], count: int) -> Iterator[Record]:
    """Yield evenly spaced records over files of these lengths; for a damaged one, the next undamaged one of its
    file."""
    total, start = sum(found.values()), 0
    count = min(count, total)
    wanted = [i * total // count for i in range(count)]
    for path, length in found.items():
        for number in wanted:
            if start <= number < start + length:
                yield from islice((record for record in _read(path, number - start) if isinstance(record, Record)), 1)
        start += length


def _print(split: str, summary: dict[str, Any], truth: Path | None) -> None:
    statistics, damage = summary["statistics"], summary["damage"]
    print(f"{split}: {summary['records']} records" + (f", damage at {len(damage)} places" if damage else ""))
    for number, (name, columns) in enumerate(statistics.items()):
        if not number:
            print(f"  {'':34}" + "".join(f"{column:>11}" for column in columns))
        print(f"  {name.replace('_', ' '):34}" + "".join(f"{value:11.5g}" for value in columns.values()))
    for source_id, dropped in summary["most_dropped_percent"].items():
        print(f"  {dropped:.3g} % dropped in {source_id}")
    if truth and "boundary_recall" not in statistics:
        print(f"  no record has a truth in {truth}")
    _warn_of_settings(summary["settings"])
    for place in damage:
        print(f"  damaged: {place}")


def _warn_of_settings(settings: Sequence[dict[str, Any]]) -> None:
    """Print the differences if records were made with different settings."""
    if len(settings) < 2:
        return
    print(f"  warning: records were made with {len(settings)} different settings")
    names = sorted({name for each in settings for name in each["settings"]})
    differ = [name for name in names if len({json.dumps(each["settings"].get(name)) for each in settings}) > 1]
    for each in settings:
        print(f"    {each['records']} with " + ", ".join(f"{name} {each['settings'].get(name)}" for name in differ))
