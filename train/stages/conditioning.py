"""Random partition, element dropout and condition dropout of stage 2 (Section 3.3, Appendix C.2)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from train.config import DiffusionTrainConfig
from train.stage import Batch


def other_example(array: Shaped[Array, "B *rest"], shift: int) -> Shaped[Array, "B *rest"]:
    """Return for each example the entry `shift` places before it, around the batch."""
    return jnp.roll(array, shift, axis=0)


def with_partner_example(batch: Batch) -> Batch:
    """Add to every example the data of another one that stage 2 uses; call it before the batch is split.

    It adds `other_label_map`, for random partition, and, if there are masks, `other_object_mask`, for image element
    dropout (Section 3.3). Label maps, which are sent as small integers, become int32.
    """
    label_map = batch["label_map"].astype(jnp.int32)
    batch = batch | {"label_map": label_map, "other_label_map": other_example(label_map, 1)}
    if "object_mask" in batch:
        batch["other_object_mask"] = other_example(batch["object_mask"], -1)
    return batch


def overlaid_mask(
    batch: Batch, keep_text: Bool[Array, " B"], keys: Key[Array, " B"], own_mask_probability: float
) -> Bool[Array, "B H W"]:
    """Return the object mask to lay over each image: another example's (Section 3.3) or, with `own_mask_probability`,
    one of the image's own, if it has one and its caption is kept. Then only the caption says what was there."""
    if not own_mask_probability:
        return batch["other_object_mask"]
    own = jax.vmap(lambda key: jax.random.bernoulli(key, jnp.float32(own_mask_probability)))(keys)
    own &= keep_text & batch["own_mask"]
    return jnp.where(own[:, None, None], batch["object_mask"], batch["other_object_mask"])


def touched_elements(
    label_map: Int[Array, "B H W"], mask: Bool[Array, "B H W"], num_elements: int
) -> Bool[Array, "B N"]:
    """Return the elements that have at least one pixel under the mask."""

    def of_one(labels, covered):
        labels = jnp.where((labels >= 0) & (labels < num_elements), labels, num_elements)
        return jnp.zeros(num_elements + 1, bool).at[labels].max(covered)[:num_elements]

    batch = label_map.shape[0]
    return jax.vmap(of_one)(label_map.reshape(batch, -1), mask.reshape(batch, -1))


def dropped_elements(
    label_map: Int[Array, "B H W"],
    mask: Bool[Array, "B H W"],
    keys: Key[Array, " B"],
    *,
    probability: float,
    num_elements: int,
) -> Bool[Array, "B N"]:
    """Return the elements to drop: with `probability`, those that an object mask overlaps.

    This is the image element dropout of Section 3.3.
    """
    chosen = jax.vmap(lambda key: jax.random.bernoulli(key, jnp.float32(probability)))(keys)
    return touched_elements(label_map, mask, num_elements) & chosen[:, None]


def condition_dropout(
    keys: Key[Array, " B"], train: DiffusionTrainConfig
) -> tuple[Bool[Array, " B"], Bool[Array, " B"]]:
    """Draw (keep text, keep elements) for each example: exclusive cases of one random number (Appendix C.2)."""
    draw: Float[Array, " B"] = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32))(keys)
    text_end = train.drop_text + train.drop_both  # [0, text_end): no text; the part that overlaps: neither
    elements_end = text_end + train.drop_elements
    return draw >= text_end, (draw < train.drop_text) | (draw >= elements_end)
