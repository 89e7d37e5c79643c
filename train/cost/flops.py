"""The arithmetic cost of a program: operations and bytes of its products and convolutions, from its jaxpr."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import jaxprs_in_params


class Cost(NamedTuple):
    """Cost of a program, for arrays of the width with which it was traced."""

    flops: float  # a multiplication and an addition count as two
    bytes: float  # the products' operands and results, each moved once; operations between them count as fused

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times: float) -> "Cost":  # type: ignore[override]
        return Cost(self.flops * times, self.bytes * times)


def cost(function: Callable, *arguments: Any) -> Cost:
    """Trace the function from shapes and count it as on an accelerator, where attention scores stay on the chip."""
    return _cost(jax.make_jaxpr(function)(*arguments).jaxpr)


def training_cost(loss: Callable, params: Any, *arguments: Any) -> Cost:
    """Count `loss(params, *arguments)` and its gradient by `params`, by the convention of model FLOP utilisation.

    The gradient transposes the loss's derivative, and the transpose of a product costs as much as the product. So this
    counts the forward derivative, and nothing that only the backward pass computes: neither the recomputation of
    `jax.checkpoint` nor the zeros between the pixels of a strided convolution's gradient.
    """

    def derivative(params, *arguments):
        return jax.jvp(lambda params: loss(params, *arguments), (params,), (params,))

    return cost(derivative, params, *arguments)


def _cost(jaxpr: Any) -> Cost:
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


def _bytes(equation: Any) -> float:
    arrays = [*equation.invars, *equation.outvars]
    return sum(array.aval.size * array.aval.dtype.itemsize for array in arrays if array.aval.ndim > 0)
