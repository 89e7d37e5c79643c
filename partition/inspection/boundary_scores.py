"""Scores of how well a partition follows human segmentations of the same image. NumPy and SciPy only.

A label map is one of `elements_jax.data.record`; a truth holds an integer per pixel, its segment. **Dropped pixels**
belong to no element. Dropping a pixel never improves a score except compactness: a dropped pixel makes no boundary, and
both accuracies count it as an error. In compactness it counts as 0.

The definitions are those of Stutz, Hermans and Leibe, "Superpixels: an evaluation of the state of the art", 2018.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Integer, UInt16
from PIL import Image
from scipy import io, ndimage

from elements_jax.data.record import DROPPED


class Scores(NamedTuple):
    """The scores of one partition, or their means."""

    boundary_recall: float
    undersegmentation_error: float
    achievable_segmentation_accuracy: float
    compactness: float
    agreed_boundary_recall: float


def score_partition(label_map: UInt16[np.ndarray, "H W"], truths: Sequence[Integer[np.ndarray, "H W"]]) -> Scores:
    """Return all scores, each averaged over several people's segmentations of the image."""

    def mean(measure: Callable[..., float]) -> float:
        return float(np.mean([measure(label_map, truth) for truth in truths]))

    return Scores(
        mean(boundary_recall),
        mean(undersegmentation_error),
        mean(achievable_segmentation_accuracy),
        compactness(label_map),
        agreed_boundary_recall(label_map, truths),
    )


def boundary_recall(
    label_map: UInt16[np.ndarray, "H W"], truth: Integer[np.ndarray, "H W"], tolerance: float = 0.0025
) -> float:
    """Return the share of the truth's boundary pixels with a boundary pixel of the partition nearby; 1 is best.

    After Martin, Fowlkes and Malik 2004. A boundary pixel has a 4-neighbour in another segment or element. Nearby means
    in the square of 2 r + 1 pixels a side around it, r = `tolerance` * the image's diagonal, rounded. A truth without a
    boundary scores 1.
    """
    wanted = _boundary(truth, np.ones(truth.shape, bool))
    found = _near(_boundary(label_map, label_map != DROPPED), tolerance)
    return float(found[wanted].mean()) if wanted.any() else 1.0


def agreed_boundary_recall(
    label_map: UInt16[np.ndarray, "H W"], truths: Sequence[Integer[np.ndarray, "H W"]], tolerance: float = 0.0025
) -> float:
    """Return `boundary_recall` of the boundaries that all people drew: pixels near one of every other person's.

    Some people draw more boundaries than others. Those that only some drew, such as a texture or a shadow, are left
    out.
    """
    drawn = np.array([_boundary(truth, np.ones(truth.shape, bool)) for truth in truths])
    wanted = drawn & np.all([_near(boundary, tolerance) for boundary in drawn], axis=0)
    found = _near(_boundary(label_map, label_map != DROPPED), tolerance)
    return float(np.mean([found[one].mean() if one.any() else 1.0 for one in wanted]))


def _near(boundary: Bool[np.ndarray, "H W"], tolerance: float) -> Bool[np.ndarray, "H W"]:
    """Return the pixels that have a boundary pixel nearby, as `boundary_recall` defines it."""
    reach = round(tolerance * float(np.hypot(*boundary.shape)))
    return ndimage.maximum_filter(boundary, 2 * reach + 1, mode="constant")


def undersegmentation_error(label_map: UInt16[np.ndarray, "H W"], truth: Integer[np.ndarray, "H W"]) -> float:
    """Return how much elements leak from one segment into another; 0 is best, 1 the worst without dropped pixels.

    Neubert and Protzel 2012: for every segment and every element that overlaps it, take the element's pixels inside or
    outside the segment, whichever are fewer; the score is their sum divided by the number of pixels. A leaking pixel
    counts twice, in its own segment and in that of the rest of its element. A dropped pixel counts twice as well, so
    that dropping leaks does not improve the score.
    """
    overlap = _overlap(label_map, truth)
    outside = overlap.sum(axis=1, keepdims=True) - overlap
    dropped = np.count_nonzero(label_map == DROPPED)
    return float((np.minimum(overlap, outside).sum() + 2 * dropped) / truth.size)


def achievable_segmentation_accuracy(label_map: UInt16[np.ndarray, "H W"], truth: Integer[np.ndarray, "H W"]) -> float:
    """Return the share of correct pixels if every element gets the segment that it overlaps most; 1 is best.

    Liu, Tuzel, Ramalingam and Chellappa 2011. A dropped pixel is wrong.
    """
    return float(_overlap(label_map, truth).max(axis=1, initial=0).sum() / truth.size)


def compactness(label_map: UInt16[np.ndarray, "H W"]) -> float:
    """Return how round elements are: the mean over pixels of 4 pi A / L**2 of the pixel's element; 0 for a dropped
    pixel.

    Schick, Fischer and Stiefelhagen 2012. A is the element's number of pixels. L, its perimeter, is the number of pixel
    sides between it and another element, dropped pixels or the outside of the image. A square has pi / 4, the maximum.
    """
    padded = np.pad(label_map, 1, constant_values=DROPPED)
    perimeter = np.zeros(DROPPED + 1, np.int64)
    for one, other in ((padded[1:], padded[:-1]), (padded[:, 1:], padded[:, :-1])):
        for side in (one, other):
            perimeter += np.bincount(side[one != other], minlength=DROPPED + 1)
    area = np.bincount(label_map.ravel(), minlength=DROPPED + 1)
    area[DROPPED] = 0
    quotient = 4 * np.pi * area / np.maximum(perimeter, 1) ** 2
    return float((area * quotient).sum() / label_map.size)


def contour_density(label_map: UInt16[np.ndarray, "H W"]) -> float:
    """Return the share of boundary pixels, as `boundary_recall` defines them.

    Machairas et al. 2015. More boundary gives more recall, so recalls are comparable only at similar density.
    """
    return float(_boundary(label_map, label_map != DROPPED).mean())


def read_truths(path: Path) -> list[Integer[np.ndarray, "h w"]]:
    """Read segmentations of one photograph: a BSDS500 file (.mat, several people's), or a label map (PNG).

    Raises ValueError naming the file if it is neither.
    """
    try:
        if path.suffix == ".mat":
            people = io.loadmat(path)["groundTruth"].ravel()
            return [person["Segmentation"][0, 0].astype(np.int64) for person in people]
        with Image.open(path) as file:
            values = np.asarray(file)
    except Exception as error:  # SciPy and Pillow raise many types on damaged files
        expected = "BSDS500's groundTruth[0, k]['Segmentation'] or a label map"
        raise ValueError(f"{path}: expected {expected}: {error}") from error
    if values.ndim != 2:
        raise ValueError(f"{path}: a label map has one channel, this has {values.shape[2]}")
    return [values.astype(np.int64)]


def _boundary(labels: Integer[np.ndarray, "H W"], known: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Return the pixels next to a known pixel of another label."""
    boundary = np.zeros(labels.shape, bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (labels[one] != labels[other]) & known[one] & known[other]
        boundary[one] |= differs
        boundary[other] |= differs
    return boundary


def _overlap(label_map: UInt16[np.ndarray, "H W"], truth: Integer[np.ndarray, "H W"]) -> Int[np.ndarray, "K S"]:
    """Return the number of pixels that each element shares with each segment, without empty ones."""
    kept = label_map != DROPPED
    elements, element = np.unique(label_map[kept], return_inverse=True)
    segments, segment = np.unique(truth[kept], return_inverse=True)
    pairs = np.bincount(element * segments.size + segment, minlength=elements.size * segments.size)
    return pairs.reshape(elements.size, segments.size)
