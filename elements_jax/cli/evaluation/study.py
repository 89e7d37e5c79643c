"""`elements study make | analyse | grid`: the user study and the comparison grids of a results folder."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from elements_jax.bounds import SEED, require_within
from elements_jax.cli.command import exit_code, parsed
from elements_jax.data.atomic import new_file, require_apart
from elements_jax.evaluation.study.answers import read_answers, read_key

Results = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RESULTS")]
Out = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]


@dataclass(frozen=True)
class Make:
    """Write a two-alternative forced choice as a page of its own.

    OUT/page opens from the disk and from any web server, and asks no other host for anything. OUT/key.json tells which
    methods its pairs show: keep it from raters. Give each rater the address of a form, page/index.html?form=1 and on,
    each form as often as its neighbour; without, the page draws one. `&worker=ID` fills in who it is.
    """

    results: Results
    """Results folder (`elements_jax/evaluation/results.py`)."""
    out: Out
    """Folder to write, which is not there yet."""
    ours: str = "ours"
    """The method that is compared with the others."""
    baselines: tuple[str, ...] = ()
    """Those others, by default all that there are."""
    length: int = 40
    """The most cases that a form shows, each once."""
    checks: int = 4
    """Attention checks in a form, an even number."""
    seed: int = 0
    """Of sides, order and checks."""
    finish: str = "Send it to whoever gave you this page."
    """What raters are told to do with the file of their answers."""

    def __post_init__(self) -> None:
        require_within(self, length=(1, 10_000), checks=(0, 1000), seed=SEED)

    def run(self) -> None:
        """Write and say what was written."""
        from elements_jax.evaluation.study.make import make

        settings = {name: getattr(self, name) for name in ("ours", "baselines", "length", "checks", "seed", "finish")}
        key = make(self.results, self.out, **settings)
        lengths = sorted({len(form) for form in key.forms})
        pairs = " or ".join(map(str, lengths))
        print(f"{self.out / 'page' / 'index.html'}: study {key.study}, {len(key.forms)} forms of {pairs} pairs")
        print(f"{self.out / 'key.json'}: what they show; not for raters")


@dataclass(frozen=True)
class Analyse:
    """How often ours is preferred to each baseline, over all edits and by kind, with 95 % confidence intervals.

    Raters who fail attention checks are left out, and named.
    """

    key: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="KEY")]
    """The study's key.json."""
    answers: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ANSWERS")]
    """Files that raters sent back."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON to write, by default analysis.json next to the key."""
    failures: int = 0
    """Attention checks that a rater may fail."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        require_within(self, failures=(0, 1000), seed=SEED)

    def run(self) -> None:
        """Print the table and write it as JSON."""
        from elements_jax.evaluation.study.analysis import analyse, table

        out = self.out or self.key.with_name("analysis.json")
        require_apart(out, self.key, *self.answers)
        key = read_key(self.key)
        analysis = analyse(key, read_answers(self.answers, key), failures=self.failures, seed=self.seed)
        with new_file(out) as file:
            file.write(json.dumps(dataclasses.asdict(analysis), indent=1).encode() + b"\n")
        print(table(analysis))


@dataclass(frozen=True)
class Grid:
    """Draw comparison grids, as Figures 17 to 24: a row for each case; in columns the input, the edit, every method's
    result and, where it is known, the truth. Writes OUT/grid-01.png and on, and OUT/index.html."""

    results: Results
    """Results folder (`elements_jax/evaluation/results.py`)."""
    out: Out
    """Folder to write."""
    methods: tuple[str, ...] = ()
    """Methods in the order of their columns, by default all, ours first."""
    rows: int = 6
    """Cases in a picture."""
    cell: int = 256
    """Side of a picture's cell in pixels."""

    def __post_init__(self) -> None:
        require_within(self, rows=(1, 1000), cell=(16, 4096))

    def run(self) -> None:
        """Draw and say where."""
        from elements_jax.evaluation.grids import write_grids

        print(write_grids(self.results, self.out, methods=self.methods, rows=self.rows, cell=self.cell))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Errors of the user's making end with one line on stderr and exit code 1."""
    return exit_code(lambda: parsed(Make | Analyse | Grid, argv, "elements study").run())


if __name__ == "__main__":
    sys.exit(main())
