"""Object masks that lie outside the photographs: PNG files, COCO's run lengths and polygons; and which are kept.

Section 3.3 drops the elements under a random object mask in training. The paper takes its masks from Semantic-SAM.
"""

import functools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Int, Shaped
from PIL import Image

from partition.samples import SUFFIXES


@dataclass(frozen=True)
class MaskFilter:
    """Which object masks are kept. Shares are of the square picture. The paper is silent on all four [settled]."""

    min_iou: float = 0.88
    """SAM's own estimate of a mask's IoU (`predicted_iou`) must reach this, its automatic generator's default."""
    min_stability: float = 0.95
    """So must a mask's `stability_score`; both are also the thresholds of SA-1B. Masks without them are trusted."""
    min_area: float = 0.002
    """Half an element of the paper's 16 x 16: what is smaller would be dropped with the element that it lies in."""
    max_area: float = 0.5
    """What is larger is background rather than an object, and would leave few elements to learn from."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_area <= self.max_area <= 1:
            raise ValueError(
                f"min_area and max_area must satisfy 0 <= min <= max <= 1, got {self.min_area} and {self.max_area}"
            )

    def trusts(self, annotation: Mapping[str, Any]) -> bool:
        """Whether a mask's numbers, as SAM names them, reach the thresholds."""
        numbers = {"predicted_iou": self.min_iou, "stability_score": self.min_stability}
        return all(annotation.get(name, math.inf) >= least for name, least in numbers.items())

    def fits(self, mask: Bool[np.ndarray, "H W"]) -> bool:
        """Whether a mask of the square picture has a pixel and the right size."""
        return bool(mask.any()) and self.min_area <= mask.mean() <= self.max_area


DEFAULT_FILTER = MaskFilter()


class MaskSource(Protocol):
    """Where object masks lie."""

    def find(self, source_id: str, shape: tuple[int, int], keep: MaskFilter) -> Iterator[Bool[np.ndarray, "h w"]]:
        """The masks of one photo that `keep` trusts, of its (height, width).

        Raises ValueError naming the file, and the annotation in it, that cannot be read or is of another size.
        """


def mask_source(path: Path) -> MaskSource:
    """A folder of masks, or one COCO file. Raises ValueError if it is neither."""
    if path.is_dir():
        return MaskFolder(path)
    if path.is_file() and path.suffix.lower() == ".json":
        return CocoFile(path)
    raise ValueError(f"{path}: neither a folder of masks nor a COCO file (.json)")


@dataclass(frozen=True)
class MaskFolder:
    """Masks in files that are named as the photos are, those of photos in a subfolder (or tar file) in one too.

    Read, and taken together, are STEM.png, a label map (each value but 0 is one object); STEM/*.png, one object each
    (where it is not 0); and STEM.json, a list of annotations in COCO's format, as SAM's automatic mask generator gives
    them, or an object that has it under `annotations`, as in SA-1B, or a list of COCO's run lengths.
    """

    folder: Path

    def find(self, source_id: str, shape: tuple[int, int], keep: MaskFilter) -> Iterator[Bool[np.ndarray, "h w"]]:
        base = self.folder / _stem(source_id)
        label_map, annotations = (base.with_name(base.name + suffix) for suffix in (".png", ".json"))
        if label_map.is_file():
            values = _read_png(label_map, shape)
            if values.ndim != 2:
                raise ValueError(f"{label_map}: a label map has one channel, this has {values.shape[2]}")
            yield from (np.equal(values, value) for value in np.unique(values) if value)
        for path in sorted(base.glob("*.png")):
            values = _read_png(path, shape)
            if values.ndim == 3:
                values = values[..., : 1 if values.shape[2] == 2 else 3].max(axis=2)  # without the alpha channel
            yield np.not_equal(values, 0)
        if annotations.is_file():
            content = _read_json(annotations)
            found = content.get("annotations") if isinstance(content, dict) else content
            if not isinstance(found, list):
                raise ValueError(f"{annotations}: expected a list of annotations, or an object with `annotations`")
            yield from _decode(annotations, enumerate(found), shape, keep)


@dataclass(frozen=True)
class CocoFile:
    """One COCO file for all photos, which it names by their source ids or by the last parts of those.

    Every process reads it once and keeps it.
    """

    path: Path

    def find(self, source_id: str, shape: tuple[int, int], keep: MaskFilter) -> Iterator[Bool[np.ndarray, "h w"]]:
        images = _index(self.path)
        stem = _stem(source_id)
        if (name := stem if stem in images else stem.rsplit("/")[-1]) not in images:
            return
        image, annotations = images[name]
        height, width = image.get("height", shape[0]), image.get("width", shape[1])
        if (height, width) != shape:
            listed = f"{image['file_name']} is listed with {width} x {height} pixels"
            raise ValueError(f"{self.path}: {listed}, but the photo has {shape[1]} x {shape[0]}")
        yield from _decode(self.path, annotations, shape, keep)


@functools.cache
def _index(path: Path) -> dict[str, tuple[dict[str, Any], list[tuple[int, Any]]]]:
    """Of each image in a COCO file, by its name without suffix: its entry, and its annotations with their numbers."""
    content = _read_json(path)
    try:
        images = {image["id"]: (image, []) for image in content["images"]}  # type: ignore[var-annotated]
        for number, annotation in enumerate(content["annotations"]):
            images[annotation["image_id"]][1].append((number, annotation))
        index = {_stem(image["file_name"]): (image, annotations) for image, annotations in images.values()}
    except (LookupError, TypeError) as error:
        raise ValueError(f"{path}: not COCO's `images` and `annotations`: {type(error).__name__} {error}") from error
    if len(index) < len(content["images"]):
        raise ValueError(f"{path}: some of its {len(content['images'])} images have the same id or name")
    return index


def _stem(source_id: str) -> str:
    """A source id or file name without the suffix of an image; the key of a tar file's sample has none."""
    path = PurePosixPath(source_id)
    return str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else source_id


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error


def _read_png(path: Path, shape: tuple[int, int]) -> Shaped[np.ndarray, "h w *channels"]:
    try:
        with Image.open(path) as file:
            values = np.asarray(file)  # of a palette image, the indices
    except Exception as error:  # decoders raise all sorts on damaged files
        raise ValueError(f"{path}: {error}") from error
    if values.shape[:2] != shape:
        raise ValueError(
            f"{path}: expected the photo's {shape[1]} x {shape[0]} pixels, got {file.width} x {file.height}"
        )
    return values


def _decode(
    path: Path, annotations: Iterable[tuple[int, Any]], shape: tuple[int, int], keep: MaskFilter
) -> Iterator[Bool[np.ndarray, "h w"]]:
    """The masks of COCO annotations, or of its bare run lengths, that `keep` trusts."""
    for number, annotation in annotations:
        try:
            if keep.trusts(annotation):
                yield _decode_segmentation(annotation.get("segmentation", annotation), shape)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            reason = str(error) if type(error) is ValueError else f"{type(error).__name__} {error}"
            raise ValueError(f"{path}: annotation {number}: {reason}") from error


def _decode_segmentation(segmentation: Any, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """COCO's `segmentation`: polygons, or run lengths column by column that begin with a run of zeros."""
    height, width = shape
    if isinstance(segmentation, list):
        segmentation = _fill(segmentation, shape)
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"expected the size [{height}, {width}] of the photo, got {segmentation['size']}")
    counts = segmentation["counts"]
    if isinstance(counts, str):
        counts = _uncompress(counts)
    elif not all(isinstance(count, int) for count in counts):
        raise ValueError("expected whole numbers as run lengths")
    runs = np.array(counts, np.int64)
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"expected runs of {height} x {width} = {height * width} pixels together, got {runs.sum()}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _uncompress(counts: str) -> Int[np.ndarray, " runs"]:
    """COCO's string of run lengths as numbers. (Of one that is cut short, pycocotools makes a mask of random memory.)

    A character holds 5 bits of a number, the lowest first, and a sixth that says whether more follow; the last's upper
    bit is the sign. From the fourth on, numbers are differences to the number before the last.
    """
    codes = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
    last = codes & 32 == 0
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or not last[-1]:
        raise ValueError(f"not COCO's string of run lengths, or cut short: {counts[:20]!r}...")
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    lengths = np.diff(starts, append=len(codes))
    if lengths.max() > 12:
        raise ValueError("a run length of more than 60 bits")
    digits = np.arange(len(codes)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((codes & 31) << 5 * digits, starts)
    runs -= np.where(codes[last] & 16, 1 << 5 * lengths, 0)
    for first in (1, 2):
        runs[first::2] = np.cumsum(runs[first::2])
    return runs


def _fill(polygons: Sequence[Sequence[float]], shape: tuple[int, int]) -> dict[str, Any]:
    """Run lengths of the union of polygons x0, y0, x1, y1, ... in pixels, filled as COCO's own tools do."""
    from pycocotools import mask as coco

    height, width = shape
    clipped = []
    for polygon in polygons:
        points = np.array(polygon, np.float64)
        if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
            raise ValueError(f"expected polygons of at least three points x, y, got {polygon}")
        clipped.append(points.reshape(-1, 2).clip(0, (width, height)).ravel().tolist())
    if not clipped:
        raise ValueError("expected at least one polygon, got none")
    return {"size": [height, width], "counts": coco.merge(coco.frPyObjects(clipped, height, width))["counts"].decode()}
