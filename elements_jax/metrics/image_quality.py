"""Similarity of image pairs: MSE, PSNR and SSIM, over complete images or under a mask.

Pure functions of images in [0, 1], for use inside jit. A mean over no pixel, under an empty mask, is NaN.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

LEAST_ERROR = 1e-10
"""Error assumed for equal images: their PSNR is 100 dB, so that means stay finite."""
SIGMA, RADIUS = 1.5, 5
"""SSIM's Gaussian window in pixels, as in Wang et al. 2004: 11 x 11."""
C1, C2 = 0.01**2, 0.03**2


def mse(image: Float[Array, "B H W 3"], truth: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
    """Mean squared error."""
    return jnp.mean((image - truth) ** 2, axis=(1, 2, 3))


def psnr(image: Float[Array, "B H W 3"], truth: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
    """Peak signal-to-noise ratio in dB, at most 100."""
    return _decibel(mse(image, truth))


def masked_psnr(
    image: Float[Array, "B H W 3"], truth: Float[Array, "B H W 3"], mask: Bool[Array, "B H W"]
) -> Float[Array, " B"]:
    """PSNR over the pixels under a mask."""
    return _decibel(_masked_mean((image - truth) ** 2, mask))


def ssim(image: Float[Array, "B H W 3"], truth: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
    """Structural similarity (Wang et al. 2004), the mean over channels and over all windows inside the image.

    Equals scikit-image's
    `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)`.

    Raises ValueError for images smaller than a window.
    """
    if min(image.shape[1:3]) <= 2 * RADIUS:
        raise ValueError(f"SSIM needs images of at least {2 * RADIUS + 1} px per side, got {image.shape[1:3]}")
    return jnp.mean(_ssim_map(_blur, image, truth), axis=(1, 2, 3))


def masked_ssim(
    image: Float[Array, "B H W 3"], truth: Float[Array, "B H W 3"], mask: Bool[Array, "B H W"]
) -> Float[Array, " B"]:
    """SSIM under a mask: the mean over windows around each of its pixels, which see only pixels of the mask."""
    weight = mask[..., None].astype(image.dtype)
    margins = ((0, 0), (RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0))
    total = _blur(jnp.pad(weight, margins))

    def blur(x: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        return _blur(jnp.pad(x * weight, margins)) / jnp.where(mask[..., None], total, 1)

    return _masked_mean(_ssim_map(blur, image, truth), mask)


def _ssim_map(blur: Callable[[Array], Array], x: Array, y: Array) -> Array:
    mean_x, mean_y = blur(x), blur(y)
    variances = blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return luminance * (2 * covariance + C2) / (variances + C2)


def _blur(x: Float[Array, "B H W C"]) -> Float[Array, "B h w C"]:
    """Return Gaussian means over windows inside the image. As sums: convolutions lose precision on accelerators."""
    weights = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        length = x.shape[axis] - 2 * RADIUS
        shifted = (lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(len(weights)))
        x = sum((float(weight) * part for weight, part in zip(weights, shifted, strict=True)), start=jnp.zeros(()))
    return x


def _masked_mean(values: Float[Array, "B H W 3"], mask: Bool[Array, "B H W"]) -> Float[Array, " B"]:
    inside = jnp.sum(jnp.where(mask[..., None], values, 0), axis=(1, 2, 3))
    return inside / (values.shape[-1] * jnp.sum(mask, axis=(1, 2)))


def _decibel(error: Float[Array, " B"]) -> Float[Array, " B"]:
    return -10 * jnp.log10(jnp.maximum(error, LEAST_ERROR))
