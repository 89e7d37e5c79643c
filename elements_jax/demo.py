"""`make demo`: the whole method on two CPU cores, from photographs to edited pictures and a report.

Every step but the pictures of the report is a command of this project, run as a user would and printed as it runs.
"""

import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from PIL import Image

from elements_jax.cpu import prefer_own_convolutions


@dataclass(frozen=True)
class Demo:
    """Partition photographs, train `tiny` on synthetic scenes, edit held-out scenes and photographs, write a report."""

    out: tyro.conf.Positional[Path]
    """Folder for everything; what a run that was cut short left there is used again."""
    model: Path | None = None
    """A trained model folder to use instead of training one."""
    sam: Path = Path(os.environ.get("ELEMENTS_DATA", "../shared"), "weights", "mobile_sam.pt")
    """Checkpoint of SAM or MobileSAM for the photographs; SLIC divides them where it is absent."""
    scenes: int = 3000
    """Scenes to train on."""
    held_out: int = 12
    """Scenes to edit."""
    vae_steps: int = 200
    autoencoder_steps: int = 350
    diffusion_steps: int = 450

    def run(self) -> None:
        """Run every step that is not done yet."""
        started = time.monotonic()
        self.partition_photographs()
        self.make_records()
        model = self.model or self.train()
        prefer_own_convolutions()
        from elements_jax.report import write_report  # after training: JAX would take memory in this process

        index = write_report(self.out / "report", model, self.out / "records", self.out / "photos-records")
        print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes. Open {index}")
        if self.model is None:
            print("Trained for minutes, a model paints blobs on a background; README's figures are of a longer run.")

    def partition_photographs(self) -> None:
        """Photographs that ship inside scikit-image, divided at the paper's size and at tiny's."""
        import skimage.data

        photos = self.out / "photos"
        photos.mkdir(parents=True, exist_ok=True)
        for name in ("astronaut", "chelsea", "coffee"):
            Image.fromarray(getattr(skimage.data, name)()).save(photos / f"{name}.png")
        segmenter = (
            ["--segmenter", "sam", "--checkpoint", str(self.sam)] if self.sam.is_file() else ["--segmenter", "slic"]
        )
        for folder, size, grid in (("photos-512", 512, 16), ("photos-records", 64, 8)):
            if not (self.out / folder / "dataset_info.json").is_file():
                size_of = ["--size", str(size), "--grid", str(grid), "--image-format", "png"]
                elements("partition", photos, self.out / folder, *segmenter, *size_of)
                elements("partition", "inspect", self.out / folder)

    def make_records(self) -> None:
        """Scenes for training, and others to be edited."""
        for split, first, count in (("train", 0, self.scenes), ("val", 1_000_000, self.held_out)):
            pictures = self.out / "scenes" / split
            if not (self.out / "records" / f"partition-{split}.json").is_file():
                elements("scenes", pictures, "--first", first, "--count", count)
                slic = ["--segmenter", "slic", "--compactness", 40, "--size", 64, "--grid", 8]
                job = ["--masks", pictures / "masks", "--split", split, "--overwrite", "--image-format", "png"]
                elements("partition", pictures, self.out / "records", *slic, *job)

    def train(self) -> Path:
        """VAE, stage 1 and stage 2 of `tiny`, from random weights."""
        model = self.out / "model"
        for stage, steps in {
            "vae": self.vae_steps,
            "autoencoder": self.autoencoder_steps,
            "diffusion": self.diffusion_steps,
        }.items():
            settings = ["--train.steps", steps, "--train.sample-every", steps, "--train.checkpoint-every", steps]
            settings += ["--train.warmup", steps // 10]
            elements("train", stage, "tiny", "--data", self.out / "records", "--model", model, *settings)
        return model


def elements(*command: object) -> None:
    """Run an `elements` command. Ends the demo when it fails."""
    words = [str(word) for word in command]
    print(f"\n$ elements {shlex.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "elements_jax.cli", *words], check=True)


if __name__ == "__main__":
    try:
        tyro.cli(Demo).run()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
