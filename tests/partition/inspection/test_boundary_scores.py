"""The scores of a partition against plain loops over pixels, by hand, and by properties of every partition."""

from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import io

from elements_jax.data.record import DROPPED
from partition.inspection.boundary_scores import (
    Scores,
    achievable_segmentation_accuracy,
    agreed_boundary_recall,
    boundary_recall,
    compactness,
    contour_density,
    read_truths,
    score_partition,
    undersegmentation_error,
)

LABELS = [0, 1, 2, 7, DROPPED]


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draw a label map, partly dropped, and a truth of the same size."""
    shape = draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=8))
    label_map = draw(arrays.arrays(np.uint16, shape, elements=st.sampled_from(LABELS)))
    return label_map, draw(arrays.arrays(np.int64, shape, elements=st.integers(-1, 3)))


def sides(labels: np.ndarray, y: int, x: int) -> list[int | None]:
    """Return the labels of a pixel's 4 neighbours, None outside the image."""
    height, width = labels.shape
    around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
    return [int(labels[v, u]) if 0 <= v < height and 0 <= u < width else None for v, u in around]


def is_boundary(labels: np.ndarray, y: int, x: int, dropped: int | None) -> bool:
    here = int(labels[y, x])
    return here != dropped and any(label not in (None, here, dropped) for label in sides(labels, y, x))


@given(pairs(), st.sampled_from([0.0, 0.1, 0.3]))
def test_boundary_recall_against_loops(pair: tuple[np.ndarray, np.ndarray], tolerance: float) -> None:
    label_map, truth = pair
    height, width = truth.shape
    reach = round(tolerance * (height**2 + width**2) ** 0.5)
    wanted = found = 0
    for y in range(height):
        for x in range(width):
            if is_boundary(truth, y, x, dropped=None):
                wanted += 1
                rows = range(max(0, y - reach), min(height, y + reach + 1))
                columns = range(max(0, x - reach), min(width, x + reach + 1))
                found += any(is_boundary(label_map, v, u, DROPPED) for v in rows for u in columns)
    assert boundary_recall(label_map, truth, tolerance) == pytest.approx(found / wanted if wanted else 1)


@given(pairs())
def test_errors_and_accuracies_of_areas_against_loops(pair: tuple[np.ndarray, np.ndarray]) -> None:
    label_map, truth = pair
    elements = [label_map == label for label in LABELS if label != DROPPED]
    segments = [truth == segment for segment in np.unique(truth)]
    error = 2 * int((label_map == DROPPED).sum())
    for segment in segments:
        for element in elements:
            error += min(int((element & segment).sum()), int((element & ~segment).sum()))
    right = sum(max(int((element & segment).sum()) for segment in segments) for element in elements)
    assert undersegmentation_error(label_map, truth) == pytest.approx(error / truth.size)
    assert achievable_segmentation_accuracy(label_map, truth) == pytest.approx(right / truth.size)


@given(pairs())
def test_compactness_against_loops(pair: tuple[np.ndarray, np.ndarray]) -> None:
    label_map, _ = pair
    expected = 0.0
    for label in set(LABELS) - {DROPPED}:
        pixels = list(zip(*np.nonzero(label_map == label), strict=True))
        perimeter = sum(side != label for y, x in pixels for side in sides(label_map, y, x))
        expected += len(pixels) * 4 * np.pi * len(pixels) / perimeter**2 if pixels else 0
    assert compactness(label_map) == pytest.approx(expected / label_map.size)


@given(pairs(), st.data(), st.sampled_from([0.0, 0.2]))
def test_agreed_boundary_recall_against_loops(
    pair: tuple[np.ndarray, np.ndarray], data: st.DataObject, tolerance: float
) -> None:
    label_map, first = pair
    truths = [first, data.draw(arrays.arrays(np.int64, first.shape, elements=st.integers(0, 2)))]
    height, width = first.shape
    reach = round(tolerance * (height**2 + width**2) ** 0.5)

    def near(labels: np.ndarray, y: int, x: int, dropped: int | None) -> bool:
        rows = range(max(0, y - reach), min(height, y + reach + 1))
        columns = range(max(0, x - reach), min(width, x + reach + 1))
        return any(is_boundary(labels, v, u, dropped) for v in rows for u in columns)

    shares = []
    for truth, other in (truths, truths[::-1]):
        pixels = [(y, x) for y in range(height) for x in range(width) if is_boundary(truth, y, x, None)]
        agreed = [pixel for pixel in pixels if near(other, *pixel, None)]
        found = [pixel for pixel in agreed if near(label_map, *pixel, DROPPED)]
        shares.append(len(found) / len(agreed) if agreed else 1)
    assert agreed_boundary_recall(label_map, truths, tolerance) == pytest.approx(np.mean(shares))


@given(pairs())
def test_contour_density_against_loops(pair: tuple[np.ndarray, np.ndarray]) -> None:
    label_map, _ = pair
    boundary = [is_boundary(label_map, y, x, DROPPED) for y, x in np.ndindex(label_map.shape)]
    assert contour_density(label_map) == pytest.approx(np.mean(boundary))


@given(pairs())
def test_bounds(pair: tuple[np.ndarray, np.ndarray]) -> None:
    label_map, truth = pair
    scores = score_partition(label_map, [truth])
    assert 0 <= scores.boundary_recall <= 1
    assert 0 <= scores.undersegmentation_error <= (2 if (label_map == DROPPED).any() else 1)
    assert 0 <= scores.achievable_segmentation_accuracy <= 1
    assert 0 <= scores.compactness <= np.pi / 4 + 1e-12


@given(pairs())
def test_a_perfect_partition(pair: tuple[np.ndarray, np.ndarray]) -> None:
    _, truth = pair
    assert score_partition((truth + 1).astype(np.uint16), [truth])[:3] == (1, 0, 1)


@given(pairs(), st.permutations([*range(10)]), st.permutations([*range(-1, 4)]))
def test_numbers_of_elements_and_segments_do_not_matter(
    pair: tuple[np.ndarray, np.ndarray], elements: list[int], segments: list[int]
) -> None:
    label_map, truth = pair
    renumbered = np.full(DROPPED + 1, DROPPED, np.uint16)
    renumbered[:10] = elements
    expected = score_partition(label_map, [truth])
    assert score_partition(renumbered[label_map], [np.array(segments)[truth]]) == pytest.approx(expected)


@given(pairs(), st.data())
def test_dropping_pixels_never_helps(pair: tuple[np.ndarray, np.ndarray], data: st.DataObject) -> None:
    label_map, truth = pair
    drop = data.draw(arrays.arrays(bool, truth.shape))
    before = score_partition(label_map, [truth])
    after = score_partition(np.where(drop, DROPPED, label_map).astype(np.uint16), [truth])
    assert after.boundary_recall <= before.boundary_recall
    assert after.undersegmentation_error >= before.undersegmentation_error
    assert after.achievable_segmentation_accuracy <= before.achievable_segmentation_accuracy


@given(pairs(), st.data())
def test_cutting_elements_never_hurts_accuracy_or_recall(
    pair: tuple[np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    label_map, truth = pair
    cut = data.draw(arrays.arrays(bool, truth.shape))
    finer = np.where(cut & (label_map != DROPPED), label_map + 100, label_map).astype(np.uint16)
    before, after = score_partition(label_map, [truth]), score_partition(finer, [truth])
    assert after.achievable_segmentation_accuracy >= before.achievable_segmentation_accuracy
    assert after.boundary_recall >= before.boundary_recall


def test_scores_by_hand() -> None:
    """Two halves of a 4 x 4 image; the partition's edge lies a pixel too far to the right, and a corner is dropped."""
    truth = np.tile([0, 0, 1, 1], (4, 1))
    label_map = np.tile([5, 5, 5, 3], (4, 1)).astype(np.uint16)
    label_map[0, 0] = DROPPED
    assert boundary_recall(label_map, truth, tolerance=0) == 4 / 8  # the third column, not the second
    assert boundary_recall(label_map, truth, tolerance=0.2) == 1  # r = round(0.2 * 5.66) = 1
    assert undersegmentation_error(label_map, truth) == (4 + 4 + 2) / 16
    assert achievable_segmentation_accuracy(label_map, truth) == (7 + 4) / 16
    # The left element has 11 pixels and a perimeter of 14; the right one 4 and 10.
    assert compactness(label_map) == pytest.approx(4 * np.pi * (11 * 11 / 14**2 + 4 * 4 / 10**2) / 16)


def test_squares_are_as_compact_as_pixels_can_be() -> None:
    cells = (np.arange(16)[:, None] // 4 * 4 + np.arange(16) // 4).astype(np.uint16)
    assert compactness(cells) == pytest.approx(np.pi / 4)


def test_a_dropped_seam_is_not_a_boundary() -> None:
    truth = np.tile([0, 0, 0, 1, 1, 1], (4, 1))
    label_map = truth.astype(np.uint16)
    assert boundary_recall(label_map, truth) == 1
    label_map[:, 3] = DROPPED
    assert boundary_recall(label_map, truth) == 0


def test_the_mean_over_people() -> None:
    label_map = np.tile([0, 0, 1, 1], (4, 1)).astype(np.uint16)
    agree, differ, blank = label_map.astype(int), label_map.T.astype(int), np.zeros((4, 4), int)
    expected = Scores((1 + 4 / 8 + 1) / 3, (0 + 16 / 16 + 0) / 3, (1 + 0.5 + 1) / 3, compactness(label_map), 1)
    assert score_partition(label_map, [agree, differ, blank]) == pytest.approx(expected)


def test_truths_are_read_from_both_kinds_of_file(tmp_path: Path) -> None:
    people = [np.arange(6).reshape(2, 3), np.zeros((2, 3), int)]
    truth = np.empty((1, 2), object)
    for k, person in enumerate(people):
        truth[0, k] = {"Segmentation": person.astype(np.uint16), "Boundaries": person > 0}
    io.savemat(tmp_path / "a.mat", {"groundTruth": truth})
    np.testing.assert_array_equal(read_truths(tmp_path / "a.mat"), people)
    Image.fromarray((1000 * people[0]).astype(np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_truths(tmp_path / "a.png"), [1000 * people[0]])


def test_files_that_hold_no_truth_are_named(tmp_path: Path) -> None:
    io.savemat(tmp_path / "other.mat", {"x": 1})
    (tmp_path / "text.mat").write_text("no MATLAB file")
    (tmp_path / "text.png").write_text("no PNG")
    for name in ("other.mat", "text.mat", "text.png"):
        with pytest.raises(ValueError, match=rf"{name}: expected BSDS500's groundTruth"):
            read_truths(tmp_path / name)
    Image.new("RGB", (2, 2)).save(tmp_path / "colour.png")
    with pytest.raises(ValueError, match=r"colour\.png: a label map has one channel, this has 3"):
        read_truths(tmp_path / "colour.png")


def test_a_photograph_of_the_berkeley_set(shared_data: Path) -> None:
    """Five people segmented it; each segmentation agrees with itself, and less with the others."""
    truths = read_truths(shared_data / "data" / "bsds500" / "groundTruth" / "val" / "101085.mat")
    assert len(truths) > 3
    assert {truth.shape for truth in truths} <= {(321, 481), (481, 321)}
    scores = [score_partition(truths[0].astype(np.uint16), [truth]) for truth in truths]
    assert scores[0][:3] == (1, 0, 1)
    assert all(0.3 < other.boundary_recall < 1 for other in scores[1:])
