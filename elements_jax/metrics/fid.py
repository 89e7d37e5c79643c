"""Fréchet Inception distance (Heusel et al. 2017), computed like clean-fid (Parmar et al., CVPR 2022).

Images are resized with an antialiased bicubic filter in float32, without rounding to 8 bits; features are compared in
float64. Between images and their own reconstructions it is called rFID.
"""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import Partial
from jaxtyping import Array, Float, UInt8

from elements_jax.data.atomic import new_file, read_file
from elements_jax.metrics.inception import FEATURES, SIDE, inception, read_inception


def resized(image: UInt8[Array, "B H W 3"]) -> Float[Array, "B 299 299 3"]:
    """Resize images to Inception's size, in [0, 255], like Pillow's bicubic filter on each channel in float32."""
    rows, columns = (jnp.asarray(_bicubic(side), jnp.float32) for side in image.shape[1:3])
    narrow = jnp.einsum("wx,byxc->bywc", columns, image.astype(jnp.float32), precision=lax.Precision.HIGHEST)
    return jnp.clip(jnp.einsum("hy,bywc->bhwc", rows, narrow, precision=lax.Precision.HIGHEST), 0, 255)


def _bicubic(side: int) -> Float[np.ndarray, "299 side"]:
    """Return the weights of a row's pixels in the resized row: Keys' cubic, widened when shrinking.

    Computed in float64: the float32 weights of `jax.image.resize` are off by some thousandths of a grey level.
    """
    scale = side / SIDE
    centre = (np.arange(SIDE)[:, None] + 0.5) * scale
    apart = np.abs(np.arange(side) + 0.5 - centre) / max(scale, 1)
    near, far = (1.5 * apart - 2.5) * apart**2 + 1, ((-0.5 * apart + 2.5) * apart - 4) * apart + 2
    weights = np.where(apart < 1, near, np.where(apart < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


def extractor(path: Path) -> Partial:
    """Return the function from images, uint8 (B, H, W, 3), to features (B, 2048); its weights are pytree leaves.

    Raises the errors of `read_inception`.
    """
    network = inception()

    def features(params, image: UInt8[Array, "B H W 3"]) -> Float[Array, "B 2048"]:
        return network(params, (resized(image) - 128) / 128)  # like TensorFlow's graph

    return Partial(features, read_inception(path))


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and covariance of the features of images."""

    mean: Float[np.ndarray, " C"]
    covariance: Float[np.ndarray, "C C"]
    count: int | None
    """Number of images; None if unknown."""

    def save(self, path: Path) -> None:
        """Write `mu` and `sigma`, named as in pytorch-fid and clean-fid, and `count`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            np.savez(file, mu=self.mean, sigma=self.covariance, count=np.int64(self.count or 0))

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Read a file of `save`, pytorch-fid or clean-fid; the latter two do not contain the number of images.

        Raises OSError, or ValueError that names the file.
        """
        content = io.BytesIO(read_file(path))
        try:
            with np.load(content, allow_pickle=False) as archive:
                mean, covariance = archive["mu"].astype(np.float64), archive["sigma"].astype(np.float64)
                count = int(archive["count"]) if "count" in archive else 0
        except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path}: expected statistics for FID, mu and sigma in an .npz file: {error}") from error
        if mean.shape != (FEATURES,) or covariance.shape != (FEATURES, FEATURES):
            raise ValueError(f"{path}: expected mu and sigma of {FEATURES} features, got {mean.shape}")
        return cls(mean, covariance, count or None)


class Moments:
    """Accumulates statistics of features batch by batch, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self._mean: np.ndarray = np.zeros(())
        self._scatter: np.ndarray = np.zeros(())  # sum of the outer products of deviations from the mean

    def add(self, features: Float[np.ndarray, "B C"]) -> None:
        """Add a batch (Chan et al. 1979)."""
        features = features.astype(np.float64)
        count, mean = len(features), features.mean(axis=0)
        total, apart, deviations = self.count + count, mean - self._mean, features - mean
        between = np.outer(apart, apart) * (self.count * count / total)
        self._scatter = self._scatter + deviations.T @ deviations + between
        self._mean = self._mean + apart * (count / total)
        self.count = total

    def statistics(self) -> Statistics:
        """Return mean and unbiased covariance of all batches. Raises ValueError for fewer than two images."""
        if self.count < 2:
            raise ValueError(f"FID needs at least 2 images of each kind, got {self.count}")
        return Statistics(self._mean, self._scatter / (self.count - 1), self.count)


def frechet_distance(one: Statistics, other: Statistics) -> float:
    """Return |m - m'|^2 + Tr(S + S' - 2 (S S')^1/2), the distance of normal distributions with these statistics.

    S S' has the eigenvalues of R S' R, where R is the root of S. That product is symmetric, which avoids roots of
    singular matrices and complex roots; eigenvalues that rounding makes negative count as zero.
    """
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    products = np.linalg.eigvalsh(root @ other.covariance @ root)
    shared = np.sum(np.sqrt(np.maximum(products, 0)))
    apart = np.sum((one.mean - other.mean) ** 2)
    distance = float(apart + np.trace(one.covariance) + np.trace(other.covariance) - 2 * shared)
    return max(0.0, distance)  # rounding can make it negative for equal distributions
