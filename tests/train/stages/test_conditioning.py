import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.config import DiffusionTrainConfig
from train.stage import example_keys
from train.stages.conditioning import (
    condition_dropout,
    dropped_elements,
    other_example,
    overlaid_mask,
    touched_elements,
)

CONFIG = DiffusionTrainConfig(steps=1, batch_size=2, learning_rate=1e-3)


def keys(count, seed=0):
    return example_keys(jax.random.key(seed), 0, jnp.arange(count))


def test_condition_dropout_is_exclusive_at_the_papers_rates():
    count = 20_000
    text, elements = map(np.asarray, condition_dropout(keys(count), CONFIG))
    shares = [np.mean(case) for case in (text & elements, ~text & elements, text & ~elements, ~text & ~elements)]
    # Three standard deviations of a share of 0.5 in 20,000 draws.
    np.testing.assert_allclose(shares, [0.5, 0.3, 0.1, 0.1], atol=3 * 0.5 / count**0.5)


@pytest.mark.parametrize(
    ("probabilities", "kept"),
    [((0, 0, 0), (True, True)), ((1, 0, 0), (False, True)), ((0, 1, 0), (True, False)), ((0, 0, 1), (False, False))],
)
def test_each_case_of_condition_dropout(probabilities, kept):
    names = ("drop_text", "drop_elements", "drop_both")
    config = DiffusionTrainConfig(
        steps=1, batch_size=2, learning_rate=1, **dict(zip(names, probabilities, strict=True))
    )
    text, elements = condition_dropout(keys(100), config)
    assert (np.asarray(text) == kept[0]).all()
    assert (np.asarray(elements) == kept[1]).all()


def test_touched_elements_equals_a_loop_over_elements():
    rng = np.random.default_rng(0)
    label_map = rng.integers(0, 10, (6, 12, 12)).astype(np.int32)  # 9 and above belong to no element
    mask = rng.random((6, 12, 12)) < 0.03
    mask[0] = False
    mask[1] = True
    expected = [[(mask[b] & (label_map[b] == n)).any() for n in range(9)] for b in range(6)]
    assert not any(expected[0])
    assert 0 < np.mean(expected) < 1
    np.testing.assert_array_equal(touched_elements(jnp.asarray(label_map), jnp.asarray(mask), 9), expected)


def test_element_dropout_happens_with_its_probability():
    count = 4000
    label_map = jnp.zeros((count, 2, 2), jnp.int32)
    mask = jnp.ones((count, 2, 2), bool)
    for probability in (0.0, 0.25, 1.0):
        dropped = dropped_elements(label_map, mask, keys(count), probability=probability, num_elements=3)
        assert float(dropped[:, 0].mean()) == pytest.approx(probability, abs=3 * 0.5 / count**0.5)
        assert not dropped[:, 1:].any()  # elements without a pixel are never touched


@pytest.mark.parametrize("own_mask_probability", [0.0, 0.25, 1.0])
def test_hides_an_own_object_only_if_the_caption_is_kept(own_mask_probability):
    count = 4000
    keep_text = jnp.arange(count) % 2 == 0
    own_mask = jnp.arange(count) % 8 != 0
    masks = {"object_mask": jnp.ones((count, 2, 2), bool), "other_object_mask": jnp.zeros((count, 2, 2), bool)}
    own = np.asarray(overlaid_mask(masks | {"own_mask": own_mask}, keep_text, keys(count), own_mask_probability))
    assert (own == own[:, :1, :1]).all()
    assert not own[1::2].any()
    assert not own[::8].any()  # their mask is of another image
    share = own[np.asarray(keep_text & own_mask), 0, 0].mean()
    assert share == pytest.approx(own_mask_probability, abs=3 * 0.5 / (count * 3 / 8) ** 0.5)


def test_the_other_example_is_another():
    array = jnp.arange(5)
    for shift in (1, -1):
        assert (other_example(array, shift) != array).all()
    assert (other_example(array, 1) != other_example(array, -1)).all()
    assert other_example(array, 1)[1] == 0


def test_draws_depend_only_on_step_and_example():
    index = jnp.array([7, 3, 11, 4])
    key = jax.random.key(5)
    whole = jax.random.key_data(example_keys(key, 9, index))
    np.testing.assert_array_equal(jax.random.key_data(example_keys(key, 9, index[::-1])), whole[::-1])
    np.testing.assert_array_equal(jax.random.key_data(example_keys(key, 9, index[2:])), whole[2:])
    assert len(np.unique(np.concatenate([whole, jax.random.key_data(example_keys(key, 10, index))]), axis=0)) == 8
