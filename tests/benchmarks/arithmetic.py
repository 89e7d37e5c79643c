"""What Stable Diffusion 1.5's UNet costs by its arithmetic: operations and bytes of its products and convolutions.

python tests/benchmarks/arithmetic.py
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

from elements_jax.config import ModelConfig
from elements_jax.networks import Networks

TPU_V5E = 197e12, 0.82e12  # operations a second in bfloat16, bytes a second


class Cost(NamedTuple):
    """Of a program, on arrays of the width that it was traced with."""

    flops: float  # a multiplication and an addition are two
    bytes: float  # the products' operands and results, each moved once; what lies between is thought fused into them

    def __add__(self, other):
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times):
        return Cost(self.flops * times, self.bytes * times)


def cost(function: Callable, *arguments) -> Cost:
    """Traced from shapes, as a program for an accelerator. The scores of an attention stay on the chip."""
    return _cost(jax.make_jaxpr(function)(*arguments).jaxpr)


def _cost(jaxpr) -> Cost:
    total = Cost(0, 0)
    for equation in jaxpr.eqns:
        name, moved = equation.primitive.name, _bytes(equation)
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += Cost(2 * equation.outvars[0].aval.size * inner, moved)
        elif name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            inner = math.prod(kernel[axis] for axis in equation.params["dimension_numbers"].rhs_spec[1:])
            total += Cost(2 * equation.outvars[0].aval.size * inner, moved)
        elif name == "scan":
            total += _cost(equation.params["jaxpr"].jaxpr) * equation.params["length"]
        elif name == "cond":  # a branch for each platform, the default last
            total += Cost(_cost(equation.params["branches"][-1].jaxpr).flops, moved)
        else:
            for inside in jaxprs_in_params(equation.params):
                total += _cost(inside)
    return total


def _bytes(equation) -> float:
    arrays = [*equation.invars, *equation.outvars]
    return sum(array.aval.size * array.aval.dtype.itemsize for array in arrays if array.aval.ndim > 0)


def main() -> None:
    """What the UNet asks of a machine, a batch of two in bfloat16, and the least time that a TPU v5e would take."""
    config = dataclasses.replace(ModelConfig(), dtype="bfloat16")
    unet, size = Networks(config).unet, config.latent_size

    def forward(params, latent, timestep, *conditions):
        module = unet.module(params)
        return module(latent, timestep, module.context(*conditions))

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.bfloat16)

    params = {name: array(*spec.shape) for name, spec in unet.shapes().items()}
    inputs = params, array(2, size, size, 4), jax.ShapeDtypeStruct((2,), jnp.int32), array(2, 77, 768)
    tokens = array(2, config.elements.num_elements, config.elements.token_channels)
    for name, elements in (("UNet", None), ("UNet with 256 elements", tokens)):
        flops, moved = cost(forward, *inputs, elements)
        seconds = [asked / given for asked, given in zip((flops, moved), TPU_V5E, strict=True)]
        print(
            f"{name}, a batch of 2: {flops / 1e9:.0f} GFLOP, at least {moved / 1e9:.2f} GB in bfloat16: on a v5e "
            f"{1e3 * seconds[0]:.1f} ms of arithmetic, {1e3 * seconds[1]:.1f} ms of memory"
        )


if __name__ == "__main__":
    main()
