"""Mattes and layers, against slow oracles and images with a known alpha."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import ndimage

from elements_jax.photograph import matte
from elements_jax.photograph.layers import Layer, Placement, place
from elements_jax.photograph.matte import alpha_matte, foreground

SIZE = 96


def disc(radius: float, soft: float = 1.0) -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    return np.clip((radius - np.hypot(x, y)) / soft + 0.5, 0, 1).astype(np.float32)


def textured(seed: int, colour: tuple[float, float, float]) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(SIZE, SIZE, 1)), (3, 3, 0))
    return np.clip(np.array(colour) * (1 + noise), 0, 1).astype(np.float32)


def composed(soft: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return an image, its true alpha, its foreground, and a mask whose edge is off by about two pixels."""
    alpha, front, back = disc(30, soft), textured(0, (0.8, 0.3, 0.2)), textured(1, (0.2, 0.5, 0.3))
    image = alpha[..., None] * front + (1 - alpha[..., None]) * back
    wobble = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(SIZE, SIZE)), 5)
    return image, alpha, front, disc(30 + 2 * wobble / wobble.std(), 0.01) > 0.5


@pytest.mark.parametrize("soft", [1.0, 4.0])
@pytest.mark.parametrize("most", [matte.MOST_UNKNOWNS, 600])  # the second solves at a lower resolution
def test_a_matte_is_much_nearer_the_truth_than_its_mask(soft, most, monkeypatch):
    monkeypatch.setattr(matte, "MOST_UNKNOWNS", most)
    image, truth, front, mask = composed(soft)
    alpha = alpha_matte(image, mask, slack=6.0)
    band = ndimage.binary_dilation((truth > 0) & (truth < 1), iterations=6)

    def error(values):
        return np.sqrt(((values - truth)[band] ** 2).mean())

    assert error(alpha) < error(mask) / 2.5
    # On another background there is no halo of the old one.
    new = textured(3, (0.1, 0.1, 0.9))
    wanted = truth[..., None] * front + (1 - truth[..., None]) * new

    def seen(a, colours):
        return np.abs(a[..., None] * colours + (1 - a[..., None]) * new - wanted)[band].mean()

    assert seen(alpha, foreground(image, alpha, 6.0)) < seen(mask.astype(np.float32), image) / 2.5


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1), st.floats(0.5, 6), st.sampled_from([1, 3, 4]))
@settings(deadline=None)
def test_a_matte_is_its_mask_away_from_the_edge(height, width, seed, slack, channels):
    rng = np.random.default_rng(seed)
    image = rng.random((height, width, channels), np.float32)
    mask = ndimage.gaussian_filter(rng.normal(size=(height, width)), 2) > 0
    alpha = alpha_matte(image, mask, slack)
    assert alpha.dtype == np.float32
    assert (alpha >= 0).all()
    assert (alpha <= 1).all()
    if mask.all() or not mask.any():
        np.testing.assert_array_equal(alpha, mask)
        return
    y, x = np.mgrid[:height, :width]
    for here in np.ndindex(height, width):  # the distance to the nearest pixel of the other kind, by brute force
        others = np.hypot(y - here[0], x - here[1])[mask != mask[here]]
        if others.min() > slack:
            assert alpha[here] == mask[here]
    colours = foreground(image, alpha, slack)
    np.testing.assert_array_equal(colours[alpha == 1], image[alpha == 1])


def test_the_laplacian_equals_the_papers():
    """The reference is Equation 12 of Levin et al., entry by entry, solved densely."""
    rng = np.random.default_rng(0)
    height, width = 7, 8
    image = rng.random((height, width, 3)).astype(np.float32)
    prior = rng.random((height, width)).astype(np.float32)
    known = np.zeros((height, width), bool)
    known[:2], known[-1:] = True, True
    laplacian = np.zeros((height * width,) * 2)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            window = [(y + dy) * width + x + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            colours = image.reshape(-1, 3)[window].astype(np.float64)
            mean, covariance = colours.mean(axis=0), np.cov(colours.T, bias=True)
            inverse = np.linalg.inv(covariance + matte.EPSILON / 9 * np.eye(3))
            for i, a in enumerate(window):
                for j, b in enumerate(window):
                    laplacian[a, b] += (a == b) - (1 + (colours[i] - mean) @ inverse @ (colours[j] - mean)) / 9
    free = ~known.ravel()
    left = laplacian[np.ix_(free, free)] + matte.TRUST * np.eye(free.sum())
    right = matte.TRUST * prior.ravel()[free] - laplacian[np.ix_(free, ~free)] @ prior.ravel()[~free]
    expected = prior.copy()
    expected.ravel()[free] = np.clip(np.linalg.solve(left, right), 0, 1)
    np.testing.assert_allclose(matte._closed_form(image, prior, known), expected, atol=2e-3)


def test_a_shift_keeps_every_pixel():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 80, 3)).astype(np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    colours, alpha, (left, top, right, bottom) = Layer(pixels, mask, 2.0, Placement(offset=(7.0, -5.0))).render(
        (60, 80)
    )
    shifted = np.roll(pixels, (-5, 7), axis=(0, 1))[top:bottom, left:right]
    inside = alpha == 1
    assert inside.sum() >= 16 * 16
    np.testing.assert_array_equal(np.rint(colours[inside] * 255), shifted[inside])


@given(st.floats(0.3, 3), st.floats(0.3, 3), st.floats(-30, 30), st.floats(-30, 30))
@settings(max_examples=30, deadline=None)
def test_a_scaled_layer_equals_slow_lanczos(sx, sy, dx, dy):
    size, mask = (40, 50), np.zeros((40, 50), bool)
    mask[12:28, 15:35] = True
    y, x = np.mgrid[:40, :50]
    pixels = np.stack([x * 5, y * 6, x + y], axis=-1).astype(np.uint8)
    layer = Layer(pixels, mask, 2.0, place((sx, sy), (25.0, 20.0), (dx, dy)))
    rendered = layer.render(size)
    if rendered is None:
        left, top, right, bottom = layer.placement.of(layer.box)
        assert right < 8 or bottom < 8 or left > 42 or top > 32
        return
    _, alpha, box = rendered
    _, source, around = layer.cut()
    full = np.zeros(size)
    full[around[1] : around[3], around[0] : around[2]] = source

    def weights(n_out, start, n_in, scale, offset):
        """Return weights of Lanczos with three lobes, widened when shrinking; outside the image they are zero."""
        centre = (np.arange(start, start + n_out) + 0.5 - offset) / scale
        widened = max(1 / scale, 1.0)
        distance = (np.arange(n_in) + 0.5 - centre[:, None]) / widened
        kernel = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
        total = kernel.sum(axis=1, keepdims=True)
        return np.where(total > 0.5, kernel / np.where(total > 0.5, total, 1), 0)

    (sx, sy), (ox, oy) = layer.placement.scale, layer.placement.offset
    rows = weights(box[3] - box[1], box[1], 40, sy, oy)
    columns = weights(box[2] - box[0], box[0], 50, sx, ox)
    expected = np.clip(rows @ full @ columns.T, 0, 1)
    assert np.abs(alpha - expected).max() < 0.02


@given(*[st.floats(0.1, 8)] * 2, *[st.floats(-500, 500)] * 4)
def test_placements_compose(sx, sy, ax, ay, dx, dy):
    one, two = place((sx, sy), (ax, ay), (dx, dy)), place((1.0, 1.0), (0.0, 0.0), (dy, dx))
    box = (3, 4, 50, 60)
    left, top, right, bottom = one.of(box)
    expected = left + round(dy), top + round(dx), right + round(dy), bottom + round(dx)
    np.testing.assert_allclose(one.then(two).of(box), expected, atol=1e-9)
    back = place((1 / sx, 1 / sy), (ax + dx, ay + dy), (-dx, -dy))
    np.testing.assert_allclose(one.then(back).of(box), box, atol=1e-6)
