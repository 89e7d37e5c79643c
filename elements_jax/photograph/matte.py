"""Alpha mattes: the object's share of each pixel along its edge, and its own colour there.

A mask marks the object's pixels, but a pixel at the edge shows both object and background. Pasted elsewhere unchanged,
it would carry a fringe of the old background. Closed-form matting (Levin, Lischinski and Weiss 2008) finds the share of
the object in a narrow band around the mask's edge, and blur fusion (Forte 2021) its colour. NumPy and SciPy;
nothing is compiled.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped
from scipy import ndimage, sparse

EPSILON = 1e-5
"""Regularisation of the colour line of each 3 x 3 window, for colours in [0, 1]: noise of 0.3 % of the range."""
TRUST = 2e-3
"""Weight of the mask itself, which decides where colours are uninformative."""
MOST_UNKNOWNS = 60_000
"""Maximum pixels in the band; larger bands are solved at a lower resolution and enlarged along image edges."""
SOLVER_STEPS = 300


def alpha_matte(
    image: Float32[np.ndarray, "H W C"], mask: Bool[np.ndarray, "H W"], slack: float, reach: float | None = None
) -> Float32[np.ndarray, "H W"]:
    """Return the object's share of each pixel, in [0, 1]: exactly 1 deeper than `slack` in the mask, 0 beyond `reach`.

    Args:
        image: colours in [0, 1].
        slack: maximum distance of the mask's edge from the true one, in pixels.
        reach: maximum distance from the mask of what belongs to the object, such as hair; by default `slack`.
    """
    reach = slack if reach is None else reach
    inside, outside = _depth(mask), _depth(~mask)
    known = np.where(mask, inside > slack, outside > reach)
    unknowns = int(known.size - known.sum())
    if unknowns == 0:
        return mask.astype(np.float32)
    if unknowns > MOST_UNKNOWNS and reach > 2:
        return _matte_from_smaller(image, mask, known, slack, reach, (unknowns / MOST_UNKNOWNS) ** 0.5)
    prior = ndimage.gaussian_filter(mask.astype(np.float32), slack / 2)
    return _closed_form(image.astype(np.float32), np.where(known, mask, prior).astype(np.float32), known)


def foreground(
    image: Float32[np.ndarray, "H W C"], alpha: Float32[np.ndarray, "H W"], radius: float
) -> Float32[np.ndarray, "H W C"]:
    """Return the object's own colours: where alpha is between 0 and 1, the background's part is removed."""
    a = alpha[..., None]
    front, back = image, image
    for size in (8 * radius, radius):
        front, back = _blurred(front, a, size), _blurred(back, 1 - a, size)
        front = np.clip(front + a * (image - a * front - (1 - a) * back), 0, 1)
    return np.where(a == 1, image, front)


def _blurred(colour: Float32[np.ndarray, "H W C"], weight: Float32[np.ndarray, "H W 1"], size: float) -> np.ndarray:
    """Return the weighted mean colour around each pixel."""
    width = 2 * max(1, round(size)) + 1
    total = ndimage.uniform_filter(colour * weight, (width, width, 0), mode="nearest")
    return total / np.maximum(ndimage.uniform_filter(weight, (width, width, 0), mode="nearest"), 1e-5)


def _depth(mask: Bool[np.ndarray, "H W"]) -> Float64[np.ndarray, "H W"]:
    """Return the distance of each mask pixel from the mask's edge; a photograph's border is not an edge."""
    if mask.all():
        return np.full(mask.shape, np.inf)
    return ndimage.distance_transform_edt(mask)


def _matte_from_smaller(
    image: np.ndarray, mask: np.ndarray, known: np.ndarray, slack: float, reach: float, factor: float
) -> Float32[np.ndarray, "H W"]:
    """Solve at a lower resolution; enlarge as a linear function of colour (fast guided filter, He and Sun 2015)."""
    factor = min(factor, reach / 2)
    small_size = [max(2, round(side / factor)) for side in mask.shape]
    small = resized(image, small_size)
    small_mask = resized(mask.astype(np.float32)[..., None], small_size)[..., 0] > 0.5
    alpha = alpha_matte(small, small_mask, slack / factor, reach / factor)
    slope, offset = _colour_lines(small, alpha, radius=2)
    full = np.einsum("hwc,hwc->hw", resized(slope, mask.shape), image) + resized(offset[..., None], mask.shape)[..., 0]
    return np.where(known, mask, np.clip(full, 0, 1)).astype(np.float32)


def _colour_lines(image: np.ndarray, alpha: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit alpha as a linear function of colour around each pixel (guided filter, He et al. 2010)."""
    size, channels = 2 * radius + 1, image.shape[2]

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(values, (size, size) + (0,) * (values.ndim - 2), mode="nearest")

    mu, mean_alpha = mean(image), mean(alpha)
    covariance = mean(image[..., :, None] * image[..., None, :]) - mu[..., :, None] * mu[..., None, :]
    together = mean(image * alpha[..., None]) - mu * mean_alpha[..., None]
    slope = np.linalg.solve(covariance + 1e-4 * np.eye(channels, dtype=np.float32), together[..., None])[..., 0]
    return mean(slope), mean(mean_alpha - (slope * mu).sum(-1))


def resized(values: Shaped[np.ndarray, "H W C"], size: "tuple[int, int] | list[int]") -> Float32[np.ndarray, "h w C"]:
    """Resample to a height and width: bilinear, antialiased when shrinking."""
    from PIL import Image

    height, width = size
    channels = [
        np.asarray(Image.fromarray(np.ascontiguousarray(channel)).resize((width, height), Image.Resampling.BILINEAR))
        for channel in np.moveaxis(values.astype(np.float32), 2, 0)
    ]
    return np.stack(channels, axis=-1)


def _closed_form(image: np.ndarray, prior: np.ndarray, known: np.ndarray) -> Float32[np.ndarray, "H W"]:
    """Minimise alpha^T L alpha + TRUST (alpha - prior)^2 over the unknown pixels; L is the matting Laplacian."""
    height, width, channels = image.shape
    if min(height, width) < 3:
        return prior
    centres = ndimage.binary_dilation(~known, np.ones((3, 3)))
    centres[[0, -1]] = centres[:, [0, -1]] = False
    y, x = np.nonzero(centres)
    pixel = ((y * width + x)[:, None] + (np.arange(-1, 2)[:, None] * width + np.arange(-1, 2)).ravel()).astype(np.int32)
    colours = image.reshape(-1, channels)[pixel]  # K 9 C
    centred = colours - colours.mean(axis=1, keepdims=True)
    covariance = np.einsum("kic,kid->kcd", centred, centred) / 9 + EPSILON / 9 * np.eye(channels, dtype=np.float32)
    affinity = (1 + centred @ np.linalg.solve(covariance, centred.swapaxes(1, 2))) / 9  # K 9 9

    unknown = np.flatnonzero(~known)
    row_of = np.full(known.size, -1, np.int32)
    row_of[unknown] = np.arange(len(unknown))
    rows, columns = np.broadcast_arrays(row_of[pixel][:, :, None], pixel[:, None, :])
    used = rows >= 0
    rows, columns, values = rows[used], columns[used], affinity[used].astype(np.float64)
    count = len(unknown)
    weights = sparse.csr_array((values, (rows, columns)), shape=(count, known.size))
    degree = weights.sum(axis=1) + TRUST
    known_part = weights @ np.where(known, prior, 0).ravel()
    among = weights[:, unknown]
    right = known_part + TRUST * prior.ravel()[unknown]
    laplacian = sparse.diags_array(degree) - among
    solution, _ = sparse.linalg.cg(
        laplacian,
        right,
        x0=prior.ravel()[unknown].astype(np.float64),
        rtol=1e-4,
        maxiter=SOLVER_STEPS,
        M=sparse.diags_array(1 / np.maximum(laplacian.diagonal(), 1e-6)),
    )
    alpha = prior.copy()
    alpha.ravel()[unknown] = np.clip(solution, 0, 1)
    return alpha
