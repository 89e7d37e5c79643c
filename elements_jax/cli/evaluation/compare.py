"""`elements compare`: run several methods on the same edit scripts and write a results folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from elements_jax.bounds import COUNT, require_within
from elements_jax.cli.command import exit_code, parsed
from elements_jax.editing.script import DEFAULT_SAMPLING, Sampling

if TYPE_CHECKING:
    from elements_jax.data.record import Record
    from elements_jax.evaluation.results import Task

Folder = Annotated[str | None, tyro.conf.arg(metavar="MODEL")]
SHOWN = 10
"""Number of failures listed on the terminal."""


@dataclass(frozen=True)
class MethodOptions:
    """The methods and their models."""

    model: Annotated[str, tyro.conf.arg(metavar="MODEL")]
    """Model folder, or name of a repository on the Hugging Face hub; the scripts refer to its elements."""
    methods: tuple[str, ...] = ("ours", "pixels", "sdedit-0.5", "sdedit-0.7", "sdedit-0.9")
    """ours; pixels, which copies elements' pixels and leaves the source; sdedit-S, the same with the source blanked,
    noised to strength S and denoised; sd-inpaint, the same with the holes inpainted."""
    sd: Folder = None
    """Stable Diffusion for SDEdit, in diffusers' layout or as its single file; by default MODEL without elements, as in
    training with dropped elements."""
    inpaint: Folder = None
    """Stable Diffusion Inpainting for sd-inpaint, in diffusers' layout."""
    others: bool = False
    """Also write the inputs of Paint-by-Example and Self-Guidance to OUT/needs: `python -m
    partition.diffusers_baselines` runs external methods on a results folder."""
    batch_size: int = 4
    """Images decoded at once."""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = DEFAULT_SAMPLING

    def __post_init__(self) -> None:
        require_within(self, batch_size=COUNT)
        self.sampling.checked()

    def run(self, out: Path, tasks: "Sequence[Task]", records: "Mapping[str, Record]", identity: str) -> None:
        """Write a results folder.

        Raises the errors of `run.run` and `make_methods`, and ValueError if every case fails.
        """
        from elements_jax.evaluation.methods.method import make_methods
        from elements_jax.evaluation.run import run
        from elements_jax.pipeline.pipeline import ElementsPipeline

        pipeline = ElementsPipeline.from_pretrained(self.model)
        methods = make_methods(self.methods, pipeline, self.model, self.sampling, self.sd, self.inpaint)
        failures = run(out, tasks, methods, pipeline, records, identity, self.batch_size, self.others)
        print(f"{len(tasks) - len(failures)} edits by {', '.join(methods)} in {out}")
        if failures:
            print(f"{len(failures)} edits failed and are skipped:")
            for failure in failures[:SHOWN]:
                print(f"  {failure.name}: {failure.reason}")
            if len(failures) == len(tasks):
                raise ValueError("all edits failed")


@dataclass(frozen=True)
class Compare:
    """Run several methods on the same edit scripts, and write their images as a results folder.

    Metrics, grids and the user study are computed from that folder (see `elements_jax/evaluation/results.py`).
    Existing results are kept: the same command resumes an interrupted run, and methods can be added.
    """

    records: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RECORDS")]
    """Folder of records written by `elements partition`."""
    scripts: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCRIPTS")]
    """JSON Lines as for `elements batch`: each line is an edit script plus `source_id`, `name` and, for people and
    methods that need the edit in words, `instruction`."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder for the results."""
    how: Annotated[MethodOptions, tyro.conf.arg(name="")]

    def run(self) -> None:
        """Check the scripts, then run the missing edits."""
        from elements_jax.data.index import RecordIndex
        from elements_jax.editing.script_list import ScriptLines
        from elements_jax.evaluation.run import task_of

        records = RecordIndex(self.records)
        lines = ScriptLines(self.scripts, records)
        tasks = [task_of(line) for line in lines.read(range(len(lines)))]
        self.how.run(self.out, tasks, records, records.identity)


def main(argv: Sequence[str]) -> int:
    """Run the command. User errors print one line to stderr and exit with code 1."""
    return exit_code(lambda: parsed(Compare, argv, "elements compare").run())
