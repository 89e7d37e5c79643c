"""Objects of photographs: SAM's second look, and boxes without SAM."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from partition.segmenters.find_object import find_object
from partition.segmenters.object_in_box import object_in_box


def disc(height: int, width: int, centre: tuple[int, int], radius: int) -> np.ndarray:
    picture = Image.new("L", (width, height))
    x, y = centre
    ImageDraw.Draw(picture).ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
    return np.asarray(picture) > 0


def scene(mask: np.ndarray, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-12, 13, (*mask.shape, 3))
    return np.clip(np.where(mask[..., None], (200, 60, 40), (60, 110, 70)) + noise, 0, 255).astype(np.uint8)


class RedSelector:
    """Finds red pixels in place of SAM, and records its inputs."""

    def __init__(self):
        self.asked = []

    def __call__(self, image, positive, negative, box=None):
        self.asked.append((image.shape, positive, box))
        return image[..., 0].astype(int) > image[..., 1] + 40


@pytest.mark.parametrize(("size", "centre", "radius"), [((400, 600), (450, 120), 40), ((900, 300), (60, 800), 50)])
def test_a_small_object_is_looked_at_twice(size, centre, radius):
    mask = disc(*size, centre, radius)
    select = RedSelector()
    point = centre[0] / size[1], centre[1] / size[0]
    found, slack = find_object(select, scene(mask), point, None)
    assert (found & mask).sum() / (found | mask).sum() > 0.97
    (first, second) = select.asked
    assert first[2] is None
    assert second[2] is not None  # the second look gets the box of the first
    assert all(shape == (1024, 1024, 3) for shape, _, _ in select.asked)
    assert slack < max(size) / 256 + 1
    left, top, right, bottom = second[2]
    assert 0 < left < second[1][0, 0] < right < 1
    assert 0 < top < second[1][0, 1] < bottom < 1


def test_an_object_that_fills_the_photograph_is_segmented_once():
    mask = disc(300, 300, (150, 150), 130)
    select = RedSelector()
    found, _ = find_object(select, scene(mask), None, (0.0, 0.0, 1.0, 1.0))
    assert (found & mask).sum() / (found | mask).sum() > 0.97
    assert len(select.asked) == 1
    np.testing.assert_allclose(select.asked[0][2], [0, 0, 1, 1])


def test_nothing_found_is_an_empty_mask():
    found, _ = find_object(RedSelector(), np.zeros((40, 60, 3), np.uint8), (0.5, 0.5), None)
    assert found.shape == (40, 60)
    assert not found.any()


def test_specks_and_pinholes_go():
    mask = disc(300, 300, (150, 150), 60)
    noisy = mask.copy()
    noisy[10:13, 10:13] = True
    noisy[150:153, 150:153] = False
    found, _ = find_object(RedSelector(), scene(noisy), (0.4, 0.5), None)
    assert not found[:20, :20].any()
    assert found[148:156, 148:156].all()


@pytest.mark.parametrize("seed", range(3))
def test_a_box_finds_its_object_by_colour(seed):
    mask = disc(400, 500, (200 + 20 * seed, 180), 70)
    x, y = 200 + 20 * seed, 180
    box = ((x - 80) / 500, (y - 80) / 400, (x + 80) / 500, (y + 80) / 400)
    found, slack = object_in_box(scene(mask, seed), box)
    assert (found & mask).sum() / (found | mask).sum() > 0.93
    assert slack >= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (40, 40)])
def test_a_uniform_box_is_taken_completely(size):
    found, _ = object_in_box(np.full((*size, 3), 90, np.uint8), (0.2, 0.2, 0.8, 0.8))
    assert found.any()
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    assert rows[0] >= np.floor(0.2 * size[0])
    assert columns[-1] < np.ceil(0.8 * size[1]) + 1
