"""Preservation of unedited pixels: outside the edited region, a decoded image keeps the input's latent and pixels.

The paper's decoder generates every pixel instead. This follows Blended Latent Diffusion (Avrahami et al. 2023):
`schedule.with_preserved_region` keeps the latent while sampling; then `blend` keeps the pixels, which the VAE
would change.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, UInt8

from elements_jax.typing import pytree_dataclass


@pytree_dataclass
class Preserve:
    """The input image, and the region that may change (`edits.edited_region`)."""

    image: UInt8[Array, "B H W 3"] | UInt8[np.ndarray, "B H W 3"]
    region: Bool[Array, "B H W"] | Bool[np.ndarray, "B H W"]


def latent_cells(region: Bool[Array, "B H W"], cell: int) -> Bool[Array, "B h w"]:
    """Return the latent cells, of `cell` pixels per side, that contain any pixel of the region."""
    batch, height, width = region.shape
    return region.reshape(batch, height // cell, cell, width // cell, cell).any(axis=(2, 4))


def feather(region: Bool[Array, "B H W"], radius: int) -> Float[Array, "B H W"]:
    """Return weights of exactly 1 within `radius` pixels of the region, falling to exactly 0 beyond 3 `radius`.

    The region is dilated by 2 `radius`, then averaged over squares of `radius`. The soft edge and dropped
    pixels around an object's elements must not be kept: they would leave an outline of a removed object.
    """
    dilated = _over_squares(lax.max, region.astype(jnp.float32), 2 * radius)
    count, area = _over_squares(lax.add, dilated, radius), (2 * radius + 1) ** 2
    return jnp.where(count == area, 1.0, count / area)  # compiled, area / area may come out as 1 - 2^-24


def _over_squares(reduce: Callable[..., Array], values: Float[Array, "B H W"], radius: int) -> Float[Array, "B H W"]:
    """Reduce the square around each pixel, columns and then rows; borders are replicated."""
    values = jnp.pad(values, ((0, 0), (radius, radius), (radius, radius)), mode="edge")
    for window in ((1, 2 * radius + 1, 1), (1, 1, 2 * radius + 1)):
        values = lax.reduce_window(values, 0.0, reduce, window, (1, 1, 1), "VALID")
    return values


def blend(
    original: Float[Array, "B H W 3"], repainted: Float[Array, "B H W 3"], weight: Float[Array, "B H W"]
) -> Float[Array, "B H W 3"]:
    """Return exactly `repainted` at weight 1, exactly `original` at weight 0, and a mixture in between."""
    return weight[..., None] * repainted + (1 - weight[..., None]) * original
