"""What an edit leaves alone: outside the edited region, a decoded picture keeps the input's latent and its very pixels.

Beyond the paper, whose decoder draws every pixel. It follows Blended Latent Diffusion (Avrahami et al. 2023):
`schedule.with_preserved_region` keeps the latent while sampling; then `blend` keeps the pixels, which the VAE would
change.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, UInt8

from elements_jax.typing import pytree_dataclass


@pytree_dataclass
class Preserve:
    """The input, and where its picture may change (`edits.edited_region`)."""

    image: UInt8[Array, "B H W 3"] | UInt8[np.ndarray, "B H W 3"]
    region: Bool[Array, "B H W"] | Bool[np.ndarray, "B H W"]


def latent_cells(region: Bool[Array, "B H W"], cell: int) -> Bool[Array, "B h w"]:
    """The cells of a latent, `cell` pixels a side, of which any pixel is in the region."""
    batch, height, width = region.shape
    return region.reshape(batch, height // cell, cell, width // cell, cell).any(axis=(2, 4))


def feather(region: Bool[Array, "B H W"], radius: int) -> Float[Array, "B H W"]:
    """Weights of exactly 1 within `radius` pixels of the region, that fall to exactly 0 beyond 3 `radius`.

    The region is dilated by 2 `radius`, then averaged over squares of `radius`. Next to an object's elements are its
    soft edge and dropped pixels: kept, they would stay as an outline of an object that is gone.
    """
    dilated = _over_squares(lax.max, region.astype(jnp.float32), 2 * radius)
    count, area = _over_squares(lax.add, dilated, radius), (2 * radius + 1) ** 2
    return jnp.where(count == area, 1.0, count / area)  # compiled, area / area may come out as 1 - 2^-24


def _over_squares(reduce: Callable[..., Array], values: Float[Array, "B H W"], radius: int) -> Float[Array, "B H W"]:
    """Reduce the square around each pixel, columns and then rows; beyond the border the picture goes on as at it."""
    values = jnp.pad(values, ((0, 0), (radius, radius), (radius, radius)), mode="edge")
    for window in ((1, 2 * radius + 1, 1), (1, 1, 2 * radius + 1)):
        values = lax.reduce_window(values, 0.0, reduce, window, (1, 1, 1), "VALID")
    return values


def blend(
    original: Float[Array, "B H W 3"], repainted: Float[Array, "B H W 3"], weight: Float[Array, "B H W"]
) -> Float[Array, "B H W 3"]:
    """`repainted` where the weight is 1, `original` where it is 0, both exactly, and between them a mixture."""
    return weight[..., None] * repainted + (1 - weight[..., None]) * original
