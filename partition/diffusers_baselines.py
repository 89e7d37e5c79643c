"""Run baselines of other authors on a results folder, with diffusers' PyTorch pipelines (Section 4.2, Appendix A).

    python -m partition.diffusers_baselines RESULTS --method instruct-pix2pix --weights FOLDER
    python -m partition.diffusers_baselines RESULTS --method paint-by-example --weights FOLDER

RESULTS is a folder that `elements compare --others` or `elements scenes-benchmark --others` wrote. FOLDER has the
method's weights in diffusers' layout, or names a repository on the Hugging Face hub. Images are scaled to the size at
which the model was trained, and back. diffusers has no pipeline for Self-Guidance: the input of its authors' code is in
RESULTS/needs/self-guidance.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import diffusers
import numpy as np
import torch
import tyro
from PIL import Image
from tqdm import tqdm
from transformers import CLIPImageProcessor, CLIPVisionConfig

from elements_jax.bounds import require_within
from elements_jax.cli.command import exit_code, parsed
from elements_jax.evaluation.results import Case, path_of, picture, read_cases, save

Method = Literal["instruct-pix2pix", "paint-by-example"]
Paint = Callable[[Any, Image.Image, torch.Generator], Image.Image]
"""Maps a pipeline, the image before the edit and a source of noise to the image after the edit."""


@dataclass(frozen=True)
class Baseline:
    """Run a method of other authors on the edits of a results folder; existing images are kept."""

    results: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RESULTS")]
    """Results folder; the method's folder is added to it."""
    method: Method
    weights: str
    """Folder in diffusers' layout, or the name of a repository on the Hugging Face hub."""
    steps: int | None = None
    """Steps of the sampler; by default the pipeline's own: 100 for InstructPix2Pix, 50 for Paint-by-Example."""
    guidance: float | None = None
    """Weight of the instruction, or of the example; by default the pipeline's own."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"

    def __post_init__(self) -> None:
        require_within(self, steps=(1, 1000), guidance=(-100, 100))

    def run(self) -> None:
        """Paint the missing images. Raises ValueError naming a case without the method's inputs."""
        cases = read_cases(self.results)
        paint = {"instruct-pix2pix": self._instruct, "paint-by-example": self._paint_by_example}[self.method]
        missing = [case for case in cases if not path_of(self.results, self.method, case).is_file()]
        plans = [paint(case) for case in missing]  # missing inputs are named before a model is loaded
        pipeline = self._open() if missing else None
        for case, plan in zip(tqdm(missing, desc=self.method, unit="image"), plans, strict=True):
            seed = case.script.seed if case.script is not None else 0
            image = Image.fromarray(picture(self.results, "input", case))
            painted = plan(pipeline, image, torch.Generator().manual_seed(seed))
            save(self.results, self.method, case, np.asarray(painted.resize(image.size, Image.Resampling.LANCZOS)))
        print(f"{len(missing)} of {len(cases)} images added to {self.results / self.method}")

    def _open(self) -> Any:
        if self.method == "paint-by-example":
            pipeline = _open_paint_by_example(self.weights)
        else:
            parts: dict[str, Any] = {
                "safety_checker": None,
                "requires_safety_checker": False,
            }  # it would blacken images
            pipeline = diffusers.StableDiffusionInstructPix2PixPipeline.from_pretrained(self.weights, **parts)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self.device)

    def _settings(self) -> dict[str, Any]:
        given = {"num_inference_steps": self.steps, "guidance_scale": self.guidance}
        return {name: value for name, value in given.items() if value is not None}

    def _instruct(self, case: Case) -> Paint:
        """Edit by the instruction, unchanged."""
        if not case.instruction:
            raise ValueError(f"case {case.name!r} has no instruction: InstructPix2Pix needs the edit in words")

        def paint(pipeline: Any, image: Image.Image, generator: torch.Generator) -> Image.Image:
            how = {"generator": generator, **self._settings()}
            return pipeline(case.instruction, _native(pipeline, image), **how).images[0]

        return paint

    def _paint_by_example(self, case: Case) -> Paint:
        """Paint source and target in turn, each with its example."""
        folder = self.results / "needs" / "paint-by-example" / case.name
        if not (folder / "steps.json").is_file():
            raise ValueError(
                f"{folder} is missing: run `elements compare` or `elements scenes-benchmark` with --others"
            )
        steps = json.loads((folder / "steps.json").read_text())

        def paint(pipeline: Any, image: Image.Image, generator: torch.Generator) -> Image.Image:
            image = _native(pipeline, image)
            for step in steps:
                mask = _native(pipeline, Image.open(folder / step["mask"]).convert("L"), Image.Resampling.NEAREST)
                example = Image.open(folder / step["example"]).convert("RGB").resize((224, 224))  # CLIP's size
                side = {"height": image.height, "width": image.width}
                how = {"generator": generator, **side, **self._settings()}
                image = pipeline(example_image=example, image=image, mask_image=mask, **how).images[0]
            return image

        return paint


def _open_paint_by_example(weights: str) -> Any:
    """Load part by part: diffusers moved the pipeline's image encoder, and no longer finds it by its published name."""
    pipeline = diffusers.PaintByExamplePipeline
    encoder = sys.modules[pipeline.__module__].PaintByExampleImageEncoder
    config = CLIPVisionConfig.from_pretrained(weights, subfolder="image_encoder")
    return pipeline(
        vae=diffusers.AutoencoderKL.from_pretrained(weights, subfolder="vae"),
        image_encoder=encoder.from_pretrained(weights, subfolder="image_encoder", config=config),
        unet=diffusers.UNet2DConditionModel.from_pretrained(weights, subfolder="unet"),
        scheduler=diffusers.DDIMScheduler.from_pretrained(weights, subfolder="scheduler"),
        safety_checker=None,
        feature_extractor=CLIPImageProcessor.from_pretrained(weights, subfolder="feature_extractor"),
        requires_safety_checker=False,
    )


def _native(pipeline: Any, image: Image.Image, how: Any = Image.Resampling.LANCZOS) -> Image.Image:
    """Resize the image to the size at which the model was trained."""
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    return image.resize((side, side), how)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. User errors print one line to stderr and exit with code 1."""
    return exit_code(lambda: parsed(Baseline, argv, "python -m partition.diffusers_baselines").run())


if __name__ == "__main__":
    sys.exit(main())
