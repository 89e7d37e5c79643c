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
    """Write a two-alternative forced choice study as a self-contained page.

    OUT/page opens from disk and from any web server, and contacts no other host. OUT/key.json says which methods each
    pair shows: keep it from raters. Give each rater the address of a form, page/index.html?form=1 and so on, and
    use all forms equally often; without `form` the page picks one at random. `&worker=ID` fills in the rater's ID.
    """

    results: Results
    """Results folder (`elements_jax/evaluation/results.py`)."""
    out: Out
    """Folder to write; it must not exist."""
    ours: str = "ours"
    """Method that is compared with the others."""
    baselines: tuple[str, ...] = ()
    """The other methods; by default all."""
    length: int = 40
    """Maximum number of cases in a form, each shown once."""
    checks: int = 4
    """Attention checks per form, an even number."""
    seed: int = 0
    """Seed of sides, order and checks."""
    finish: str = "Send it to whoever gave you this page."
    """Instruction to raters about the file of their answers."""

    def __post_init__(self) -> None:
        require_within(self, length=(1, 10_000), checks=(0, 1000), seed=SEED)

    def run(self) -> None:
        """Write the study and print its paths."""
        from elements_jax.evaluation.study.make import make

        settings = {name: getattr(self, name) for name in ("ours", "baselines", "length", "checks", "seed", "finish")}
        key = make(self.results, self.out, **settings)
        lengths = sorted({len(form) for form in key.forms})
        pairs = " or ".join(map(str, lengths))
        print(f"{self.out / 'page' / 'index.html'}: study {key.study}, {len(key.forms)} forms of {pairs} pairs")
        print(f"{self.out / 'key.json'}: the methods shown; not for raters")


@dataclass(frozen=True)
class Analyse:
    """Compute how often ours is preferred to each baseline, overall and by kind of edit, with 95 % intervals.

    Raters who fail attention checks are excluded and listed.
    """

    key: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="KEY")]
    """The study's key.json."""
    answers: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ANSWERS")]
    """Files of answers from the raters."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON file to write; by default analysis.json next to the key."""
    failures: int = 0
    """Number of attention checks that a rater may fail."""
    seed: int = 0
    """Seed of the bootstrap."""

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
    """Draw comparison grids like Figures 17 to 24: one row per case, with columns for the input, the edit, the result
    of every method and, if known, the truth. Writes OUT/grid-01.png and so on, and OUT/index.html."""

    results: Results
    """Results folder (`elements_jax/evaluation/results.py`)."""
    out: Out
    """Folder to write."""
    methods: tuple[str, ...] = ()
    """Methods in column order; by default all, ours first."""
    rows: int = 6
    """Cases per image."""
    cell: int = 256
    """Size of a cell in pixels."""

    def __post_init__(self) -> None:
        require_within(self, rows=(1, 1000), cell=(16, 4096))

    def run(self) -> None:
        """Draw the grids and print their paths."""
        from elements_jax.evaluation.grids import write_grids

        print(write_grids(self.results, self.out, methods=self.methods, rows=self.rows, cell=self.cell))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. User errors print one line to stderr and exit with code 1."""
    return exit_code(lambda: parsed(Make | Analyse | Grid, argv, "elements study").run())


if __name__ == "__main__":
    sys.exit(main())
