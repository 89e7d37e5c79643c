"""Pixel editing by hand, and the masks that inpainting starts from."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from elements_jax.editing.script import Compose, Delete, Move, Resize
from elements_jax.evaluation.methods.morphology import closing, dilation
from elements_jax.evaluation.methods.pixel_editing import BLANK
from tests.helpers.scenes import CELL, GRID, SIZE, block, canvas, run


def test_move_copies_pixels_and_the_hole_is_only_the_source():
    done, image = run(Move((0, 1), (2 / GRID, 0.0))), np.asarray(canvas().picture)
    expected = image.copy()
    expected[:CELL, 2 * CELL : 4 * CELL] = image[:CELL, : 2 * CELL]
    np.testing.assert_array_equal(done.picture, expected)
    hole = np.zeros((SIZE, SIZE), bool)
    hole[:CELL, : 2 * CELL] = True
    np.testing.assert_array_equal(done.hole, hole)
    assert (done.blanked[hole] == BLANK).all()
    np.testing.assert_array_equal(done.blanked[~hole], expected[~hole])


def test_partly_covered_elements_leave_no_hole():
    done = run(Move((0,), (1.5 / GRID, 0.0)))
    hole = np.zeros((SIZE, SIZE), bool)
    hole[block(0, 0)] = True
    np.testing.assert_array_equal(done.hole, hole)


def test_a_hole_covered_by_another_element_is_closed():
    done = run(Delete((0, 1)), Move((8,), (0.0, -1 / GRID)))
    assert not done.hole[block(0, 0)].any()
    assert done.hole[block(0, 1)].all()
    assert done.hole[block(1, 0)].all()


def test_an_object_that_grows_leaves_no_hole():
    assert not run(Resize((9, 10), 1.5)).hole.any()
    assert run(Resize((9, 10), 0.5)).hole.any()


def test_composition_pastes_the_other_image_and_leaves_no_hole():
    done, other = run(Compose("7", (3, 4), (0.0, 2 / GRID))), np.asarray(canvas(7).picture)
    expected = np.asarray(canvas().picture).copy()
    expected[2 * CELL : 3 * CELL, 3 * CELL : 5 * CELL] = other[:CELL, 3 * CELL : 5 * CELL]
    np.testing.assert_array_equal(done.picture, expected)
    assert not done.hole.any()
    np.testing.assert_array_equal(done.pasted, (expected != np.asarray(canvas().picture)).any(-1))


def test_inpainting_mask_closes_gaps_but_excludes_pasted_pixels():
    start = canvas()
    dropped = np.asarray(start.label_map).copy()
    dropped[:, CELL - 1] = GRID**2  # pixels of no element, between the first column's and the second's
    gapped = dataclasses.replace(start, label_map=jnp.asarray(dropped))
    done = run(Delete((8, 9)), of=gapped)
    gap = np.zeros((SIZE, SIZE), bool)
    gap[CELL + 1 : 2 * CELL - 1, CELL - 1] = True
    assert not done.hole[gap].any()
    assert done.closed_hole()[gap].all()
    assert not (done.closed_hole() & done.pasted).any()
    moved = run(Move((9,), (1 / GRID, 0.0)), of=gapped)
    assert not (moved.closed_hole() & moved.pasted).any()


def test_a_script_without_edits_leaves_the_picture():
    np.testing.assert_array_equal(run().picture, canvas().picture)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.floats(0.05, 0.9))
def test_closing_is_scipys_within_a_wide_frame(seed, radius, share):
    mask = np.random.default_rng(seed).random((13, 17)) < share
    square = np.ones((2 * radius + 1,) * 2, bool)
    framed = np.pad(mask, 2 * radius)
    expected = scipy.ndimage.binary_closing(framed, square)[2 * radius : -2 * radius, 2 * radius : -2 * radius]
    ours = closing(mask, radius)
    inner = (slice(radius, -radius),) * 2
    np.testing.assert_array_equal(ours[inner], expected[inner])
    assert ours[mask].all()
    np.testing.assert_array_equal(dilation(mask, radius), scipy.ndimage.binary_dilation(mask, square))


@pytest.mark.parametrize("strange", [Move((0,), (3.0, 0.0)), Move((63,), (0.9, 0.9))])
def test_an_element_moved_out_of_the_image_leaves_a_hole(strange):
    done = run(strange)
    assert done.hole.sum() == CELL**2
    assert not done.pasted.any()
