"""The compared methods: functions from prepared cases to images, all driven by the same edit scripts."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from elements_jax.data.record import Record
from elements_jax.editing import edits
from elements_jax.editing.apply import Edited, apply_script
from elements_jax.editing.drawing import edit_dots
from elements_jax.editing.edits import Canvas, stack
from elements_jax.editing.script import EditScript, Sampling
from elements_jax.evaluation.methods.pixel_editing import PixelEdit, pixel_edit
from elements_jax.evaluation.methods.stable_diffusion import StableDiffusion, skipped_steps
from elements_jax.evaluation.results import Task
from elements_jax.pipeline.pipeline import ElementsPipeline
from elements_jax.pipeline.session import decode_arguments

Picture = UInt8[np.ndarray, "H W 3"]
SDEDIT = re.compile(r"sdedit-(0\.\d+|1\.0|1)")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case, with the inputs of the methods."""

    task: Task
    edited: Edited
    """The result of the script on the elements."""
    pixels: PixelEdit
    """The result of the script on their pixels."""

    @property
    def script(self) -> EditScript:
        assert self.task.case.script is not None
        return self.task.case.script

    @property
    def image(self) -> Picture:
        """The image before the edit."""
        return np.asarray(self.edited.reference.picture)

    @property
    def region(self) -> Bool[np.ndarray, "H W"]:
        """Where the image may change: given by the task, or where elements changed."""
        if self.task.region is not None:
            return self.task.region
        return np.asarray(edits.edited_region(self.edited.reference, self.edited.canvas))

    def drawing(self) -> Picture:
        """The edit in red and green dots."""
        return edit_dots(self.image, self.edited.reference.elements, self.edited.canvas.elements)


def canvas_of(pipeline: ElementsPipeline, record: Record) -> Canvas:
    """Return a record's elements and image as a canvas."""
    return dataclasses.replace(pipeline.encode(record.image, record.label_map), picture=jnp.asarray(record.image))


def prepare(task: Task, open_canvas: Callable[[str], Canvas]) -> Prepared:
    """Run a case's script; `open_canvas` returns the canvas of a source_id. Raises EditError like `apply_script`."""
    if task.case.script is None:
        raise ValueError(f"case {task.case.name!r} has no edit script")

    def open_image(name: str, _: Any) -> Canvas:
        return open_canvas(name)

    canvas = open_canvas(task.case.source_id)
    edited = apply_script(task.case.script, canvas, open_image)
    return Prepared(task, edited, pixel_edit(task.case.script, canvas, open_image))


@dataclass(frozen=True)
class Method:
    """A function from a full batch of prepared cases to images."""

    run: Callable[[Sequence[Prepared]], Sequence[Picture]]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Everything that determines its images, besides the cases."""


def make_methods(
    names: Sequence[str],
    pipeline: ElementsPipeline,
    model: str,
    sampling: Sampling,
    stable_diffusion: str | None,
    inpainting: str | None,
) -> dict[str, Method]:
    """Build methods by name.

    Args:
        model: name of the pipeline's model in settings.
        sampling: settings of ours; SDEdit and inpainting use only its number of steps, and sample with DDIM.
        stable_diffusion: model of SDEdit, as for `model_folder.read_model`; by default the pipeline's own model
            without elements.
        inpainting: Stable Diffusion Inpainting.

    Raises ValueError for an unknown name or a missing model, and the errors of `read_model`.
    """
    made, painter = dict[str, Method](), None
    for name in names:
        if strength := SDEDIT.fullmatch(name):
            if painter is None:
                painter = _painter(pipeline, model, sampling, stable_diffusion)
            made[name] = _sdedit(*painter, float(strength[1]))
        elif name == "ours":
            made[name] = _ours(pipeline, model, sampling)
        elif name == "pixels":
            made[name] = Method(lambda cases: [case.pixels.picture for case in cases])
        elif name == "sd-inpaint":
            made[name] = _inpaint(inpainting, sampling)
        else:
            known = "ours, pixels, sdedit-S (with a strength S like 0.5), sd-inpaint"
            raise ValueError(f"unknown method {name!r}: expected {known}")
    return made


def _ours(pipeline: ElementsPipeline, model: str, sampling: Sampling) -> Method:
    def run(cases: Sequence[Prepared]) -> Sequence[Picture]:
        return list(
            pipeline.decode_batch(
                stack([case.edited.canvas for case in cases]).elements,
                [case.script.prompt for case in cases],
                seeds=[case.script.seed for case in cases],
                negative_prompts=[case.script.negative_prompt for case in cases],
                **decode_arguments(sampling, pipeline.config.diffusion),
            )
        )

    settings = {"model": model, "weights": pipeline.checksum(), **sampling.settings(pipeline.config.diffusion)}
    return Method(run, settings)


def _painter(
    pipeline: ElementsPipeline, model: str, sampling: Sampling, source: str | None
) -> tuple[StableDiffusion, dict[str, Any]]:
    if source is None:
        painter = StableDiffusion.of_pipeline(pipeline, steps=sampling.steps)
        return painter, {"model": model, "elements": "none", **painter.settings}
    painter = StableDiffusion.from_pretrained(source, steps=sampling.steps)
    if painter.inpaints:
        raise ValueError(f"{source} is Stable Diffusion Inpainting; SDEdit needs the text-to-image model")
    return painter, {"model": source, **painter.settings}


def _sdedit(painter: StableDiffusion, settings: Mapping[str, Any], strength: float) -> Method:
    skipped_steps(painter.steps, strength)  # rejects a strength without steps before anything is computed

    def run(cases: Sequence[Prepared]) -> Sequence[Picture]:
        return list(painter.sdedit(np.stack([case.pixels.blanked for case in cases]), *_words(cases), strength))

    return Method(run, {**settings, "strength": strength})


def _inpaint(source: str | None, sampling: Sampling) -> Method:
    if source is None:
        raise ValueError(
            "sd-inpaint needs Stable Diffusion Inpainting, whose UNet has 9 input channels: pass it with --inpaint"
        )
    painter = StableDiffusion.from_pretrained(source, steps=sampling.steps)
    if not painter.inpaints:
        raise ValueError(f"{source} is not Stable Diffusion Inpainting: its UNet has no channels for a masked image")

    def run(cases: Sequence[Prepared]) -> Sequence[Picture]:
        masks = np.stack([case.pixels.closed_hole() for case in cases])
        return list(painter.inpaint(np.stack([case.pixels.picture for case in cases]), masks, *_words(cases)))

    return Method(run, {"model": source, **painter.settings})


def _words(cases: Sequence[Prepared]) -> tuple[list[str], list[str], list[int]]:
    scripts = [case.script for case in cases]
    return [s.prompt for s in scripts], [s.negative_prompt for s in scripts], [s.seed for s in scripts]
