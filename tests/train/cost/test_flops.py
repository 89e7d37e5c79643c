"""Operations are counted correctly, compared with counts by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from elements_jax.models.attention import attention
from train.cost.flops import cost, training_cost


def array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def convolve(kernel, image):
    return lax.conv_general_dilated(image, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_a_product_counts_two_operations_a_term():
    found = cost(jnp.matmul, array(3, 5), array(5, 7))
    assert found.flops == 2 * 3 * 5 * 7
    assert found.bytes == 4 * (3 * 5 + 5 * 7 + 3 * 7)
    in_a_loop = cost(lambda xs, y: lax.map(lambda x: x @ y, xs), array(11, 3, 5), array(5, 7))
    assert in_a_loop.flops == 11 * found.flops


def test_a_convolution_counts_its_kernel_at_every_place():
    places, kernel = 2 * 4 * 4, 3 * 3 * 6 * 10  # a stride of two over 8 x 8 pixels
    assert cost(convolve, array(3, 3, 6, 10), array(2, 8, 8, 6)).flops == 2 * places * kernel


def test_attention_counts_scores_and_their_use():
    batch, queries, keys, heads, channels = 2, 12, 9, 3, 8
    q, k = array(batch, queries, heads, channels), array(batch, keys, heads, channels)
    assert cost(attention, q, k, k).flops == 2 * 2 * batch * heads * queries * keys * channels


def layers(params, x):
    return jnp.sum((jnp.tanh(x @ params["in"]) @ params["out"]) ** 2)


@pytest.mark.parametrize("remat", [False, True])
def test_gradients_count_twice_and_rematerialisation_not_at_all(remat):
    params, x = {"in": array(5, 7), "out": array(7, 4)}, array(3, 5)
    first, second = 2 * 3 * 5 * 7, 2 * 3 * 7 * 4
    loss = jax.checkpoint(layers) if remat else layers
    # Both operands of the second product need a gradient, and only the kernel of the first.
    assert training_cost(loss, params, x).flops == 2 * first + 3 * second
    gradient = cost(jax.value_and_grad(loss), params, x).flops
    assert (gradient > 2 * first + 3 * second) == remat


def test_a_strided_convolutions_gradient_counts_no_zeros():
    def loss(kernels, image):
        return jnp.sum(convolve(kernels["second"], convolve(kernels["first"], image)))

    kernels = {"first": array(3, 3, 6, 10), "second": array(3, 3, 10, 10)}
    first, second = 2 * 2 * 4 * 4 * 3 * 3 * 6 * 10, 2 * 2 * 2 * 2 * 3 * 3 * 10 * 10
    assert training_cost(loss, kernels, array(2, 8, 8, 6)).flops == 2 * first + 3 * second
