"""Windows of a photograph: their places, and the conversion to a model's image and back."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from elements_jax.photograph.window import Window, box_of, grown, windows

lengths = st.integers(1, 9000)


@st.composite
def boxes_in_a_photograph(draw):
    height, width = draw(lengths), draw(lengths)

    def interval(length):
        start = draw(st.integers(0, length - 1))
        return start, draw(st.integers(start + 1, length))

    boxes = []
    for _ in range(draw(st.integers(1, 5))):
        (left, right), (top, bottom) = interval(width), interval(height)
        boxes.append((left, top, right, bottom))
    return boxes, (height, width), draw(st.sampled_from([16, 64, 512]))


@given(boxes_in_a_photograph())
@settings(max_examples=200, deadline=None)
def test_windows_hold_their_boxes_and_share_no_pixel(drawn):
    boxes, (height, width), smallest = drawn
    found = windows(boxes, (height, width), smallest)
    assert sorted(n for _, numbers in found for n in numbers) == list(range(len(boxes)))
    for window, numbers in found:
        left, top, right, bottom = window.box
        for n in numbers:
            x0, y0, x1, y1 = boxes[n]
            assert left <= x0 < x1 <= right
            assert top <= y0 < y1 <= bottom
        assert window.side <= max(height, width)
        assert window.side >= min(smallest, max(height, width))
        if window.side <= min(height, width):  # nothing is mirrored
            assert (right - left, bottom - top) == (window.side, window.side)
    for i, (one, _) in enumerate(found):
        for other, _ in found[i + 1 :]:
            a, b = one.box, other.box
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_far_edits_have_separate_windows_and_near_ones_share():
    size = (3000, 4000)
    far = windows([(100, 100, 200, 200), (3500, 2500, 3600, 2600)], size, 64)
    assert [(window.side, numbers) for window, numbers in far] == [(200, [0]), (200, [1])]
    ((near, numbers),) = windows([(100, 100, 200, 200), (250, 100, 350, 200)], size, 64)
    assert (near.side, numbers) == (500, [0, 1])


def test_a_large_edit_takes_the_complete_image():
    ((window, _),) = windows([(0, 10, 400, 290)], (300, 400), 64)
    assert window == Window(0, -50, 400, 300, 400)
    assert window.box == (0, 0, 400, 300)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(-20, 30), st.integers(-20, 30), st.integers(1, 40))
def test_beyond_the_photograph_it_is_mirrored(height, width, left, top, side):
    pixels = np.arange(height * width).reshape(height, width)
    margin = 70
    padded = np.pad(pixels, margin, mode="symmetric")
    expected = padded[top + margin : top + margin + side, left + margin : left + margin + side]
    np.testing.assert_array_equal(Window(left, top, side, height, width).cut(pixels), expected)


def test_a_smooth_picture_goes_to_the_model_and_back():
    y, x = np.mgrid[:90, :60]
    pixels = np.stack([x * 4, y * 2, x + y], axis=-1).astype(np.uint8)
    window = Window(-15, 0, 90, 90, 60)
    back = window.enlarge(window.resample(pixels, 45))
    assert back.shape == pixels.shape
    assert np.abs(back.astype(int) - pixels)[4:-4, 4:-4].max() <= 2


def test_the_crop_of_a_models_image_is_only_the_photograph():
    y, x = np.mgrid[:90, :60]
    pixels = np.stack([x * 4, y * 2, x + y], axis=-1).astype(np.uint8)
    window = Window(-15, 0, 90, 90, 60)
    assert window.crop(window.resample(pixels, 30)).shape == (30, 20, 3)


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_masks_are_resampled_by_the_share_of_each_pixel(least):
    mask = np.zeros((12, 12), bool)
    mask[:4, :6] = True
    found = Window(0, 0, 12, 12, 12).resample_mask(mask, 4, least)
    expected = np.zeros((4, 4), bool)
    expected[: 2 if least == 0 else 1, :2] = True
    np.testing.assert_array_equal(found, expected)


def test_boxes_of_masks():
    mask = np.zeros((5, 6), bool)
    assert box_of(mask) is None
    mask[1, 2] = mask[3, 4] = True
    assert box_of(mask) == (2, 1, 5, 4)
    assert grown((2, 1, 5, 4), 2, (5, 6)) == (0, 0, 6, 5)
