"""How a flat picture in the mean colour of the input scores as the result of every edit: what a share is worth.

    python tests/benchmarks/flat_picture.py MODEL RECORDS

The baselines of the report leave the object where it was, so any picture without it is near the truth there.
"""

from pathlib import Path

import numpy as np
import tyro

from elements_jax.pipeline import ElementsPipeline
from elements_jax.report import read_records
from elements_jax.scene_edits import edit_cases, psnr, score


def main(model: tyro.conf.Positional[Path], records: tyro.conf.Positional[Path]) -> None:
    """Print a line for each kind of edit.

    Args:
        model: Model folder; its encoder alone is used.
        records: Folder of records of `scenes`, whose split `val` is edited.
    """
    cases = list(edit_cases(ElementsPipeline.from_pretrained(model), read_records(records, "val")))
    flat = [np.full_like(case.image, case.image.mean((0, 1)).astype(np.uint8)) for case in cases]
    for name, of_kind in score(cases, flat).items():
        print(f"{name:8} {of_kind.count:4}  won {of_kind.share_won:6.1%}  median error {of_kind.ours:.4f}")
    values = [psnr(picture, case.truth) for picture, case in zip(flat, cases, strict=True)]
    print(f"PSNR to the edited scene {np.mean(values):.2f} dB")


if __name__ == "__main__":
    tyro.cli(main)
