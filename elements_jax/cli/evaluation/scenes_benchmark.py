"""`elements scenes-benchmark`: edits of held-out scenes by several methods, compared with the true edited scenes."""

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
    """Edit held-out scenes by several methods, and print how close each comes to the true edited scene.

    The scenes determine the edits: each scene gets a move, a resize, a deletion, a composition with the next scene, and
    a variation (an object in another colour); a photo scene gets a copy in place of the variation. Writes a results
    folder with scores.json. A mask specifies the object and the script uses the elements under it, so that records of
    different partitions can be compared on the same edits.
    """

    records: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RECORDS")]
    """Folder of records of `elements scenes` or `elements photo-scenes`, written by `elements partition`."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder for the results."""
    how: Annotated[MethodOptions, tyro.conf.arg(name="")]
    photographs: Annotated[Path | None, tyro.conf.arg(metavar="RECORDS")] = None
    """For photo scenes: the records given to `elements photo-scenes`."""
    split: str = "val"
    """Split of both kinds of records."""
    scenes: int | None = None
    """Number of scenes; by default all."""
    lpips: bool = True
    """Compute LPIPS; elements-jax[eval] installs its weights."""

    def __post_init__(self) -> None:
        require_within(self, scenes=COUNT)

    def run(self) -> None:
        """Run the missing edits, then score all methods of the folder."""
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
        print(f"Scores in {scene_scores.write(self.out, scores)}")


def main(argv: Sequence[str]) -> int:
    """Run the command. User errors print one line to stderr and exit with code 1."""
    return exit_code(lambda: parsed(ScenesBenchmark, argv, "elements scenes-benchmark").run())
