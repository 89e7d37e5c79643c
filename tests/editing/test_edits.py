"""The rules of editing, as properties over random canvases (SPEC section 6)."""

from dataclasses import replace

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from elements_jax.editing import edits
from elements_jax.editing.edits import Canvas, Transform, element_mask
from elements_jax.elements import ImageElements, extract_patches

SIZE, GRID, P = 20, 4, 4
N = GRID**2
ROOM = 8  # slots left empty, for composition

quick = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31)
shifts = st.tuples(st.floats(-1.2, 1.2), st.floats(-1.2, 1.2))
picks = st.lists(st.integers(0, N - 1), max_size=6, unique=True)
sequences = st.lists(st.tuples(st.sampled_from(["move", "resize", "delete", "compose"]), picks, shifts), max_size=5)


def canvas_of(seed: int, dropped: float = 0.1) -> Canvas:
    """Return Voronoi cells of jittered grid points, some pixels dropped; the last ROOM slots are empty."""
    rng = np.random.default_rng(seed)
    points = (np.stack(np.mgrid[:GRID, :GRID], -1).reshape(-1, 2) + rng.uniform(0.1, 0.9, (N, 2))) * SIZE / GRID
    pixels = np.stack(np.mgrid[:SIZE, :SIZE], -1) + 0.5
    label_map = ((pixels[:, :, None] - points) ** 2).sum(-1).argmin(-1)
    label_map[rng.random((SIZE, SIZE)) < dropped] = N + ROOM
    patches = extract_patches(
        jnp.asarray(rng.uniform(-1, 1, (1, SIZE, SIZE, 3)), jnp.float32),
        jnp.asarray(label_map[None]),
        num_elements=N + ROOM,
        patch_size=P,
    )
    content = jnp.asarray(rng.normal(size=(N + ROOM, 3)), jnp.float32)
    return Canvas(
        ImageElements(content, patches.position[0], patches.valid[0]), jnp.asarray(label_map, dtype=jnp.int32)
    )


def selected(indices):
    return element_mask(N + ROOM, indices)


def pixels_of(canvas: Canvas) -> np.ndarray:
    return np.bincount(np.asarray(canvas.label_map).ravel(), minlength=N + ROOM + 1)[: N + ROOM]


def check_invariants(before: Canvas, after: Canvas):
    """Check that label map and tokens agree; by construction each pixel has at most one element."""
    np.testing.assert_array_equal(pixels_of(after) > 0, after.elements.valid)
    assert after.elements.content.shape == before.elements.content.shape
    assert np.isfinite(after.elements.position).all()


def run_edit(canvas: Canvas, other: Canvas, kind: str, indices, shift) -> Canvas:
    chosen, by = selected(indices), Transform(jnp.float32(0.7), jnp.float32(shift), jnp.float32([0.5, 0.5]))
    if kind == "move":
        return edits.move(canvas, chosen, jnp.float32(shift))
    if kind == "delete":
        return edits.delete(canvas, chosen)
    if kind == "resize":
        return edits.transform(canvas, chosen, by)
    return edits.compose(canvas, other, chosen, by)[0]


def transform_oracle(canvas: Canvas, indices, scale, shift, anchor, tolerance):
    """Compute pixel by pixel where elements arrive, which they hit, and which are deleted."""
    label_map, valid = np.array(canvas.label_map), np.array(canvas.elements.valid)
    none = N + ROOM
    arrived = np.full_like(label_map, none)
    shift_px, anchor_px = np.round(np.float32(shift) * SIZE), np.float32(anchor) * SIZE
    for y in range(SIZE):
        for x in range(SIZE):
            source = np.floor((np.float32([x, y]) + 0.5 - shift_px - anchor_px) / np.float32(scale) + anchor_px)
            if (source >= 0).all() and (source < SIZE).all() and label_map[int(source[1]), int(source[0])] in indices:
                arrived[y, x] = label_map[int(source[1]), int(source[0])]
    result = np.where(np.isin(label_map, indices), none, label_map)
    for n in range(N + ROOM):
        if n in indices:
            valid[n] = (arrived == n).any()
        elif valid[n]:
            share = ((result == n) & (arrived != none)).sum() / (result == n).sum()
            if share > tolerance or share == 1:
                valid[n] = False
                result[result == n] = none
    return np.where(arrived != none, arrived, result), valid


@quick
@given(seeds, picks, shifts, st.floats(0.3, 2.5), st.sampled_from([0.0, 0.25, 0.6]))
def test_transform_equals_its_oracle(seed, indices, shift, scale, tolerance):
    canvas = canvas_of(seed)
    anchor = (0.4375, 0.5625)  # exact in binary, so that oracle and code round alike
    by = Transform(jnp.float32(scale), jnp.float32(shift), jnp.float32(anchor))
    after = edits.transform(canvas, selected(indices), by, tolerance)
    label_map, valid = transform_oracle(canvas, indices, scale, shift, anchor, tolerance)
    np.testing.assert_array_equal(after.label_map, label_map)
    np.testing.assert_array_equal(after.elements.valid, valid)
    np.testing.assert_array_equal(after.elements.content, canvas.elements.content)
    check_invariants(canvas, after)


@quick
@given(seeds, sequences)
def test_any_sequence_of_edits_keeps_the_invariants(seed, sequence):
    canvas, other = canvas_of(seed), canvas_of(seed + 1)
    for kind, indices, shift in sequence:
        before, canvas = canvas, run_edit(canvas, other, kind, indices, shift)
        check_invariants(before, canvas)


@quick
@given(seeds, sequences)
def test_edited_region_is_changed_labels_and_changed_elements(seed, sequence):
    before = after = canvas_of(seed)
    other = canvas_of(seed + 1)
    for kind, indices, shift in sequence:
        after = run_edit(after, other, kind, indices, shift)
    old, new = (jax.tree.map(np.asarray, canvas) for canvas in (before, after))
    expected = old.label_map != new.label_map
    for n in range(N + ROOM):  # dropped pixels that stay dropped are not edited
        pairs = zip(jax.tree.leaves(old.elements), jax.tree.leaves(new.elements), strict=True)
        if any((was[n] != is_now[n]).any() for was, is_now in pairs):
            expected[(old.label_map == n) | (new.label_map == n)] = True
    np.testing.assert_array_equal(edits.edited_region(before, after), expected)
    if not sequence:
        assert not expected.any()


def test_move_by_less_than_a_pixel_edits_only_that_element():
    canvas = canvas_of(2)
    after = edits.move(canvas, selected([5]), jnp.float32([0.4 / SIZE, 0.0]))
    np.testing.assert_array_equal(after.label_map, canvas.label_map)
    np.testing.assert_array_equal(edits.edited_region(canvas, after), canvas.label_map == 5)


def test_a_slot_taken_by_an_element_of_another_image_is_edited():
    canvas = canvas_of(2)
    other = Canvas(replace(canvas.elements, content=canvas.elements.content + 1), canvas.label_map)
    nothing = Transform(jnp.float32(1), jnp.zeros(2), jnp.zeros(2))
    after, slots = edits.compose(canvas, other, selected([5]), nothing)
    assert slots[5] == 5  # the label maps are the same
    np.testing.assert_array_equal(edits.edited_region(canvas, after), canvas.label_map == 5)


def test_an_element_that_gave_up_pixels_keeps_the_others():
    canvas = canvas_of(2)
    chosen, shift = selected([5]), jnp.float32([0.1, 0.0])
    after = edits.move(canvas, chosen, shift, tolerance=0.9)
    region = np.asarray(edits.edited_region(canvas, after))
    lives_on = np.asarray(after.label_map) == 6
    assert (region & (np.asarray(canvas.label_map) == 6)).any()
    assert lives_on.any()
    assert not region[lives_on].any()


@quick
@given(seeds, picks)
def test_delete_keeps_the_count_and_all_other_elements(seed, indices):
    canvas = canvas_of(seed)
    after = edits.delete(canvas, selected(indices))
    check_invariants(canvas, after)
    keep = ~np.isin(np.arange(N + ROOM), indices)
    np.testing.assert_array_equal(after.elements.valid, np.asarray(canvas.elements.valid) & keep)
    np.testing.assert_array_equal(after.elements.position, canvas.elements.position)


@quick
@given(seeds, st.integers(0, N - 1), shifts)
def test_move_there_and_back_is_the_identity_without_collision(seed, index, shift):
    # A single element collides with nothing. Draws that move it out of the image are skipped, since they clip it.
    alone = edits.delete(canvas_of(seed), ~selected([index]))
    there = edits.move(alone, selected([index]), jnp.float32(shift))
    if pixels_of(there)[index] != pixels_of(alone)[index]:
        return
    back = edits.move(there, selected([index]), -jnp.float32(shift))
    np.testing.assert_array_equal(back.label_map, alone.label_map)
    np.testing.assert_array_equal(back.elements.valid, alone.elements.valid)
    np.testing.assert_allclose(back.elements.position, alone.elements.position, atol=1e-6)


def test_move_shifts_centroids_and_resize_keeps_the_centre():
    canvas = canvas_of(3)
    moved = edits.move(canvas, selected([5]), jnp.float32([0.1, -0.2]))
    change = np.asarray(moved.elements.position - canvas.elements.position)
    np.testing.assert_allclose(change[5], [0.1, -0.2, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(np.delete(change, 5, axis=0), 0)

    chosen = selected([5, 6])
    ys, xs = np.nonzero(np.isin(canvas.label_map, [5, 6]))
    middle = np.array([xs.min() + xs.max() + 1, ys.min() + ys.max() + 1]) / (2 * SIZE)
    np.testing.assert_allclose(edits.centre(canvas, chosen), middle, atol=1e-6)
    before, after = canvas.elements.position[5], edits.resize(canvas, chosen, 0.5).elements.position[5]
    np.testing.assert_allclose(after[:2], middle + 0.5 * (np.asarray(before[:2]) - middle), atol=1e-6)
    np.testing.assert_allclose(after[2:], 0.5 * before[2:], atol=1e-6)


def test_an_element_moved_out_of_the_image_is_deleted():
    after = edits.move(canvas_of(0), selected([0]), jnp.float32([2.0, 0.0]))
    assert not after.elements.valid[0]


@quick
@given(seeds, picks, shifts)
def test_compose_puts_tokens_in_freed_slots(seed, indices, shift):
    canvas, other = canvas_of(seed), canvas_of(seed + 1)
    by = Transform(jnp.float32(1), jnp.float32(shift), jnp.zeros(2))
    after, slots = edits.compose(canvas, other, selected(indices), by)
    used = [int(s) for s in slots if s < N + ROOM]
    assert len(set(used)) == len(used)
    for source in np.flatnonzero(np.asarray(slots) < N + ROOM):
        slot = int(slots[source])
        assert source in indices
        assert after.elements.valid[slot]
        np.testing.assert_array_equal(after.elements.content[slot], other.elements.content[source])
        np.testing.assert_allclose(
            after.elements.position[slot] - other.elements.position[source], [*shift, 0, 0], atol=1e-5
        )
    check_invariants(canvas, after)


def test_compose_says_which_elements_found_no_slot():
    canvas = canvas_of(1, dropped=0.0)
    by = Transform(jnp.float32(0.2), jnp.zeros(2), jnp.zeros(2))  # sixteen small elements cover few of the target's
    after, slots = edits.compose(canvas, canvas_of(2), selected(range(N)), by, 0.99)
    placed = int((slots < N + ROOM).sum())
    assert placed < int((np.asarray(slots) >= 0).sum())
    assert int(after.elements.valid.sum()) <= N + ROOM
    check_invariants(canvas, after)


@pytest.mark.parametrize("scale", [(0.3, 0.3), (0.5, 1.0), (1.0, 1.0), (1.6, 2.5)])
def test_resized_pixels_are_antialiased_and_only_the_objects(scale):
    canvas = canvas_of(4)
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    by = Transform(jnp.float32(scale), jnp.float32([0.1, 0.0]), edits.centre(canvas, selected([5, 6])))
    after = edits.transform(replace(canvas, picture=jnp.asarray(image)), selected([5, 6]), by, 1.0)
    landed, chosen = np.isin(after.label_map, [5, 6]), np.isin(canvas.label_map, [5, 6])
    anchor, shift = np.asarray(by.anchor) * SIZE, np.round(0.1 * SIZE)
    expected = image.astype(np.float64)
    for y, x in zip(*np.nonzero(landed), strict=True):
        centre = (np.array([x + 0.5 - shift, y + 0.5]) - anchor) / scale + anchor
        weights = [
            np.maximum(0, 1 - np.abs(np.arange(SIZE) + 0.5 - centre[axis]) / max(1, 1 / scale[axis])) for axis in (1, 0)
        ]
        weight = np.outer(*weights) * chosen
        expected[y, x] = (weight[..., None] * image).sum((0, 1)) / weight.sum()
    assert landed.any()
    np.testing.assert_allclose(after.picture, expected, atol=0.51)


def test_edits_work_under_jit_and_vmap_without_recompiling():
    traces = []

    @jax.jit
    @jax.vmap
    def run(canvas, chosen, shift):
        traces.append(1)
        return edits.move(canvas, chosen, shift)

    batch = jax.tree.map(lambda *xs: jnp.stack(xs), canvas_of(0), canvas_of(1))
    for indices, shift in (([1, 2], [0.1, 0.0]), ([7], [0.0, -0.3])):
        chosen, shifted = jnp.stack([selected(indices)] * 2), jnp.float32([shift, shift])
        after = run(batch, chosen, shifted)
        expected = edits.move(canvas_of(1), chosen[1], shifted[1])
        np.testing.assert_array_equal(after.label_map[1], expected.label_map)
    assert len(traces) == 1


@pytest.mark.parametrize("indices", [[], [0], [3, 4]])
def test_an_edit_by_nothing_is_the_identity(indices):
    canvas = canvas_of(6)
    nothing = Transform(jnp.float32(1), jnp.zeros(2), jnp.float32([0.3, 0.3]))
    after = edits.transform(canvas, selected(indices), nothing)
    jax.tree.map(np.testing.assert_array_equal, after, canvas)
