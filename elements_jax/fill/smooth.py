"""Enlarges, shrinks and completes images smoothly."""

import numpy as np
from jaxtyping import Bool, Float, Shaped
from PIL import Image
from scipy import ndimage

SWEEPS = 30  # of Jacobi's method on each scale, which starts from the next coarser one


def resize(image: Shaped[np.ndarray, "h w C"], height: int, width: int) -> Float[np.ndarray, "height width C"]:
    """Resize by area averaging to shrink, and bicubically to enlarge."""
    kind = Image.Resampling.BOX if height < image.shape[0] else Image.Resampling.BICUBIC
    planes = np.moveaxis(np.asarray(image, np.float32), 2, 0)
    return np.stack([np.asarray(Image.fromarray(plane).resize((width, height), kind)) for plane in planes], 2)


def membrane(
    image: Float[np.ndarray, "H W C"],
    known: Bool[np.ndarray, "H W"],
    steps: Float[np.ndarray, "2 H W C"] | None = None,
) -> Float[np.ndarray, "H W C"]:
    """Complete an image by solving Poisson's equation in the unknown part, as far as the sweeps converge.

    `steps` are the wanted changes from each pixel to the one below and to the one on the right; by default 0. The
    result approaches them in the mean square. Without a known pixel the result is 0.
    """
    image = np.where(known[..., None], image, 0).astype(np.float32)
    if known.all() or not known.any():
        return image
    near = around(~known, 1)
    image[near] = _solved(image[near], known[near], None if steps is None else steps[:, *near])
    return image


def _solved(
    image: Float[np.ndarray, "H W C"], known: Bool[np.ndarray, "H W"], steps: Float[np.ndarray, "2 H W C"] | None
) -> Float[np.ndarray, "H W C"]:
    height, width = known.shape
    if max(height, width) > 2:
        even = ((0, height % 2), (0, width % 2))
        share = shrink(np.pad(known, even)[..., None].astype(np.float32))
        coarse = shrink(np.pad(image, (*even, (0, 0)))) / np.maximum(share, 0.25)
        of_squares = None if steps is None else _coarse(np.pad(steps, ((0, 0), *even, (0, 0))))
        start = membrane(coarse, share[..., 0] > 0, of_squares)
        start = resize(start, 2 * share.shape[0], 2 * share.shape[1])[:height, :width]
    else:
        start = np.broadcast_to(image[known].mean(0), image.shape)
    filled = np.where(known[..., None], image, start)
    laplacian = np.zeros_like(image)
    if steps is not None:
        down, right = steps[0, :-1], steps[1, :, :-1]
        laplacian[:-1] += down
        laplacian[1:] -= down
        laplacian[:, :-1] += right
        laplacian[:, 1:] -= right
    for _ in range(SWEEPS):
        padded = np.pad(filled, ((1, 1), (1, 1), (0, 0)), mode="edge")
        mean = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - laplacian) / 4
        filled = np.where(known[..., None], image, mean)
    return filled


def _coarse(steps: Float[np.ndarray, "2 H W C"]) -> Float[np.ndarray, "2 h w C"]:
    """Return the steps between the means of squares of 2 x 2 pixels."""

    def halved(down: Float[np.ndarray, "H W C"]) -> Float[np.ndarray, "h w C"]:
        inner, outer = down[0::2], down[1::2]
        steps = (inner + np.pad(inner[1:], ((0, 1), (0, 0), (0, 0)))) / 2 + outer
        return (steps[:, 0::2] + steps[:, 1::2]) / 2

    return np.stack([halved(steps[0]), halved(steps[1].swapaxes(0, 1)).swapaxes(0, 1)])


def around(hole: Bool[np.ndarray, "H W"], margin: int) -> tuple[slice, slice]:
    """Return the box of a hole, with a margin as far as the image goes."""
    spans = [np.flatnonzero(hole.any(axis)) for axis in (1, 0)]
    rows, columns = (slice(max(span[0] - margin, 0), span[-1] + 1 + margin) for span in spans)
    return rows, columns


def shrink(image: Float[np.ndarray, "H W C"]) -> Float[np.ndarray, "h w C"]:
    """Average squares of 2 x 2 pixels; height and width are even."""
    height, width, channels = image.shape
    return image.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3))


def shrink_mask(mask: Bool[np.ndarray, "H W"], size: tuple[int, int], least: float = 0.0) -> Bool[np.ndarray, "h w"]:
    """Shrink a mask to (width, height): a pixel is set if more than a share of `least` is under the mask."""
    share = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    return np.asarray(share) > 255 * least


def distance(mask: Bool[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Return the distance of each mask pixel to the nearest pixel outside; 0 if the mask covers everything."""
    return np.zeros(mask.shape) if mask.all() else ndimage.distance_transform_edt(mask)
