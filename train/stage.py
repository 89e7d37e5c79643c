"""The interface of a training stage. The loop knows nothing else about the model."""

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
    """A mean over examples that a batch may lack: sum and number are averaged separately, over parts and steps."""

    sum: Float[Array, ""]
    number: Float[Array, ""]


Metrics = dict[str, Any]
"""Metrics by name: a scalar each, or a `Ratio`."""


@runtime_checkable
class Stage(Protocol):
    """A loss and its wiring."""

    frozen: Tree
    """Parameters that are used but not trained; they are arguments of the step, so they are not compiled into it."""

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows of a sample grid from top to bottom, among them `input` and `reconstruction`."""

    @property
    def tokenize(self) -> Callable[[str], np.ndarray] | None:
        """Caption -> token ids, if the stage reads captions."""

    @property
    def masks(self) -> bool:
        """Whether the stage reads object masks."""

    @property
    def cached(self) -> bool:
        """Whether the stage reads the features that `elements cache` wrote into the records."""

    def pretrained(self) -> Tree:
        """Return the stage's parameters in the model folder, from which a run starts."""

    def shapes(self) -> Tree:
        """Return shapes and dtypes of the parameters."""

    def init(self, key: Key[Array, ""], pretrained: Tree) -> Tree:
        """Return the initial parameters, on the host: random ones where `pretrained` has none."""

    def cast(self, params: Tree) -> Tree:
        """Return the parameters in the dtypes of their arithmetic."""

    def loss(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], Metrics]:
        """Return the mean loss over a paired batch (`conditioning.with_partner_example`) or a part of one, and metrics.

        `keys` holds one key for each example; `step` counts the updates before this one.
        """

    def pictures(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"]
    ) -> dict[str, Float[Array, "B H W 3"]]:
        """Return the rows of a sample grid of a paired batch, in [-1, 1]."""

    def export(self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], made_by: str) -> None:
        """Write the parameters to the model folder; `batch` is the held-out batch. All arrays are complete on this
        host.

        `made_by` names the run and the step, for the folder's manifests.
        """


def example_keys(key: Key[Array, ""], step: Int[Array, ""] | int, index: Int[Array, " B"]) -> Key[Array, " B"]:
    """Return one key per example, from the step and the example's index.

    So an example's draws depend neither on its place in the batch nor on the mesh.
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.fold_in(key, step), index)


def normal(keys: Key[Array, " B"], shape: tuple[int, ...]) -> Float[Array, "B *shape"]:
    """Draw standard normal numbers of `shape` for each example."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(keys)


def to_float(image: UInt8[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """Convert a record's pixels from 0..255 to the models' range, -1..1."""
    return image.astype(jnp.float32) / 127.5 - 1


def psnr(image: Float[Array, "B H W 3"], truth: Float[Array, "B H W 3"]) -> Float[Array, ""]:
    """Return the peak signal-to-noise ratio in dB of images in [-1, 1], averaged over the images."""
    return jnp.mean(image_quality.psnr((jnp.clip(image, -1, 1) + 1) / 2, (truth + 1) / 2))
