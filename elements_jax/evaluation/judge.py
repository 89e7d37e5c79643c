"""Evaluation of images in batches split over devices: metrics of each image, and FID over all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.tree_util import Partial
from jaxtyping import Array, Float
from tqdm import tqdm

from elements_jax.metrics import image_quality
from elements_jax.metrics.fid import Moments, Statistics, frechet_distance
from elements_jax.metrics.lpips import LPIPS
from elements_jax.parallel.sharding import pad_batch, replicated, shard_over_batch

Arrays = Mapping[str, np.ndarray]
"""The arrays of one sample: uint8 images (H, W, 3) and masks (H, W).

    picture   the evaluated image       truth    the true image            input   the image before the edit
    region    the mask of allowed changes        pasted, target, source    see `displacement`
"""
MASKS = ("region", "target", "source")
BATCHES_AHEAD = 2
"""Batches that are read or reconstructed ahead of the evaluated one."""

MetricName = Literal[
    "mse",
    "psnr",
    "ssim",
    "lpips-alex",
    "lpips-vgg",
    "edited-psnr",
    "untouched-psnr",
    "arrived-ssim",
    "left-behind-ssim",
]


@dataclass(frozen=True)
class Metric:
    """A metric of each image."""

    compute: Partial
    """A function of images in [0, 1] and masks; network weights are leaves of this pytree."""
    of: tuple[str, ...]
    """Names of its arguments."""
    high_is_good: bool = True


def _untouched(image: Array, before: Array, region: Array) -> Float[Array, " B"]:
    return image_quality.masked_psnr(image, before, ~region)


_PAIR = ("picture", "truth")
_PLAIN: dict[str, Metric] = {
    "mse": Metric(Partial(image_quality.mse), _PAIR, high_is_good=False),
    "psnr": Metric(Partial(image_quality.psnr), _PAIR),
    "ssim": Metric(Partial(image_quality.ssim), _PAIR),
    "edited-psnr": Metric(Partial(image_quality.masked_psnr), ("picture", "truth", "region")),
    "untouched-psnr": Metric(Partial(_untouched), ("picture", "input", "region")),
    "arrived-ssim": Metric(Partial(image_quality.masked_ssim), ("picture", "pasted", "target")),
    "left-behind-ssim": Metric(Partial(image_quality.masked_ssim), ("picture", "input", "source"), high_is_good=False),
}


def metric(name: MetricName) -> Metric:
    """Return a metric by name. Raises ValueError for LPIPS without its weights."""
    if name == "lpips-alex" or name == "lpips-vgg":
        lpips = LPIPS("alex" if name == "lpips-alex" else "vgg")
        return Metric(Partial(lpips.network, lpips.params), _PAIR, high_is_good=False)
    return _PLAIN[name]


@dataclass(frozen=True)
class Samples:
    """Images of one method, generated or read on demand."""

    method: str
    names: Sequence[str]
    kinds: Sequence[str]
    """The kind of edit of each image; "" if there is none."""
    read: Callable[[Sequence[int]], list[Arrays]]
    """Maps indices of images to their arrays; always called for a full batch."""
    weights: str | None = None
    """Checksum of the model that made them, if known."""
    reference: str = "truth"
    """The key of the images that FID compares with."""


@dataclass(frozen=True)
class Verdict:
    """The result of an evaluation."""

    count: int
    """Names of the images."""
    values: dict[str, Float[np.ndarray, " n"]]
    """Values of each metric; NaN for an image without the inputs of the metric."""
    statistics: Statistics | None
    """Feature statistics of the images, if FID is requested."""
    reference: Statistics | None
    """Feature statistics of the reference images."""

    def fid(self) -> float | None:
        """Return the distance between the two statistics."""
        if self.statistics is None or self.reference is None:
            return None
        return frechet_distance(self.statistics, self.reference)


class Judge:
    """Computes metrics; compiled once per image size."""

    def __init__(
        self,
        metrics: Mapping[str, Metric],
        mesh: Mesh,
        batch_size: int,
        extract: Partial | None = None,
        reference: Statistics | None = None,
    ):
        """
        Args:
            batch_size: over all devices; a multiple of their number.
            extract: the feature extractor of FID (`fid.extractor`); None for no FID.
            reference: statistics that FID compares with; by default those of the samples' own reference images, which
                must be the same for all samples given to one judge.
        """
        self.metrics = metrics
        self.batch_size = batch_size
        self._reference = reference
        self._has_fid = extract is not None
        computes = {name: metric.compute for name, metric in metrics.items()}
        self._shared = jax.device_put({"computes": computes, "extract": extract}, replicated(mesh))
        self._program = jax.jit(shard_over_batch(_judge, mesh), static_argnames=("of", "featured"))

    def __call__(self, samples: Samples, count: int) -> Verdict:
        """Evaluate the first `count` images. Raises ValueError that names an image of a different size."""
        of = tuple((name, metric.of) for name, metric in self.metrics.items())
        featured: tuple[str, ...] = ()
        if self._has_fid:
            featured = tuple(dict.fromkeys(["picture", "picture" if self._reference else samples.reference]))
        moments = {name: Moments() for name in featured}
        values = {name: np.full(count, np.nan) for name in self.metrics}
        keys = sorted({"picture", *featured, *(key for _, keys in of for key in keys)})
        with tqdm(total=count, desc=samples.method, unit="picture", delay=5) as bar:
            size = None
            for numbers, names, arrays in self._batches(samples, count):
                size = size or arrays[0]["picture"].shape[:2]
                there = {key: np.array([key in each for each in arrays]) for key in keys}
                batch = {key: _stacked(key, size, names, arrays) for key in keys}
                found = jax.device_get(self._program(self._shared, batch, of=of, featured=featured))
                for name, needed in of:
                    complete = np.logical_and.reduce([there[key] for key in needed])
                    values[name][numbers] = np.where(complete, found["values"][name], np.nan)[: len(numbers)]
                for name in featured:
                    moments[name].add(found["features"][name][: len(numbers)])
                bar.update(len(numbers))
        if self._has_fid and self._reference is None:
            self._reference = moments[samples.reference].statistics()
        return Verdict(count, values, moments["picture"].statistics() if self._has_fid else None, self._reference)

    def _batches(self, samples: Samples, count: int) -> Iterator[tuple[range, list[str], list[Arrays]]]:
        """Yield indices, names and arrays of images, read by a separate thread.

        The last batch is padded with copies of the last image, so that one program serves all.
        """
        starts = range(0, count, self.batch_size)

        def read(start: int) -> tuple[range, list[str], list[Arrays]]:
            numbers = range(start, min(start + self.batch_size, count))
            whole = pad_batch(numbers, self.batch_size)
            return numbers, [samples.names[number] for number in whole], samples.read(whole)

        ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=BATCHES_AHEAD)
        return iter(grain.MapDataset.source(starts).map(read).to_iter_dataset(ahead))


def _judge(shared: Any, batch: Any, *, of: Sequence[tuple[str, Sequence[str]]], featured: Sequence[str]) -> Any:
    floats = {key: value / 255 if value.dtype == jnp.uint8 else value for key, value in batch.items()}
    return {
        "values": {name: shared["computes"][name](*(floats[key] for key in keys)) for name, keys in of},
        "features": {key: shared["extract"](batch[key]) for key in featured},
    }


def _stacked(key: str, size: tuple[int, ...], names: Sequence[str], arrays: Sequence[Arrays]) -> np.ndarray:
    """Stack the arrays of a key; missing ones are black. Raises ValueError that names one of a different size."""
    blank = np.zeros(size, bool) if key in MASKS else np.zeros((*size, 3), np.uint8)
    found = []
    for name, each in zip(names, arrays, strict=True):
        array = each.get(key, blank)
        if array.shape[:2] != size:
            sizes = "{1} x {0} px, but the first image has {3} x {2}".format(*array.shape[:2], *size)
            raise ValueError(f"{name}: {key} has {sizes}: all must have the same size")
        found.append(array)
    return np.stack(found)
