"""Trust in a guide, from its agreement with the photograph around the hole."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from elements_jax.fill.smooth import distance, membrane, resize

BANDS = 4  # octaves of the guide with separate trust; the last includes all coarser ones
SMALLEST_PROBE = 4.0  # radius in pixels
NOISE = 3.0  # differences (out of 255) that say nothing about a guide


class Guide(NamedTuple):
    """A guide fitted to a photograph, at its size."""

    fitted: Float[np.ndarray, "H W 3"]  # with a gain and an offset per channel
    joined: Float[np.ndarray, "H W 3"]  # agrees with the photograph at the border of the hole
    trust: float  # trust in its detail, for the search
    trusts: list[float]  # trust in the low frequencies of each band, finest first
    step: float  # pixels of the photograph per pixel of the guide


def probes_for(hole: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Choose discs in the known part, far from the hole and the border: at most two, fewer if there is no room.

    A guide that did not see the discs either reveals there how good it is in the hole.
    """
    free = np.pad(~hole, 1)
    probes = np.zeros_like(hole)
    y, x = np.ogrid[: hole.shape[0], : hole.shape[1]]
    thickness = distance(hole).max()
    for _ in range(2):
        room = distance(free)[1:-1, 1:-1]
        at = np.unravel_index(room.argmax(), room.shape)
        radius = min(room[at] / 2, thickness)
        if radius < SMALLEST_PROBE:
            break
        disc = np.hypot(y - at[0], x - at[1]) <= radius
        probes |= disc
        free[1:-1, 1:-1] &= ~disc
    return probes


def fit_guide(
    photograph: UInt8[np.ndarray, "H W 3"],
    hole: Bool[np.ndarray, "H W"],
    guide: Float[np.ndarray, "h w 3"],
    probes: Bool[np.ndarray, "H W"] | None = None,
) -> Guide:
    """Fit a guide where it and the photograph are known, with more weight closer to the hole.

    Trust is the share of the photograph's variance that the guide explains there. However, a guide can show the
    surroundings and know nothing about the hole. If it leaves the hole smooth, trust is reduced in bands whose power in
    the hole is less than half of that around it. If there are probes, which the photograph shows and the guide did not
    see, trust in a band is at most the share of the variance that the guide explains and smoothness does not, in the
    worst probe. The coarsest band need not be better than smoothness, which is right in probes that are smaller and
    calmer than the hole: it need only explain the photograph's variance there.
    """
    height, width = hole.shape
    rows, columns = min(guide.shape[0], height), min(guide.shape[1], width)
    guide = resize(guide, rows, columns)
    blind = hole if probes is None else hole | probes
    share = resize(~hole[..., None], rows, columns)
    photo = resize(np.where(hole[..., None], 0, photograph), rows, columns) / np.maximum(share, 1e-6)
    known = resize(~blind[..., None], rows, columns)[..., 0] > 0.999
    step = max(height / rows, width / columns)
    if not known.any():
        fitted = resize(guide, height, width)
        return Guide(fitted, fitted, 1.0, [1.0] * BANDS, step)
    reach = np.sqrt((~known).sum())
    near = np.where(known, np.exp(-((distance(known) / reach) ** 2) / 2), 0)[..., None]

    def mean(values: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, " 3"]:
        return (values * near).sum((0, 1)) / near.sum()

    def explained(residual: Float[np.ndarray, "h w 3"], whole: Float[np.ndarray, "h w 3"]) -> float:
        left, all_of_it = mean(residual**2).sum(), mean(whole**2).sum()
        return float(np.clip(1 - left / (all_of_it + NOISE**2), 0, 1))

    of_guide, of_photo = guide - mean(guide), photo - mean(photo)
    gain = (mean(of_guide * of_photo) + NOISE**2) / (mean(of_guide**2) + NOISE**2)
    of_guide *= np.clip(gain, 0.5, 2)
    residual = np.where(known[..., None], of_photo - of_guide, 0)
    fitted = of_guide + mean(photo)
    whole = bands(np.where(known[..., None], of_photo, of_guide))
    trusts = [explained(*pair) for pair in zip(bands(residual), whole, strict=True)]
    lively = [1.0] * BANDS
    if (inner := share[..., 0] < 0.001).any():
        for k, band in enumerate(bands(of_guide)[:-1]):
            inside, around = (band[inner] ** 2).sum(1).mean(), mean(band**2).sum()
            lively[k] = float(np.clip(2 * (inside + NOISE) / (around + NOISE), 0, 1))
    trust = explained(residual, of_photo) * lively[0]
    trusts = [a * b for a, b in zip(trusts, lively, strict=True)]
    joined = fitted + membrane(residual, known)
    if probes is not None and (probed := resize(probes[..., None], rows, columns)[..., 0] > 0.999).any():
        seen = (known | probed)[..., None]
        left, smooth = (bands(np.where(seen, photo - fill, 0)) for fill in (joined, membrane(photo, known)))
        variance = mean(whole[-1] ** 2).sum()
        numbers, count = ndimage.label(probed)
        for probe in (numbers == n for n in range(1, count + 1)):
            powers = [*(_power(band[probe]) for band in smooth[:-1]), variance]
            worth = [_worth(_power(band[probe]), power) for band, power in zip(left, powers, strict=True)]
            trusts = [min(pair) for pair in zip(trusts, worth, strict=True)]
            trust = min(trust, _worth(*(_power(np.sum(all_bands, 0)[probe]) for all_bands in (left, smooth))))
    return Guide(resize(fitted, height, width), resize(joined, height, width), trust, trusts, step)


def _power(residual: Float[np.ndarray, "n 3"]) -> float:
    return float((residual**2).sum(1).mean())


def _worth(left: float, power: float) -> float:
    """Return the share of a power that is not left by a guide; small differences do not count."""
    return float(np.clip(1 - max(0, left - (2 * NOISE) ** 2) / (power + NOISE**2), 0, 1))


def bands(image: Float[np.ndarray, "h w 3"]) -> list[Float[np.ndarray, "h w 3"]]:
    """Split the image into octaves that add up to it, finest first."""
    height, width = image.shape[:2]
    smooth = [
        resize(resize(image, max(height >> k, 1), max(width >> k, 1)), height, width) if k else image
        for k in range(BANDS)
    ]
    return [fine - coarse for fine, coarse in zip(smooth, [*smooth[1:], np.zeros_like(image)], strict=True)]
