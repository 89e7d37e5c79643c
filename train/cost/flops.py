"""What a program costs by its arithmetic: operations and bytes of its products and convolutions, from its jaxpr."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import jaxprs_in_params


class Cost(NamedTuple):
    """Of a program, on arrays of the width that it was traced with."""

    flops: float  # a multiplication and an addition are two
    bytes: float  # the products' operands and results, each moved once; what is between is thought fused into them

    def __add__(self, other: "Cost") -> "Cost":  # type: ignore[override]
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times: float) -> "Cost":  # type: ignore[override]
        return Cost(self.flops * times, self.bytes * times)


def cost(function: Callable, *arguments: Any) -> Cost:
    """Traced from shapes, as a program for an accelerator. The scores of an attention stay on the chip."""
    return _cost(jax.make_jaxpr(function)(*arguments).jaxpr)


def training_cost(loss: Callable, params: Any, *arguments: Any) -> Cost:
    """Of `loss(params, *arguments)` and its gradient by `params`, as utilisation counts it by convention.

    The gradient transposes the loss's derivative, and a product's transposes cost what it costs itself. So the
    derivative is counted, forwards, and nothing that only the way back computes: neither what `jax.checkpoint` computes
    again nor the zeros between the pixels of a strided convolution's gradient.
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
