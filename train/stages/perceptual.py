"""LPIPS as a loss: the perceptual distance between images and their truths, by VGG-16 (Zhang et al. 2018)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from elements_jax.metrics.lpips import LPIPS, PerceptualDistance
from elements_jax.models.functional import Functional, Params


@dataclass(frozen=True)
class PerceptualLoss:
    """`weight` times LPIPS of complete images or, if `crop` is given, of a random square of each.

    VGG-16 can cost more than the trained network: a square of half the side costs a quarter.
    """

    network: Functional[PerceptualDistance]
    weight: float
    crop: int | None

    @classmethod
    def load(cls, weight: float, crop: int | None, dtype: DTypeLike) -> tuple["PerceptualLoss", Params]:
        """Return the loss, with convolutions in `dtype`, and VGG-16's parameters.

        Raises ValueError if those are not installed.
        """
        lpips = LPIPS("vgg", dtype)
        return cls(lpips.network, weight, crop), lpips.params

    def __call__(
        self, params: Params, made: Float[Array, "B H W 3"], image: Float[Array, "B H W 3"], keys: Key[Array, " B"]
    ) -> Float[Array, " B"]:
        """Return the loss of each image, in [-1, 1]; `keys` draw the squares."""
        if self.crop:
            made, image = random_crops(keys, self.crop, made, image)
        return self.weight * self.network(params, (made + 1) / 2, (image + 1) / 2)  # LPIPS takes images in [0, 1]


def random_crops(
    keys: Key[Array, " B"], side: int, *images: Float[Array, "B H W 3"]
) -> list[Float[Array, "B {side} {side} 3"]]:
    """Cut a square of each example, at a random place that all `images` share.

    Raises ValueError if the images are smaller than the square.
    """
    height, width = images[0].shape[1:3]
    if side > min(height, width):
        raise ValueError(f"a crop of {side} x {side} px does not fit into images of {height} x {width} px")

    def one(key, *images):
        corner = jax.random.randint(key, (2,), 0, jnp.int32([height - side + 1, width - side + 1]), jnp.int32)
        return [jax.lax.dynamic_slice(image, (*corner, jnp.int32(0)), (side, side, 3)) for image in images]

    own = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)  # the stages draw from the keys themselves
    return jax.vmap(one)(own, *images)
