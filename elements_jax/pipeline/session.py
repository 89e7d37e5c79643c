"""An editing session: a model and a segmenter, with which edit scripts are run.

Both the command line and the editor run scripts with an `EditSession`, so that the same script gives the same bytes.
"""

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8

from elements_jax.config import DiffusionConfig
from elements_jax.data.photo import Photo
from elements_jax.data.record import DROPPED
from elements_jax.diffusion.preserve import Preserve
from elements_jax.diffusion.samplers import SAMPLERS
from elements_jax.editing.apply import Edited, apply_script
from elements_jax.editing.edits import Canvas, edited_region, stack
from elements_jax.editing.png import encode_png
from elements_jax.editing.script import EditError, EditScript, Fit, Sampling
from elements_jax.models.method import Cancelled as Cancelled
from elements_jax.pipeline.pipeline import ElementsPipeline

SMALLEST = 1 / 8
"""Minimum area of an element that fills a hole, relative to a grid cell: slivers would use up the slots."""


class EditSession:
    """A model and a segmenter, with which scripts are run. Decodes one image at a time."""

    def __init__(
        self, pipeline: ElementsPipeline, divide: Callable[[bytes, Fit], Photo], segmenter: str, guides: bool = True
    ):
        """
        Args:
            divide: reads an image file as a segmented photo, or raises ValueError.
            segmenter: name of the segmenter, recorded in results.
            guides: whether the decoder guides the filling of holes in photographs. Otherwise only patches fill them,
                which is better and faster than a model that was not trained on photographs.
        """
        self.pipeline = pipeline
        self.guides = guides
        self.open = divide
        self._made_by = {"weights": pipeline.checksum(), "segmenter": segmenter}
        self._one_at_a_time = threading.Lock()

    def canvas(self, photo: Photo, within: Bool[np.ndarray, "S S"] | None = None) -> Canvas:
        """Encode a photo, or only the elements of pixels under a mask, the largest first.

        Slivers under a mask that are smaller than `SMALLEST` are dropped.
        """
        label_map = photo.label_map
        if within is not None:
            count, size = self.pipeline.config.elements.num_elements, photo.label_map.size
            area = np.bincount(label_map[within & (label_map != DROPPED)], minlength=count)
            order = np.argsort(-area, kind="stable")
            new = np.full(DROPPED + 1, DROPPED, np.uint16)
            new[order] = np.arange(count)
            new[np.flatnonzero(area < SMALLEST * size / count)] = DROPPED
            label_map = np.where(within, new[label_map], DROPPED)
        return dataclasses.replace(self.pipeline.encode(photo.image, label_map), picture=jnp.asarray(photo.image))

    def edit(self, photo: Photo, script: EditScript, open_photo: Callable[[str], Photo]) -> Edited:
        """Run the edits of a script. Raises EditError like `apply_script`, and the errors of `open_photo`."""
        return apply_script(script, self.canvas(photo), lambda name, within: self.canvas(open_photo(name), within))

    def require_prompts(self, script: EditScript) -> None:
        """Raise EditError if the script has a prompt and the model no decoder for it."""
        if script.prompt and not self.pipeline.has_diffusion:
            raise EditError("a prompt needs a model with a diffusion decoder, such as tiny; this one has none")

    def decode(
        self, photo: Photo, edited: Edited, script: EditScript, report: Callable[[], bool] = lambda: True
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Decode an edited canvas to an image, without its photo's margins; if stage 2 was not trained, with stage 1's
        light decoder.

        Args:
            report: called before each sampling step, after compilation; return False to cancel.

        Raises Cancelled if `report` returns False, and the error of `require_prompts`.
        """
        self.require_prompts(script)
        elements, preserve = stack([edited.canvas]).elements, None
        if script.preserve:
            assert edited.reference.picture is not None
            preserve = Preserve(edited.reference.picture[None], edited_region(edited.reference, edited.canvas)[None])
        with self._one_at_a_time:
            if self.pipeline.has_diffusion:
                picture = self.pipeline.decode_batch(
                    elements,
                    [script.prompt],
                    seeds=[script.seed],
                    negative_prompts=[script.negative_prompt],
                    preserve=preserve,
                    report=lambda timestep: report(),
                    **decode_arguments(script.sampling, self.pipeline.config.diffusion),
                )[0]
            else:
                picture = self.pipeline.reconstruct(elements, preserve=preserve)[0]
        left, top, right, bottom = photo.box
        return picture[top:bottom, left:right]

    def png(self, picture: UInt8[np.ndarray, "h w 3"], script: EditScript) -> bytes:
        """Encode an image as a PNG with its settings in the text chunks; the light decoder has none of sampling."""
        sampling = script.sampling.settings(self.pipeline.config.diffusion) if self.pipeline.has_diffusion else {}
        return encode_png(picture, script, {**self._made_by, **sampling, "preserve": script.preserve})


def decode_arguments(sampling: Sampling, config: DiffusionConfig) -> dict[str, Any]:
    """Convert sampling settings to arguments of `ElementsPipeline.decode_batch`."""
    arguments = sampling.settings(config)
    if "element_guidance" in arguments:
        arguments["guidance"] = arguments["guidance"], arguments.pop("element_guidance")
    return arguments | {"sampler": SAMPLERS[arguments["sampler"]]}
