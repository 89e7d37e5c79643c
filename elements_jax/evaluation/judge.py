"""Pictures judged batch by batch, each device its part: figures of each picture, and FID of all together."""

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
"""Of one picture, and what it is judged by: uint8 pictures (H, W, 3), and masks (H, W).

    picture   what is judged            truth    what it should be         input   what was edited
    region    where an edit may change it        pasted, target, source    see `arrival`
"""
MASKS = ("region", "target", "source")
BATCHES_AHEAD = 2
"""Batches that are read, or reconstructed, while one is judged."""

MetricName = Literal[
    "mse", "psnr", "ssim", "lpips-alex", "lpips-vgg", "edited-psnr", "untouched-psnr", "target", "source"
]


@dataclass(frozen=True)
class Metric:
    """A figure of each picture."""

    compute: Partial
    """From pictures in [0, 1] and masks; the weights of networks are leaves of this pytree."""
    of: tuple[str, ...]
    """The arrays that it takes."""
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
    "target": Metric(Partial(image_quality.masked_ssim), ("picture", "pasted", "target")),
    "source": Metric(Partial(image_quality.masked_ssim), ("picture", "input", "source"), high_is_good=False),
}


def metric(name: MetricName) -> Metric:
    """The metric of a name. Raises ValueError for LPIPS without its weights."""
    if name == "lpips-alex" or name == "lpips-vgg":
        lpips = LPIPS("alex" if name == "lpips-alex" else "vgg")
        return Metric(Partial(lpips.network, lpips.params), _PAIR, high_is_good=False)
    return _PLAIN[name]


@dataclass(frozen=True)
class Samples:
    """Pictures of one method, made or read when they are asked for."""

    method: str
    names: Sequence[str]
    kinds: Sequence[str]
    """Of each, the kind of edit that it shows, "" where there is none."""
    read: Callable[[Sequence[int]], list[Arrays]]
    """From numbers of pictures to what they are; always as many as a batch holds."""
    weights: str | None = None
    """Checksum of the model that made them, where it is known."""
    reference: str = "truth"
    """The pictures that FID compares with."""


@dataclass(frozen=True)
class Verdict:
    """What came of it."""

    count: int
    """Of pictures."""
    values: dict[str, Float[np.ndarray, " n"]]
    """Of each metric; NaN for a picture that lacks what the metric takes."""
    statistics: Statistics | None
    """Of their features, where FID is wanted."""
    reference: Statistics | None
    """Of the pictures that FID compares with."""

    def fid(self) -> float | None:
        """The distance between the two."""
        if self.statistics is None or self.reference is None:
            return None
        return frechet_distance(self.statistics, self.reference)


class Judge:
    """Judges by some metrics; compiled once for each size of picture."""

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
            batch_size: of all devices together, which must divide it.
            extract: the features of FID (`fid.extractor`); without it there is none.
            reference: what FID compares with; by default each sample's own reference pictures, which must be the same
                for all that one judge is given.
        """
        self.metrics = metrics
        self.batch_size = batch_size
        self._reference = reference
        self._has_fid = extract is not None
        computes = {name: metric.compute for name, metric in metrics.items()}
        self._shared = jax.device_put({"computes": computes, "extract": extract}, replicated(mesh))
        self._program = jax.jit(shard_over_batch(_judge, mesh), static_argnames=("of", "featured"))

    def __call__(self, samples: Samples, count: int) -> Verdict:
        """Judge the first `count` pictures. Raises ValueError naming a picture that is not of the others' size."""
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
        """Numbers, names and arrays of pictures, read by a thread of its own.

        The last batch is filled up with copies of the last picture, so that one program serves all.
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
    """The arrays under a key, black where a picture has none. Raises ValueError naming one of another size."""
    blank = np.zeros(size, bool) if key in MASKS else np.zeros((*size, 3), np.uint8)
    found = []
    for name, each in zip(names, arrays, strict=True):
        array = each.get(key, blank)
        if array.shape[:2] != size:
            sizes = "{1} x {0} px, where the first picture has {3} x {2}".format(*array.shape[:2], *size)
            raise ValueError(f"{name}: {key} has {sizes}: all must be of one size")
        found.append(array)
    return np.stack(found)
