"""A photograph with its objects as layers: they keep their own pixels, and the holes they leave are filled."""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8
from scipy import ndimage

from elements_jax.editing.script import Delete, Duplicate, EditError, EditScript
from elements_jax.fill.guide import probes_for
from elements_jax.fill.hole import fill_hole
from elements_jax.photograph.colour import like, rgb8
from elements_jax.photograph.file import Photograph, Pixels
from elements_jax.photograph.layers import Layer, Rendered
from elements_jax.photograph.matte import alpha_matte
from elements_jax.photograph.selecting import Selection
from elements_jax.photograph.shadow import cast_shadow
from elements_jax.photograph.steps import Step, placement_of
from elements_jax.photograph.window import Window, box_of, grown, windows

ROOM = 384
"""Minimum size in pixels of the crops in which holes are filled without a guide: patches come from around the hole."""

HAIR = 0.015
"""Hair and blur reach this far beyond an object's mask, in units of its longer side; they leave with the object."""

FRINGE = 0.3
"""A pixel that close leaves if more than this share of it is the object's: the others show the background."""

TOUCH = 0.05
"""Masks of objects that overlap by a smaller share only touch: an edit of one does not affect the other."""


@runtime_checkable
class Guide(Protocol):
    """A model that generates the content of a hole."""

    @property
    def size(self) -> int:
        """Size of its images in pixels."""
        ...

    def __call__(self, window: Window, hole: Bool[np.ndarray, "H W"]) -> UInt8[np.ndarray, "S S 3"]:
        """Return its image of a window of the photograph, without the photograph's pixels in the hole."""
        ...


class Composition:
    """The layers that edits lift off a photograph, and the holes that they leave."""

    def __init__(self, photograph: Photograph, steps: list[Step]):
        """Apply the edits. Raises EditError that names an edit whose object an earlier one deleted."""
        self.photograph = photograph
        self.layers: list[Layer] = []
        # The pixels removed from the background, including the sources of layers; and those of them that were deleted.
        self.lifted, self.deleted = np.zeros((2, *photograph.size), bool)
        # Pixels beyond the masks that leave with the objects: in any case, and as far as the objects show there.
        self.slack = self.reach = 0.0
        for step in steps:
            self._run(step)

    def _run(self, step: Step) -> None:
        edit, selection, size = step.edit, step.selection, self.photograph.size
        if step.other is not None:
            layer = Layer(step.other.pixels, selection.mask, selection.slack)
            self.layers.append(replace(layer, placement=placement_of(step, layer.box, size)))
            return
        chosen = self._take(selection, keep=isinstance(edit, Duplicate))
        if not chosen:
            raise EditError(f"{step.where}: its selection was deleted by an earlier edit")
        if isinstance(edit, Delete):
            self.deleted |= selection.mask
            return
        reaches = np.array([layer.placement.of(layer.box) for layer in chosen])
        around = (*reaches[:, :2].min(axis=0), *reaches[:, 2:].max(axis=0))
        moved = placement_of(step, around, size)
        self.layers += [replace(layer, placement=layer.placement.then(moved)) for layer in chosen]

    def _take(self, selection: Selection, keep: bool) -> list[Layer]:
        """Return the layers of the selected pixels, wherever edits have put them, and remove them unless `keep`."""
        pixels, mask = self.photograph.pixels, selection.mask
        taken, left = list[Layer](), list[Layer]()
        for layer in self.layers:
            own = layer.pixels is pixels and not layer.is_copy
            inside = layer.mask & mask if own else np.zeros(0, bool)
            if inside.sum() <= TOUCH * min(mask.sum(), layer.mask.sum()):
                left.append(layer)
                continue
            taken.append(replace(layer, mask=inside, is_copy=keep))
            if keep:
                left.append(layer)
            elif (rest := layer.mask & ~mask).any():
                left.append(replace(layer, mask=rest))
        background = mask & ~self.lifted
        if background.any():
            taken.append(Layer(pixels, background, selection.slack, is_copy=keep))
            if not keep:
                x0, y0, x1, y1 = taken[-1].box
                self.lifted |= background
                self.slack = max(self.slack, selection.slack)
                self.reach = max(self.reach, selection.slack + int(HAIR * max(x1 - x0, y1 - y0)))
        self.layers = left
        return taken

    def render(self, guide: Guide | None, script: EditScript) -> Pixels:
        """Render the photograph after the edits. Without a guide, holes are filled only from patches of the photograph.

        Raises EditError if there is no guide and the hole covers the complete photograph.
        """
        layers = list[Layer]()
        for layer in self.layers:
            if layer.placement.is_identity and layer.pixels is self.photograph.pixels:
                self.lifted &= ~layer.mask  # it is back in its place
            else:
                layers.append(layer)
        pixels = self.photograph.pixels
        if not layers and not self.lifted.any():
            return pixels
        rendered = [each for each in (layer.render(self.photograph.size) for layer in layers) if each is not None]
        result = self._filled(rendered, guide, script)
        for colours, alpha, (left, top, right, bottom) in rendered:
            _lay(result[top:bottom, left:right], colours, alpha)
        return result

    def _filled(self, rendered: list[Rendered], guide: Guide | None, script: EditScript) -> Pixels:
        """Return the photograph with its holes filled, except where layers hide them."""
        result = self.photograph.pixels.copy()
        around = box_of(self.lifted)
        if around is None:
            return result
        reach = int(np.ceil(self.reach)) + 1
        left, top, right, bottom = grown(around, reach, self.photograph.size)
        rgb, hole, near = rgb8(self.photograph.pixels), np.zeros_like(self.lifted), np.s_[top:bottom, left:right]
        hole[near] = with_fringe(rgb[near], self.lifted[near], self.slack, self.reach)
        hole |= cast_shadow(rgb, hole)
        seen = hole.copy()
        for _, alpha, (left, top, right, bottom) in rendered:
            seen[top:bottom, left:right] &= alpha < 1
        found = ndimage.find_objects(ndimage.label(seen)[0]) if seen.any() else []
        boxes = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in found]
        for window, _ in windows(boxes, self.photograph.size, guide.size if guide else ROOM):
            here = window.here
            colours = rgb8(result[here])
            if guide is None:
                if hole[here].all():
                    raise EditError("the edits leave no part of the photograph from which to fill the hole")
                filled = fill_hole(colours, hole[here])
            else:
                probes = np.zeros_like(hole)
                probes[here] = probes_for(hole[here])
                drawn = guide(window, hole | probes)
                filled = fill_hole(colours, hole[here], window.crop(drawn), probes[here])
                if script.prompt and (varied := _nearby(self.deleted[here], float(reach)) & seen[here]).any():
                    filled = np.where(varied[..., None], _toned(window.enlarge(drawn), colours, hole[here]), filled)
            new = like(filled, result)
            part = result[here]
            part[..., : new.shape[2]][seen[here]] = new[seen[here]]
            if new.shape[2] < part.shape[2]:
                alpha = np.repeat(rgb8(part[..., -1:])[..., :1], 3, axis=2)
                alpha = fill_hole(alpha, hole[here])[..., :1]
                part[..., -1:][seen[here]] = (alpha if part.dtype == np.uint8 else alpha.astype(np.uint16) * 257)[
                    seen[here]
                ]
        return result


def with_fringe(
    colours: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"], slack: float, reach: float
) -> Bool[np.ndarray, "H W"]:
    """Add to a mask what is within `slack` pixels of it, and hair and blur of the object within `reach` pixels."""
    alpha = alpha_matte(colours.astype(np.float32) / 255, mask, slack, reach)
    return ndimage.binary_dilation(alpha > FRINGE) | _nearby(mask, slack + 1)


def _lay(
    pixels: Shaped[np.ndarray, "h w C"], colours: Float32[np.ndarray, "h w C"], alpha: Float32[np.ndarray, "h w"]
) -> None:
    """Blend colours over pixels, in place. Pixels with alpha 0 stay unchanged."""
    most = np.iinfo(pixels.dtype).max
    over = alpha > 0
    weight = alpha[over][:, None]
    mixed = weight * (colours[over] * most) + (1 - weight) * pixels[over]
    pixels[over] = np.rint(mixed).astype(pixels.dtype)


def _nearby(mask: Bool[np.ndarray, "H W"], reach: float) -> Bool[np.ndarray, "H W"]:
    return ndimage.distance_transform_edt(~mask) <= reach if mask.any() else mask


def _toned(
    drawn: UInt8[np.ndarray, "H W 3"], colours: UInt8[np.ndarray, "H W 3"], hole: Bool[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Shift the colours of the model's image smoothly to those of the photograph around the hole."""
    known = (~hole).astype(np.float32)[..., None]
    sigma = max(2.0, np.sqrt(hole.sum()) / 4)
    difference = (colours.astype(np.float32) - drawn) * known
    near = ndimage.gaussian_filter(known, (sigma, sigma, 0))
    shift = ndimage.gaussian_filter(difference, (sigma, sigma, 0)) / np.maximum(near, 1e-4)
    return np.clip(np.rint(drawn + shift), 0, 255).astype(np.uint8)
