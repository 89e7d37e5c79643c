"""Target and source regions, and their similarities for known results."""

import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.data.record import DROPPED, Record
from elements_jax.editing.script import Compose, Delete, EditError, EditScript, Move, Resize
from elements_jax.evaluation.displacement import displacement
from elements_jax.metrics.image_quality import masked_ssim

SIZE = 32


def record(seed: int) -> Record:
    """Return noise with element 1, of 8 x 8 px at (4, 4), inside element 0; one column is dropped."""
    image = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    label_map = np.zeros((SIZE, SIZE), np.uint16)
    label_map[4:12, 4:12] = 1
    label_map[:, -1] = DROPPED
    return Record(image, label_map, "", np.zeros((0, SIZE, SIZE), bool), str(seed), {"num_elements": 4})


def square(top: int, left: int, side: int = 8) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def of(*edits, tolerance: float = 1.0):
    return displacement(EditScript(edits, tolerance=tolerance), record(0), lambda name: record(int(name)))


@pytest.mark.parametrize(
    ("edits", "target", "source"),
    [
        ((Move((1,), (0.5, 0.0)),), square(4, 20), square(4, 4)),
        ((Move((1,), (0.125, 0.0)),), square(4, 8), square(4, 4) & ~square(4, 8)),
        ((Delete((1,)),), square(0, 0, 0), square(4, 4)),
        ((Resize((1,), 0.5),), square(6, 6, 4), square(4, 4) & ~square(6, 6, 4)),
        ((Resize((1,), 2.0),), square(0, 0, 16), square(0, 0, 0)),
        ((Delete((1,)), Compose("5", (1,), (0.5, 0.5))), square(20, 20), square(4, 4)),
        ((), square(0, 0, 0), square(0, 0, 0)),
    ],
)
def test_regions_are_the_arrival_and_the_source_of_objects(edits, target, source):
    found = of(*edits)
    np.testing.assert_array_equal(found["target"], target)
    np.testing.assert_array_equal(found["source"], source)


def test_covered_elements_are_not_a_source():
    found = of(Move((1,), (0.5, 0.0)), tolerance=0.0)  # all of element 0 is deleted, since the object covers it
    np.testing.assert_array_equal(found["source"], square(4, 4))


def test_an_inserted_object_has_the_pixels_of_its_own_record():
    found = of(Delete((1,)), Compose("5", (1,), (0.5, 0.5)))
    np.testing.assert_array_equal(found["pasted"][20:28, 20:28], record(5).image[4:12, 4:12])


def test_similarities_distinguish_move_copy_and_no_edit():
    before, found = record(0).image, of(Move((1,), (0.5, 0.0)))
    moved = np.where(found["source"][..., None], np.uint8(127), found["pasted"])

    def similarity(picture: np.ndarray, like: np.ndarray, region: str) -> float:
        a, b = (jnp.float32(each)[None] / 255 for each in (picture, like))
        return float(masked_ssim(a, b, jnp.asarray(found[region])[None])[0])

    for picture, arrived, stayed in ((moved, True, False), (found["pasted"], True, True), (before, False, True)):
        target = similarity(picture, found["pasted"], "target")
        source = similarity(picture, before, "source")
        assert (target > 0.99) if arrived else (target < 0.2)
        assert (source > 0.99) if stayed else (source < 0.2)


def test_a_script_that_does_not_fit_is_refused():
    with pytest.raises(EditError, match=r"edits\[0\] \(move\): element 2 is empty"):
        of(Move((2,), (0.5, 0.0)))
