"""`extract_patches` against a plain NumPy oracle that loops over elements, pixels and cells."""

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from elements_jax.elements import MIN_COVERAGE, ImageElements, element_tokens, embed_position, extract_patches

SIZE, N, P = 24, 9, 8
DROPPED = 65535


def oracle(image, label_map, num_elements, patch_size):
    """Compute patches, positions and validity in float64, one cell at a time."""
    height, width = label_map.shape
    pixels = np.zeros((num_elements, patch_size, patch_size, 3))
    position, valid = np.zeros((num_elements, 4)), np.zeros(num_elements, bool)
    for n in range(num_elements):
        ys, xs = np.nonzero(label_map == n)
        if len(ys) == 0:
            continue
        top, left, box_h, box_w = ys.min(), xs.min(), np.ptp(ys) + 1, np.ptp(xs) + 1
        valid[n] = True
        position[n] = ((xs + 0.5).mean() / width, (ys + 0.5).mean() / height, box_w / width, box_h / height)
        for i in range(patch_size):
            weight_y = triangle(np.arange(box_h) + 0.5, (i + 0.5) * box_h / patch_size, box_h / patch_size)
            for j in range(patch_size):
                weight_x = triangle(np.arange(box_w) + 0.5, (j + 0.5) * box_w / patch_size, box_w / patch_size)
                weight = np.outer(weight_y, weight_x)
                box = np.s_[top : top + box_h, left : left + box_w]
                own = weight * (label_map[box] == n)
                if own.sum() > MIN_COVERAGE * weight.sum():
                    pixels[n, i, j] = np.tensordot(own, image[box], 2) / own.sum()
    return pixels, position, valid


def triangle(at, centre, scale):
    return np.maximum(0, 1 - np.abs(at - centre) / max(scale, 1))


def check_against_oracle(image, label_map):
    patches = extract_patches(
        jnp.asarray(image[None]), jnp.asarray(label_map[None].astype(np.int32)), num_elements=N, patch_size=P
    )
    pixels, position, valid = oracle(image, label_map, N, P)
    np.testing.assert_array_equal(patches.valid[0], valid)
    np.testing.assert_allclose(patches.position[0], position, atol=1e-5)
    np.testing.assert_allclose(patches.pixels[0], pixels, atol=1e-5)


def random_image(seed, size=SIZE):
    return np.random.default_rng(seed).uniform(-1, 1, (size, size, 3)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, N), st.booleans())
def test_extract_of_random_label_maps(seed, used, drop):
    rng = np.random.default_rng(seed)
    label_map = rng.integers(0, used, (SIZE, SIZE))  # scattered labels; the elements from `used` on are empty
    if drop:
        label_map[rng.random((SIZE, SIZE)) < 0.2] = DROPPED
    check_against_oracle(random_image(seed), label_map)


@pytest.mark.parametrize(
    "box",
    [
        np.s_[5:6, 7:8],  # one pixel
        np.s_[0:3, 20:24],  # in a corner
        np.s_[:, 0:1],  # a border line
        np.s_[:, :],  # the complete image
        np.s_[2:22, 3:21],  # larger than the patch on both sides
        np.s_[4:8, 1:23],  # enlarged along one axis, shrunk along the other
    ],
)
def test_extract_of_boxes(box):
    label_map = np.full((SIZE, SIZE), 3)
    label_map[box] = 1
    check_against_oracle(random_image(0), label_map)


@pytest.mark.parametrize("side", [6, 12, 18])  # a quarter of the image, half of it, more
def test_extract_from_windows(side):
    rng = np.random.default_rng(side)
    label_map = np.full((SIZE, SIZE), DROPPED)
    for n, (top, left) in enumerate([(0, 0), (SIZE - side, SIZE - side), (3, SIZE - side), (SIZE - side, 2)]):
        element = label_map[top : top + side, left : left + side]
        element[rng.random(element.shape) < 0.8] = n
    check_against_oracle(random_image(side), label_map)


def test_the_patch_of_a_uniform_element_ignores_its_surroundings():
    yy, xx = np.mgrid[:SIZE, :SIZE]
    disc = (yy - 11) ** 2 + (xx - 13) ** 2 < 60
    image = np.where(disc[..., None], np.float32([0.5, -0.25, 1.0]), random_image(1))
    label_map = np.where(disc, 4, 0)
    patch = extract_patches(
        jnp.asarray(image[None]), jnp.asarray(label_map[None]), num_elements=N, patch_size=P
    ).pixels[0, 4]
    shown = np.any(patch != 0, axis=-1)
    np.testing.assert_allclose(patch[shown], np.broadcast_to([0.5, -0.25, 1.0], patch[shown].shape), atol=1e-5)
    assert shown[P // 2, P // 2]  # the disc's middle
    assert not shown[0, 0]  # the corner of its box


def test_content_does_not_depend_on_place():
    image = random_image(2)
    element = np.zeros((SIZE, SIZE), bool)
    element[2:9, 3:12] = np.random.default_rng(0).random((7, 9)) < 0.8
    shift = (6, 9)
    moved = {"image": np.roll(image, shift, (0, 1)), "label_map": np.roll(np.where(element, 1, 0), shift, (0, 1))}
    here = extract_patches(
        jnp.asarray(image[None]), jnp.asarray(np.where(element, 1, 0)[None]), num_elements=N, patch_size=P
    )
    there = extract_patches(
        jnp.asarray(moved["image"][None]), jnp.asarray(moved["label_map"][None]), num_elements=N, patch_size=P
    )
    np.testing.assert_allclose(here.pixels[0, 1], there.pixels[0, 1], atol=1e-5)
    np.testing.assert_allclose(there.position[0, 1, :2] - here.position[0, 1, :2], [9 / SIZE, 6 / SIZE], atol=1e-5)
    np.testing.assert_allclose(there.position[0, 1, 2:], here.position[0, 1, 2:], atol=1e-6)


def test_embed_position_is_sine_and_cosine_of_octaves():
    values = np.float32([[0.0, 0.25, 0.7, 1.0]])
    embedded = np.asarray(embed_position(jnp.asarray(values), 3))
    expected = [f(2.0**k * np.pi * v) for v in values[0] for f in (np.sin, np.cos) for k in range(3)]
    assert embedded.shape == (1, 24)
    np.testing.assert_allclose(embedded[0], expected, atol=1e-5)


def test_the_token_of_an_invalid_element_is_zero_but_kept():
    rng = np.random.default_rng(0)
    elements = ImageElements(
        content=jnp.asarray(rng.normal(size=(1, 5, 4)), jnp.float32),
        position=jnp.asarray(rng.uniform(size=(1, 5, 4)), jnp.float32),
        valid=jnp.asarray([[True, False, True, True, False]]),
    )
    result = np.asarray(element_tokens(elements, frequencies=2))
    assert result.shape == (1, 5, 4 + 16)
    assert (np.abs(result[0]).sum(-1) > 0).tolist() == [True, False, True, True, False]
    np.testing.assert_array_equal(result[0, 2, :4], elements.content[0, 2])
