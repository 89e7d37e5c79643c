"""`elements scenes-benchmark`: edits of held-out scenes by several methods, against the true edited scenes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from elements_jax.bounds import COUNT, require_within
from elements_jax.cli.command import exit_code, parsed
from elements_jax.cli.evaluation.compare import MethodOptions


@dataclass(frozen=True)
class ScenesBenchmark:
    """Edit held-out scenes by several methods, and print how near each comes to the true edited scene.

    The edits follow from the scenes: of each a move, a resize, a deletion, a composition with the next, and a variation
    (an object in another colour); of photo scenes a copy instead of a variation. Writes a results folder, and
    scores.json in it. The object is given by its mask, and the script takes the elements under it, so that records of
    any partition can be compared on the same edits.
    """

    records: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RECORDS")]
    """Folder of records of `elements scenes` or `elements photo-scenes`, as `elements partition` writes it."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder for the results."""
    how: Annotated[MethodOptions, tyro.conf.arg(name="")]
    photographs: Annotated[Path | None, tyro.conf.arg(metavar="RECORDS")] = None
    """For photo scenes: the records that `elements photo-scenes` made them of."""
    split: str = "val"
    """Of the records, and of the photographs'."""
    scenes: int | None = None
    """How many of them; by default all."""
    lpips: bool = True
    """Compute LPIPS, whose weights come with elements-jax[eval]."""

    def __post_init__(self) -> None:
        require_within(self, scenes=COUNT)

    def run(self) -> None:
        """Run what is missing, then score all methods of the folder."""
        from elements_jax.data.index import read_split
        from elements_jax.evaluation.scenes import scores as scene_scores
        from elements_jax.evaluation.scenes.drawn_cases import identity, scene_cases
        from elements_jax.metrics.lpips import LPIPS

        lpips = LPIPS("alex") if self.lpips else None
        records = dict(itertools.islice(read_split(self.records, self.split).items(), self.scenes))
        shown = list(records.values())
        if self.photographs is None:
            tasks = list(scene_cases(shown))
        else:
            from elements_jax.evaluation.scenes.photographic_cases import photo_scene_cases

            tasks = list(photo_scene_cases(shown, list(read_split(self.photographs, self.split).values())))
        self.how.run(self.out, tasks, records, identity(shown))
        scores = scene_scores.score(self.out, lpips)
        print(scene_scores.as_text(scores))
        print(f"Figures in {scene_scores.write(self.out, scores)}")


def main(argv: Sequence[str]) -> int:
    """Run the command. Errors of the user's making end with one line on stderr and exit code 1."""
    return exit_code(lambda: parsed(ScenesBenchmark, argv, "elements scenes-benchmark").run())
