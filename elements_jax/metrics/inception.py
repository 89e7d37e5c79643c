"""The Inception-v3 that FID uses: TensorFlow's of 2015-12-05, with the names of pytorch-fid's file.

It differs from the Inception-v3 for classification: its average pooling excludes the padding, and the last block uses
maximum pooling in place of average pooling.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from elements_jax.checkpoints import torch_names
from elements_jax.checkpoints.tensor_files import TensorFiles
from elements_jax.checkpoints.torch_pickle import read_pth
from elements_jax.models.functional import Functional, Params

SIDE = 299
"""Size of its training images in pixels."""
FEATURES = 2048
Kernel = int | tuple[int, int]


class FrozenBatchNorm(nnx.Module):
    """Batch normalisation by stored statistics, with TensorFlow's epsilon."""

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.running_mean = nnx.Param(jnp.zeros(channels))
        self.running_var = nnx.Param(jnp.ones(channels))

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
        scale = self.scale[...] * lax.rsqrt(self.running_var[...] + 1e-3)
        return (x - self.running_mean[...]) * scale + self.bias[...]


class ConvNorm(nnx.Module):
    """Convolution, normalisation, ReLU."""

    def __init__(
        self, before: int, channels: int, kernel: Kernel, stride: int = 1, padding: str = "SAME", *, rngs: nnx.Rngs
    ):
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        # At full precision even if devices would round by default, so that FID is the same everywhere.
        self.conv = nnx.Conv(
            before,
            channels,
            size,
            strides=stride,
            padding=padding,
            use_bias=False,
            precision=lax.Precision.HIGHEST,
            rngs=rngs,
        )
        self.bn = FrozenBatchNorm(channels)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2 C2"]:
        return jax.nn.relu(self.bn(self.conv(x)))


def mean_pool(x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
    """Mean over 3 x 3 pixels, only those inside the image."""
    return nnx.avg_pool(x, (3, 3), strides=(1, 1), padding="SAME", count_include_pad=False)


def max_pool(x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
    """Maximum over 3 x 3 pixels."""
    return nnx.max_pool(x, (3, 3), strides=(1, 1), padding="SAME")


def halve(x: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2 C"]:
    """Maximum over 3 x 3 pixels, every other one."""
    return nnx.max_pool(x, (3, 3), strides=(2, 2))


def joined(*branches: Float[Array, "B h w _"]) -> Float[Array, "B h w C"]:
    """Concatenate the channels of branches."""
    return jnp.concatenate(branches, axis=-1)


class InceptionA(nnx.Module):
    """Mixed_5: branches of 1 x 1, 5 x 5 and twice 3 x 3."""

    def __init__(self, before: int, pooled: int, *, rngs: nnx.Rngs):
        conv = partial(ConvNorm, rngs=rngs)
        self.branch1x1 = conv(before, 64, 1)
        self.branch5x5 = nnx.Sequential(conv(before, 48, 1), conv(48, 64, 5))
        self.branch3x3dbl = nnx.Sequential(conv(before, 64, 1), conv(64, 96, 3), conv(96, 96, 3))
        self.branch_pool = conv(before, pooled, 1)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C2"]:
        return joined(self.branch1x1(x), self.branch5x5(x), self.branch3x3dbl(x), self.branch_pool(mean_pool(x)))


class InceptionB(nnx.Module):
    """Mixed_6a, which halves the image."""

    def __init__(self, before: int, *, rngs: nnx.Rngs):
        conv = partial(ConvNorm, rngs=rngs)
        self.branch3x3 = conv(before, 384, 3, 2, "VALID")
        self.branch3x3dbl = nnx.Sequential(conv(before, 64, 1), conv(64, 96, 3), conv(96, 96, 3, 2, "VALID"))

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2 C2"]:
        return joined(self.branch3x3(x), self.branch3x3dbl(x), halve(x))


class InceptionC(nnx.Module):
    """Mixed_6: 7 x 7 as columns and rows, once and twice."""

    def __init__(self, before: int, inner: int, *, rngs: nnx.Rngs):
        conv = partial(ConvNorm, rngs=rngs)
        row, column = (1, 7), (7, 1)
        self.branch1x1 = conv(before, 192, 1)
        self.branch7x7 = nnx.Sequential(conv(before, inner, 1), conv(inner, inner, row), conv(inner, 192, column))
        self.branch7x7dbl = nnx.Sequential(
            conv(before, inner, 1),
            conv(inner, inner, column),
            conv(inner, inner, row),
            conv(inner, inner, column),
            conv(inner, 192, row),
        )
        self.branch_pool = conv(before, 192, 1)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C2"]:
        return joined(self.branch1x1(x), self.branch7x7(x), self.branch7x7dbl(x), self.branch_pool(mean_pool(x)))


class InceptionD(nnx.Module):
    """Mixed_7a, which halves the image."""

    def __init__(self, before: int, *, rngs: nnx.Rngs):
        conv = partial(ConvNorm, rngs=rngs)
        self.branch3x3 = nnx.Sequential(conv(before, 192, 1), conv(192, 320, 3, 2, "VALID"))
        self.branch7x7x3 = nnx.Sequential(
            conv(before, 192, 1), conv(192, 192, (1, 7)), conv(192, 192, (7, 1)), conv(192, 192, 3, 2, "VALID")
        )

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2 C2"]:
        return joined(self.branch3x3(x), self.branch7x7x3(x), halve(x))


class InceptionE(nnx.Module):
    """Mixed_7: branches that fork into a row and a column; the last block of the network pools by maximum."""

    def __init__(self, before: int, *, last: bool = False, rngs: nnx.Rngs):
        conv = partial(ConvNorm, rngs=rngs)
        row, column = (1, 3), (3, 1)
        self.last = last
        self.branch1x1 = conv(before, 320, 1)
        self.branch3x3_1 = conv(before, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = conv(384, 384, row), conv(384, 384, column)
        self.branch3x3dbl_1 = conv(before, 448, 1)
        self.branch3x3dbl_2 = conv(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = conv(384, 384, row), conv(384, 384, column)
        self.branch_pool = conv(before, 192, 1)

    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C2"]:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return joined(
            self.branch1x1(x),
            self.branch3x3_2a(once),
            self.branch3x3_2b(once),
            self.branch3x3dbl_3a(twice),
            self.branch3x3dbl_3b(twice),
            self.branch_pool(max_pool(x) if self.last else mean_pool(x)),
        )


class InceptionV3(nnx.Module):
    """Maps images of 299 x 299 px, in [-1, 1], to their features before the classifier."""

    def __init__(self, *, rngs: nnx.Rngs):
        conv = partial(ConvNorm, rngs=rngs)
        self.Conv2d_1a_3x3 = conv(3, 32, 3, 2, "VALID")
        self.Conv2d_2a_3x3 = conv(32, 32, 3, 1, "VALID")
        self.Conv2d_2b_3x3 = conv(32, 64, 3)
        self.Conv2d_3b_1x1 = conv(64, 80, 1)
        self.Conv2d_4a_3x3 = conv(80, 192, 3, 1, "VALID")
        self.Mixed_5b = InceptionA(192, 32, rngs=rngs)
        self.Mixed_5c = InceptionA(256, 64, rngs=rngs)
        self.Mixed_5d = InceptionA(288, 64, rngs=rngs)
        self.Mixed_6a = InceptionB(288, rngs=rngs)
        self.Mixed_6b = InceptionC(768, 128, rngs=rngs)
        self.Mixed_6c = InceptionC(768, 160, rngs=rngs)
        self.Mixed_6d = InceptionC(768, 160, rngs=rngs)
        self.Mixed_6e = InceptionC(768, 192, rngs=rngs)
        self.Mixed_7a = InceptionD(768, rngs=rngs)
        self.Mixed_7b = InceptionE(1280, rngs=rngs)
        self.Mixed_7c = InceptionE(2048, last=True, rngs=rngs)

    def __call__(self, image: Float[Array, "B H W 3"]) -> Float[Array, "B 2048"]:
        x = halve(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(image))))
        x = halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return jnp.mean(x, axis=(1, 2))


NAMES = replace(
    torch_names.OWN,
    names=((r"\.layers\.(\d)\.", lambda match: f"_{int(match[1]) + 1}."), *torch_names.OWN.names),
)
"""A branch's layers are numbered from 1 in that file: `branch5x5.layers.0` is `branch5x5_1`."""


def inception() -> Functional[InceptionV3]:
    """Return the network as a pure function of its parameters."""
    return Functional(lambda rngs: InceptionV3(rngs=rngs))


def read_inception(path: Path) -> Params:
    """Read the parameters from pytorch-fid's file, `pt_inception-2015-12-05-6726825d.pth`, or its safetensors version.

    Raises OSError, or ValueError that names the file and every tensor that is missing, unknown or misshapen.
    """
    tensors: Mapping[str, np.ndarray] = TensorFiles(path) if path.suffix == ".safetensors" else read_pth(path)
    # Not part of the features: the classifier, and the number of batches behind the means.
    used = {name: tensors[name] for name in tensors if not name.startswith("fc.") and "num_batches" not in name}
    try:
        return torch_names.from_torch(NAMES, used, inception().shapes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
