"""Edits of complete photographs: the size stays the same, and only the edited parts change.

    photograph = Photograph.load(Path("cat.jpg"))
    edited = edit_photograph(editing, photograph, script, divider.label)
    Path("edited.jpg").write_bytes(edited.encode(edited.pixels, "JPEG"))

The model sees square windows of the photograph (`window`). With the detail "pixels", objects keep their own pixels
(`composition`), and patches of the photograph fill the holes (`fill`), guided by the model's image of a window. With
"decoder", the model generates the edited region, as in the paper (`repaint`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, UInt8

from elements_jax.data.photo import Photo
from elements_jax.data.record import DROPPED
from elements_jax.editing.apply import Edited, nothing_to_open
from elements_jax.editing.script import EditError, EditScript, Fit
from elements_jax.photograph.colour import from_srgb, rgb8, to_srgb
from elements_jax.photograph.composition import Composition
from elements_jax.photograph.file import Photograph
from elements_jax.photograph.repaint import Label, repaint
from elements_jax.photograph.selecting import Divide, FindObject, Selector
from elements_jax.photograph.steps import resolve
from elements_jax.photograph.window import Window

if TYPE_CHECKING:  # patches fill holes without a model, and without the seconds that its networks take to import
    from elements_jax.pipeline.session import EditSession


def edit_photograph(
    editing: "EditSession | None",
    photograph: Photograph,
    script: EditScript,
    label: Label,
    *,
    divide: Divide | None = None,
    find_object: FindObject | None = None,
    open_named: Callable[[str], Photograph] = nothing_to_open,
    report: Callable[[], bool] = lambda: True,
) -> Photograph:
    """Run an edit script on a photograph.

    Args:
        editing: the model; without one, only patches of the photograph fill holes.
        label: segments a window of the photograph into elements.
        divide: segments a photograph into the elements that a script numbers; by default as `editing` does.
        find_object: finds objects from points and boxes; only needed by scripts that use these.
        open_named: opens the images and masks that the script names.
        report: called before each sampling step of each window; return False to cancel.

    Returns:
        The photograph with new pixels in and closely around the edited regions; `photograph` itself if the script
        changes nothing.

    Raises EditError that names the edit, or says that the script needs a model; Cancelled if `report` returns False;
    and the errors of `EditSession.require_prompts` and the callables.
    """
    if editing is not None:
        editing.require_prompts(script)
    elif needs_decoder(script):
        raise EditError('a prompt, or the detail "decoder", needs a model')
    segment = divide or (editing.open if editing is not None else _nothing_to_number)
    base, steps = resolve(photograph, script, Selector(cache(segment), find_object, open_named), open_named)
    if editing is None or not (editing.guides or needs_decoder(script)):
        pixels = Composition(base, steps).render(None, script)
    elif script.detail == "decoder":
        pixels = repaint(editing, base, steps, script, label, report)
    else:
        decoder = _Decoder(editing, base, replace(script, preserve=False), label, report)
        pixels = Composition(base, steps).render(decoder, script)
    return photograph if pixels is photograph.pixels else replace(photograph, pixels=pixels)


def _nothing_to_number(encoded: bytes, fit: Fit) -> Photo:
    raise EditError("selecting elements by number needs `divide`, which segments the photograph")


def needs_decoder(script: EditScript) -> bool:
    """Whether a script asks for pixels that only a model can generate."""
    return bool(script.prompt) or script.detail == "decoder"


@dataclass(frozen=True, eq=False)
class _Decoder:
    """The guide of a composition: decodes a window's elements after deleting those in the hole."""

    editing: "EditSession"
    photograph: Photograph
    script: EditScript
    label: Label
    report: Callable[[], bool]

    @property
    def size(self) -> int:
        return self.editing.pipeline.config.elements.image_size

    def __call__(self, window: Window, hole: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "S S 3"]:
        image = to_srgb(window.resample(rgb8(self.photograph.pixels), self.size), self.photograph)
        label_map = np.where(window.resample_mask(hole, self.size, least=0.0), DROPPED, self.label(image))
        photo = Photo(image, label_map, (0, 0, self.size, self.size))
        canvas = self.editing.canvas(photo)
        picture = self.editing.decode(photo, Edited(canvas, canvas), self.script, self.report)
        return from_srgb(picture, self.photograph)
