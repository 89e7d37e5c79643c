"""`make demo`: the complete method on two CPU cores, from photographs to edited images and a report.

Every step except the report's images is a command of this project, printed and run as a user would run it.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from PIL import Image, ImageDraw

from elements_jax import TINY
from elements_jax.bounds import COUNT, require_within
from elements_jax.cli.command import parsed, run_to_end
from elements_jax.data.atomic import new_file
from elements_jax.parallel.xla_flags import prefer_own_convolutions

STAGES = ("vae", "autoencoder", "diffusion")
EDITS = {
    "astronaut": {"edit": "delete", "object": {"mask": "badge-mask.png"}},
    "coffee": {"edit": "resize", "object": {"box": [0.52, 0.55, 0.70, 0.82]}, "scale": 0.6},  # the spoon
    "rocket": {"edit": "duplicate", "object": {"mask": "rocket-mask.png"}, "by": [-0.05, 0.0]},
}
"""Edits of photographs that scikit-image includes."""
BADGE = (122, 340, 218, 440)
"""Box of the ellipse that covers the astronaut's badge and the tape around it, in pixels."""
ROCKET = (
    *((323, 126), (326, 130), (330, 135), (333, 142), (334, 177), (336, 180), (335, 200), (335, 320), (336, 340)),
    *((336, 407), (308, 407), (308, 355), (310, 340), (309, 189), (308, 160), (311, 142), (314, 135), (318, 130)),
)
"""Corners of the polygon that covers the rocket and the tower behind it, in pixels."""


@dataclass(frozen=True)
class Demo:
    """Edit photographs and held-out scenes, train briefly, and write a report."""

    out: tyro.conf.Positional[Path]
    """Folder for everything; the finished steps of an interrupted run are reused."""
    model: Path = TINY
    """Model to edit scenes with; by default the bundled tiny model."""
    full: bool = False
    """Train `tiny` on scenes for the full length of its preset, which takes hours, and edit with the result."""
    sam: Path = Path(os.environ.get("ELEMENTS_DATA", "../shared"), "weights", "mobile_sam.pt")
    """Checkpoint of SAM or MobileSAM for the photographs; without one, colour finds objects, and SLIC segments."""
    held_out: int = 8
    """Number of scenes to edit."""
    steps: int = 10
    """Training steps per stage, unless training is full length."""

    def __post_init__(self) -> None:
        require_within(self, held_out=COUNT, steps=COUNT)

    def run(self) -> None:
        """Run every step that is not done yet."""
        started = time.monotonic()
        with ThreadPoolExecutor(1) as other_core:  # training mostly compiles, which keeps one core busy
            beside = [other_core.submit(step) for step in (self.edit_photographs, self.partition_photographs)]
            self.make_records()
            trained = self.train()
        for step in beside:
            step.result()
        prefer_own_convolutions()
        from elements_jax.cli.demo_report import write_report  # after training: JAX takes memory

        model = trained if self.full else self.model
        index = write_report(self.out / "report", model, self.out)
        print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes. Open {index}")
        if not self.full:
            print(f"Its scenes were edited by {model}; {trained} only shows that training runs.")

    def edit_photographs(self) -> None:
        """Edit complete photographs, at their own size."""
        edits = self.out / "edits"
        save_mask(edits / "badge-mask.png", (512, 512), lambda draw: draw.ellipse(BADGE, fill=255))
        save_mask(edits / "rocket-mask.png", (640, 427), lambda draw: draw.polygon(ROCKET, fill=255))
        found = ["--segmenter", "slic", *(["--checkpoint", self.sam] if self.sam.is_file() else [])]
        for name, edit in EDITS.items():
            photo, script = save_photograph(edits, name), edits / f"{name}.json"
            script.write_text(json.dumps({"version": 1, "edits": [edit]}))
            elements("edit", photo, "--script", script, "--out", edits / f"{name}-edited.png", *found, live=False)

    def partition_photographs(self) -> None:
        """Partition photographs that scikit-image includes, at the size of `photo`."""
        photos, records = self.out / "photo", self.out / "photo-records"
        for name in ("astronaut", "chelsea", "coffee"):
            save_photograph(photos, name)
        segmenter = ["sam", "--checkpoint", self.sam] if self.sam.is_file() else ["slic"]
        if not (records / "dataset_info.json").is_file():
            job = ["--segmenter", *segmenter, "--size", 256, "--image-format", "png"]
            elements("partition", photos, records, *job, live=False)
            elements("partition", "inspect", records, live=False)

    def make_records(self) -> None:
        """Write records of scenes for training, and of others to edit."""
        for split, first, count in (("train", 0, 16_000 if self.full else 400), ("val", 1_000_000, self.held_out)):
            pictures = self.out / "scenes" / split
            if not (self.out / "records" / f"partition-{split}.json").is_file():
                elements("scenes", pictures, "--first", first, "--count", count)
                slic = ["--segmenter", "slic", "--compactness", 40, "--size", 64, "--grid", 8]
                job = ["--masks", pictures / "masks", "--split", split, "--overwrite", "--image-format", "png"]
                elements("partition", pictures, self.out / "records", *slic, *job)

    def train(self) -> Path:
        """Train VAE, stage 1 and stage 2 of `tiny` from scratch."""
        model, steps = self.out / "model", self.steps
        short = ["--train.steps", steps, "--train.sample-every", steps, "--train.warmup", steps // 10]
        for stage in STAGES:
            command = ["train", stage, "tiny", "--data", self.out / "records", "--model", model]
            elements(*command, *([] if self.full else short))
        return model


def save_photograph(folder: Path, name: str) -> Path:
    """Write a photograph that scikit-image includes into a folder, and return its path."""
    import skimage.data

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    with new_file(path) as file:
        Image.fromarray(getattr(skimage.data, name)()).save(file, "PNG")
    return path


def save_mask(path: Path, size: tuple[int, int], paint: Callable[[ImageDraw.ImageDraw], None]) -> None:
    """Write a mask of this width and height, with what `paint` draws in white."""
    mask = Image.new("L", size)
    paint(ImageDraw.Draw(mask))
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        mask.save(file, "PNG")


def elements(*command: object, live: bool = True) -> None:
    """Run an `elements` command, and show what it prints: as it comes if `live`, else when it has ended.

    Raises CalledProcessError if it fails.
    """
    words = [str(word) for word in command]
    shown = f"\n$ elements {shlex.join(words)}"
    if live:
        print(shown, flush=True)
    pipes: dict[str, Any] = {} if live else {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([sys.executable, "-m", "elements_jax.cli", *words], **pipes)
    if not live:
        print(f"{shown}\n{done.stdout}", end="", flush=True)
    done.check_returncode()


if __name__ == "__main__":
    try:
        sys.exit(run_to_end(lambda: parsed(Demo, None, "python -m elements_jax.cli.demo").run()))
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
