"""Photo scenes: objects of photographs pasted on other photographs, and the true result of any edit.

A `PhotoScene` is a description; editing it and rendering it again is the ground truth of an edit, from real pixels.
Objects come from the masks of records (`elements partition --masks auto`). Everything follows from the records and
a seed. Coordinates are (x, y) in [0, 1], from the top left corner.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from elements_jax.data.record import Record
from elements_jax.scenes.folder import write_scene

KINDS = ("move", "shrink", "enlarge", "delete", "duplicate", "compose")
AREA = (0.015, 0.12)
"""Range of an object's share of its photograph: large enough to matter, small enough to move."""
COMPACT = 0.4
"""Minimum share of its bounding box that an object covers; scattered leftovers cover less."""
SOFT = 1 / 256
"""Width of an object's soft edge, as a share of the image's side: pixels closer to the mask's edge are dropped,
because they contain colours of the old background."""
TRIES = 200
"""Number of places and objects tried for one scene."""


@dataclass(frozen=True, eq=False)
class Cutout:
    """An object cut out of a photograph."""

    pixels: UInt8[np.ndarray, "h w 3"]
    alpha: Float32[np.ndarray, "h w"]
    """The object's share of each pixel, in [0, 1]."""
    words: str
    """The photograph's caption without "a photo of"."""

    def resized(self, scale: float) -> "Cutout":
        """Scale with Lanczos, weighted by alpha so that no background bleeds in."""
        height, width = (max(1, round(scale * side)) for side in self.alpha.shape)

        def resize(plane: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h2 w2"]:
            return np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS))

        alpha = resize(self.alpha)
        weighted = np.stack([resize(self.alpha * self.pixels[..., c].astype(np.float32)) for c in range(3)], axis=-1)
        pixels = weighted / np.maximum(alpha, 1e-3)[..., None]
        return Cutout(np.rint(pixels.clip(0, 255)).astype(np.uint8), alpha.clip(0, 1), self.words)


@dataclass(frozen=True, eq=False)
class PlacedObject:
    """A cutout in a scene. Its box starts at an integer pixel, so that a move keeps its pixels exactly."""

    cutout: Cutout
    top: int
    left: int

    @property
    def box(self) -> tuple[slice, slice]:
        height, width = self.cutout.alpha.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def moved(self, down: int, right: int) -> "PlacedObject":
        return dataclasses.replace(self, top=self.top + down, left=self.left + right)

    def resized(self, scale: float) -> "PlacedObject":
        """Scale about the middle of its box."""
        cutout = self.cutout.resized(scale)
        (height, width), (before_h, before_w) = cutout.alpha.shape, self.cutout.alpha.shape
        return PlacedObject(cutout, self.top + (before_h - height) // 2, self.left + (before_w - width) // 2)


@dataclass(frozen=True, eq=False)
class PhotoScene:
    """Objects, back to front, on a photograph. Objects are numbered from 1, as in the label map."""

    background: UInt8[np.ndarray, "S S 3"]
    objects: tuple[PlacedObject, ...]
    place: str
    """Description of the background."""

    @property
    def size(self) -> int:
        """Image size in pixels."""
        return self.background.shape[0]

    @property
    def caption(self) -> str:
        """A caption such as "a cup and a rose, in front of a chair"."""
        named = " and ".join(each.cutout.words for each in self.objects)
        return f"{named}, in front of {self.place}" if named else f"a photo of {self.place}"

    def replaced(self, k: int, *replacement: PlacedObject) -> "PhotoScene":
        """Replace the k-th object by others, or by none. Raises ValueError if there is no k-th object."""
        if not 1 <= k <= len(self.objects):
            raise ValueError(f"the scene has objects 1 to {len(self.objects)}, got {k}")
        return dataclasses.replace(self, objects=(*self.objects[: k - 1], *replacement, *self.objects[k:]))

    def inserted(self, placed: PlacedObject) -> "PhotoScene":
        """Insert an object in front of all others."""
        return dataclasses.replace(self, objects=(*self.objects, placed))


@dataclass(frozen=True, eq=False)
class PhotoEdit:
    """An edit of the first object of a scene, and the scene after it."""

    kind: Literal["move", "shrink", "enlarge", "delete", "duplicate", "compose"]
    by: tuple[float, float] = (0.0, 0.0)
    """(x, y) as shares of the side: the shift of the object, its copy, or the other scene's object."""
    scale: float = 1.0
    about: tuple[float, float] = (0.0, 0.0)
    """The fixed point of a resize."""
    after: PhotoScene | None = None


def render(scene: PhotoScene) -> tuple[UInt8[np.ndarray, "S S 3"], UInt8[np.ndarray, "S S"]]:
    """Render the image and its label map: k where the k-th object covers at least half of a pixel, else 0."""
    picture = scene.background.astype(np.float32)
    labels = np.zeros(picture.shape[:2], np.uint8)
    for k, placed in enumerate(scene.objects, start=1):
        alpha = placed.cutout.alpha[..., None]
        picture[placed.box] += alpha * (placed.cutout.pixels - picture[placed.box])
        labels[placed.box][placed.cutout.alpha >= 0.5] = k
    return np.rint(picture).astype(np.uint8), labels


def cutouts(record: Record) -> Iterator[Cutout]:
    """Yield the objects of a record that can be cut out: connected, compact, of suitable size, clear of the margin."""
    size = record.image.shape[0]
    for mask in record.object_masks:
        pieces, count = ndimage.label(mask)
        if not count:
            continue
        largest = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
        area, (rows, columns) = largest.mean(), ndimage.find_objects(largest.astype(np.uint8))[0]
        inside = min(rows.start, columns.start, size - rows.stop, size - columns.stop) > 0
        box = largest[rows, columns]
        if inside and AREA[0] <= area <= AREA[1] and box.mean() >= COMPACT and largest.sum() >= 0.9 * mask.sum():
            depth = ndimage.distance_transform_edt(np.pad(ndimage.binary_fill_holes(box), 1))[1:-1, 1:-1]
            alpha = (depth / max(1.0, SOFT * size) - 1).clip(0, 1).astype(np.float32)
            yield Cutout(record.image[rows, columns], alpha, record.caption.removeprefix("a photo of ").strip())


def photo_scene(records: Sequence[Record], seed: int) -> PhotoScene:
    """Return the scene of a seed: one object of a photograph on another, and usually a second one next to it.

    Raises ValueError if no object of the records can be cut out.
    """
    rng = np.random.default_rng(seed)
    background = records[int(rng.integers(len(records)))]
    scene = PhotoScene(background.image, (), background.caption.removeprefix("a photo of ").strip())
    for _ in range(1 + int(rng.uniform() < 0.7)):
        for _ in range(TRIES):
            record = records[int(rng.integers(len(records)))]
            found = [] if record.source_id == background.source_id else list(cutouts(record))
            if found and (placed := _free_place(rng, found[int(rng.integers(len(found)))], scene)):
                scene = scene.inserted(placed)
                break
    if not scene.objects:
        raise ValueError(f"{TRIES} records have no object that can be cut out: run `elements partition --masks auto`")
    return scene


def photo_edits(scene: PhotoScene, other: PhotoScene, seed: int) -> list[PhotoEdit]:
    """Draw edits of the first object: all `KINDS` for which there is room; a composition takes the last of `other`."""
    rng, placed, size = np.random.default_rng(seed), scene.objects[0], scene.size
    rows, columns = placed.box
    middle = (columns.start + columns.stop) / 2 / size, (rows.start + rows.stop) / 2 / size
    edits = []
    if there := _free_place(rng, placed.cutout, scene.replaced(1), apart_from=placed):
        edits.append(PhotoEdit("move", _shift(placed, there, size), after=scene.replaced(1, there)))
    scales: tuple[tuple[Literal["shrink", "enlarge"], float, float], ...] = (
        ("shrink", 0.6, 0.8),
        ("enlarge", 1.25, 1.5),
    )
    for kind, low, high in scales:
        scale = float(rng.uniform(low, high))
        if _is_free(resized := placed.resized(scale), scene.replaced(1)):
            edits.append(PhotoEdit(kind, scale=scale, about=middle, after=scene.replaced(1, resized)))
    edits.append(PhotoEdit("delete", after=scene.replaced(1)))
    if there := _free_place(rng, placed.cutout, scene):
        edits.append(PhotoEdit("duplicate", _shift(placed, there, size), after=scene.inserted(there)))
    if there := _free_place(rng, other.objects[-1].cutout, scene):
        edits.append(PhotoEdit("compose", _shift(other.objects[-1], there, size), after=scene.inserted(there)))
    return edits


def write_folder(records: Sequence[Record], out: Path, seeds: range) -> None:
    """Write photo scenes as the folder of photographs that `elements partition OUT --masks OUT/masks` reads.

    For each seed: `photo-scene-SEED.png`, its caption `photo-scene-SEED.txt`, and its label map in `masks`.
    """
    for seed in tqdm(seeds, desc="photo scenes", unit="scene"):
        scene = photo_scene(records, seed)
        write_scene(out, f"photo-scene-{seed:07d}", *render(scene), scene.caption)


def _free_place(
    rng: np.random.Generator, cutout: Cutout, scene: PhotoScene, apart_from: PlacedObject | None = None
) -> PlacedObject | None:
    """Find a place for a cutout within the image and clear of all objects; None if no try succeeds."""
    height, width = cutout.alpha.shape
    if max(height, width) >= scene.size:
        return None
    for _ in range(TRIES):
        top, left = rng.integers(scene.size - height + 1), rng.integers(scene.size - width + 1)
        placed = PlacedObject(cutout, int(top), int(left))
        near = apart_from is not None and _overlap(placed.box, apart_from.box)
        if not near and _is_free(placed, scene):
            return placed
    return None


def _is_free(placed: PlacedObject, scene: PhotoScene) -> bool:
    inside = all(side.start >= 0 and side.stop <= scene.size for side in placed.box)
    return inside and not any(_overlap(placed.box, other.box) for other in scene.objects)


def _overlap(one: tuple[slice, slice], other: tuple[slice, slice]) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def _shift(before: PlacedObject, after: PlacedObject, size: int) -> tuple[float, float]:
    return (after.left - before.left) / size, (after.top - before.top) / size
