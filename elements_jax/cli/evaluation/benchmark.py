"""`elements benchmark objmove-a | geobench-2d`: runs a public benchmark and writes the files that its scorer reads."""

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from jaxtyping import UInt8
from PIL import ExifTags, Image
from tqdm import tqdm

from elements_jax.bounds import COUNT, SEED, require_within
from elements_jax.cli.command import exit_code, parsed
from elements_jax.cli.photos import DEFAULT_SOURCE, PhotoSegmenter, SegmenterOptions, open_photo
from elements_jax.data.atomic import new_file
from elements_jax.data.lock import locked
from elements_jax.editing.script import DEFAULT_SAMPLING, EditScript, Sampling

if TYPE_CHECKING:
    from elements_jax.data.photo import Photo
    from elements_jax.editing.apply import Edited
    from elements_jax.evaluation.public.datasets import Task
    from elements_jax.pipeline.session import EditSession

SETTINGS = "settings.json"
"""File next to the results that records how they were made."""

SHOWN = 10
"""Number of failures listed on the terminal."""

Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
Out = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]


@dataclass(frozen=True)
class Options:
    """How the edits are made."""

    model: Annotated[str, tyro.conf.arg(metavar="MODEL")]
    """Model folder, or name of a repository on the Hugging Face hub."""
    batch_size: int = 1
    """Images decoded at once."""
    limit: int | None = None
    """Number of edits to run, from the first; by default all."""
    seed: int = 0
    """Seed of the noise of every edit."""
    preserve: bool = False
    """Keep the pixels outside the edited region, as in `elements edit`."""
    source: Annotated[SegmenterOptions, tyro.conf.arg(name="")] = DEFAULT_SOURCE
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = DEFAULT_SAMPLING

    def __post_init__(self) -> None:
        require_within(self, batch_size=COUNT, limit=COUNT, seed=SEED)
        self.sampling.checked()


@dataclass(frozen=True)
class ObjmoveA:
    """Move the objects of ObjMove-A into their target boxes, and write OUT/real_001_result.png and so on.

    Run the same command again to resume. `elements_jax/evaluation/public/datasets.py` documents where to find the
    dataset and its scorer, and which files are read.
    """

    folder: Folder
    """Folder of ObjMove-A, with real_001 and so on."""
    out: Out
    """Folder for the results."""
    options: Annotated[Options, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Run all tasks."""
        from elements_jax.evaluation.public.datasets import objmove_a

        run(objmove_a(self.folder), self.out, self.options)


@dataclass(frozen=True)
class Geobench2d:
    """Run GeoBench-2D's moves and resizes, and write the images and OUT/generated_results_elements_2d.json.

    Run the same command again to resume. Rotations are skipped: image elements do not rotate.
    `elements_jax/evaluation/public/datasets.py` documents where to find the dataset and its scorer, and which files
    are read.
    """

    folder: Folder
    """Folder GeoBenchMeta, with annotation_2d.json."""
    out: Out
    """Folder for the results."""
    options: Annotated[Options, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Run all moves and resizes."""
        from elements_jax.evaluation.public.datasets import geobench_2d, write_geobench_report

        tasks, others = geobench_2d(self.folder)
        print(f"{len(tasks)} moves and resizes; {others} other edits are skipped")
        run(tasks, self.out, self.options)
        print(f"{write_geobench_report(self.folder, self.out)}: input of the scorer")


Benchmark = (
    Annotated[ObjmoveA, tyro.conf.subcommand("objmove-a")] | Annotated[Geobench2d, tyro.conf.subcommand("geobench-2d")]
)


def run(tasks: Sequence["Task"], out: Path, options: Options) -> None:
    """Run the tasks without results. Raises ValueError if none succeeds."""
    from elements_jax.pipeline.pipeline import ElementsPipeline
    from elements_jax.pipeline.session import EditSession

    pipeline = ElementsPipeline.from_pretrained(options.model)
    editing = EditSession(pipeline, PhotoSegmenter(pipeline.config.elements, options.source), options.source.chosen)
    with locked(out, "elements benchmark"):
        keep_settings(out, options, pipeline.checksum())
        _run(tasks, out, options, editing)


def _run(tasks: Sequence["Task"], out: Path, options: Options, editing: "EditSession") -> None:
    print(f"photographs are segmented by {options.source.chosen}")
    failed: list[str] = []
    missing = [task for task in tasks[: options.limit] if not (out / task.result).is_file()]
    ready = prepared(missing, editing, options, failed)
    with tqdm(total=len(missing), desc="edits", unit="edit") as bar:
        while batch := list(itertools.islice(ready, options.batch_size)):
            for job, picture in zip(batch, decode(batch, editing, options.batch_size), strict=True):
                write(out / job.task.result, fitted(picture, job))
            bar.update(len(batch))
    there = len(tasks[: options.limit]) - len(missing)
    print(f"{len(missing) - len(failed)} results written to {out}; {there} existed")
    if failed:
        print(f"{len(failed)} edits failed:", *failed[:SHOWN], sep="\n  ")
        if len(failed) == len(missing):
            raise ValueError(f"all {len(missing)} edits failed")


def keep_settings(out: Path, options: Options, weights: str) -> None:
    """Record how the results are made. Raises ValueError if existing results were made with other settings."""
    settings = {
        "weights": weights,
        "segmenter": options.source.chosen,
        "seed": options.seed,
        "preserve": options.preserve,
        "sampling": asdict(options.sampling),
    }
    path = out / SETTINGS
    if path.is_file():
        if (before := json.loads(path.read_bytes())) != settings:
            changed = [name for name in settings if before.get(name) != settings[name]]
            raise ValueError(
                f"{out}: contains results made with other settings ({', '.join(changed)}); choose another folder"
            )
        return
    out.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        file.write(json.dumps(settings, indent=1).encode() + b"\n")


@dataclass(frozen=True)
class Job:
    """A task whose edit is done and whose image is not decoded yet."""

    task: "Task"
    photo: "Photo"
    size: tuple[int, int]
    """Width and height of the photograph."""
    script: EditScript
    edited: "Edited"


def prepared(tasks: Sequence["Task"], editing: "EditSession", options: Options, failed: list[str]) -> Iterator[Job]:
    """Yield the edit of every task; failures and their reasons are appended to `failed`."""

    @lru_cache(maxsize=1)  # edits of a photograph are consecutive, and segmenting it takes seconds
    def opened(path: Path) -> tuple["Photo", tuple[int, int]]:
        photo = open_photo(editing, path, "pad")
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return photo, (image.height, image.width) if turned else image.size

    for task in tasks:
        try:
            yield prepare(task, *opened(task.photograph), editing, options)
        except (OSError, ValueError) as error:
            failed.append(f"{task.name}: {error}")


def prepare(task: "Task", photo: "Photo", size: tuple[int, int], editing: "EditSession", options: Options) -> Job:
    """Edit the photo's elements as the task says. Raises ValueError that names the file or field, or OSError."""
    from elements_jax.evaluation.public.datasets import edits_of, read_mask, under

    mask = read_mask(task.mask)
    height, width = mask.shape
    if abs(width * size[1] - height * size[0]) > 0.01 * width * size[1]:
        raise ValueError(f"{task.mask}: {width} x {height} does not match the photograph's {size[0]} x {size[1]}")
    elements = under(mask, photo.label_map, photo.box)
    edits = edits_of(task.motion(mask), elements, photo.box, len(photo.image))
    script = EditScript(edits, seed=options.seed, fit="pad", preserve=options.preserve, sampling=options.sampling)
    script = script.checked()
    return Job(task, photo, size, script, editing.edit(photo, script, lambda _: photo))


def decode(jobs: Sequence[Job], editing: "EditSession", batch_size: int) -> UInt8[np.ndarray, "n S S 3"]:
    """Decode at most `batch_size` jobs with the same options; the batch is padded with its last job."""
    from elements_jax.diffusion.preserve import Preserve
    from elements_jax.editing.edits import edited_region, stack
    from elements_jax.parallel.sharding import pad_batch
    from elements_jax.pipeline.session import decode_arguments

    whole = pad_batch(jobs, batch_size)
    script = jobs[0].script
    preserve = None
    if script.preserve:
        regions = [np.asarray(edited_region(job.edited.reference, job.edited.canvas)) for job in whole]
        preserve = Preserve(np.stack([job.photo.image for job in whole]), np.stack(regions))
    return editing.pipeline.decode_batch(
        stack([job.edited.canvas for job in whole]).elements,
        [job.script.prompt for job in whole],
        seeds=[job.script.seed for job in whole],
        preserve=preserve,
        **decode_arguments(script.sampling, editing.pipeline.config.diffusion),
    )[: len(jobs)]


def fitted(picture: UInt8[np.ndarray, "S S 3"], job: Job) -> Image.Image:
    """Remove the margins and resize to the size that the benchmark expects."""
    left, top, right, bottom = job.photo.box
    return Image.fromarray(picture[top:bottom, left:right]).resize(job.task.size or job.size, Image.Resampling.LANCZOS)


def write(path: Path, picture: Image.Image) -> None:
    """Write a PNG atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        picture.save(file, "PNG")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. User errors print one line to stderr and exit with code 1."""
    return exit_code(lambda: parsed(Benchmark, argv, "elements benchmark").run())


if __name__ == "__main__":
    sys.exit(main())
