"""What a stage of training is. The loop knows nothing else of the model."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

from elements_jax.metrics import image_quality
from elements_jax.typing import Tree

Batch = dict[str, Any]
"""Arrays of a batch by name (`train.input.data`), each with the example's axis first."""


class Ratio(NamedTuple):
    """A mean over examples of which a batch may have none: sum and number are averaged apart, over parts and steps."""

    sum: Float[Array, ""]
    number: Float[Array, ""]


Metrics = dict[str, Any]
"""Figures by name: a scalar each, or a `Ratio`."""


@runtime_checkable
class Stage(Protocol):
    """A loss and its wiring."""

    frozen: Tree
    """Parameters that are used and not trained; arguments of the step, so that they are not compiled in."""

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows of a sample grid from top to bottom, among them `input` and `reconstruction`."""

    @property
    def tokenize(self) -> Callable[[str], np.ndarray] | None:
        """Caption -> token ids, where the stage reads captions."""

    @property
    def masks(self) -> bool:
        """Whether the stage reads object masks."""

    @property
    def cached(self) -> bool:
        """Whether the stage reads what `elements cache` wrote into the records."""

    def pretrained(self) -> Tree:
        """Those of the stage's parameters that the model folder has, which a run starts from."""

    def shapes(self) -> Tree:
        """Shapes and dtypes of the parameters."""

    def init(self, key: Key[Array, ""], pretrained: Tree) -> Tree:
        """The parameters before the first step, on the host: fresh ones where `pretrained` has none."""

    def cast(self, params: Tree) -> Tree:
        """The parameters in the dtypes of the arithmetic they enter."""

    def loss(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], Metrics]:
        """Mean loss over a paired batch (`dropout.pair`), or a part of one, and further figures.

        `keys` holds one key for each example; `step` counts the updates before this one.
        """

    def pictures(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"]
    ) -> dict[str, Float[Array, "B H W 3"]]:
        """The rows of a sample grid of a paired batch, in [-1, 1]."""

    def export(self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], made_by: str) -> None:
        """Write the parameters to the model folder; `batch` is the held-out one, and all are whole on this host.

        `made_by` names the run and the step, for the folder's manifests.
        """


def example_keys(key: Key[Array, ""], step: Int[Array, ""] | int, index: Int[Array, " B"]) -> Key[Array, " B"]:
    """One key for each example, from the step and the example's own number.

    What an example draws depends neither on its place in the batch nor on the mesh.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.fold_in(key, step), index)


def normal(keys: Key[Array, " B"], shape: tuple[int, ...]) -> Float[Array, "B *shape"]:
    """Standard normal numbers of `shape` for each example."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def to_float(image: UInt8[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """Pixels of a record, 0 to 255, as the models take them, -1 to 1."""
    return image.astype(jnp.float32) / 127.5 - 1


def psnr(image: Float[Array, "B H W 3"], truth: Float[Array, "B H W 3"]) -> Float[Array, ""]:
    """Peak signal-to-noise ratio in dB of images in [-1, 1]: the mean of the images' own."""
    return jnp.mean(image_quality.psnr((jnp.clip(image, -1, 1) + 1) / 2, (truth + 1) / 2))
