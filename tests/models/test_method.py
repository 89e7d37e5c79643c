"""The method's parts as programs."""

import dataclasses

import jax
import jax.numpy as jnp

from elements_jax.elements import ImageElements
from elements_jax.models.method import decode_elements
from elements_jax.models.networks import Networks
from tests.helpers.records import SMALL


def test_the_loop_over_steps_reads_weights_that_are_cast():
    """Cast inside the loop, they would be read in float32 in every step."""
    networks = Networks(dataclasses.replace(SMALL, dtype="bfloat16"))
    elements = ImageElements(jnp.zeros((1, 4, 8)), jnp.zeros((1, 4, 4)), jnp.ones((1, 4), bool))
    tokens, noise = jnp.zeros((1, 6), jnp.int32), jnp.zeros((1, 8, 8, 4))

    def decode(params):
        return decode_elements(networks, params, elements, tokens, tokens, noise, jnp.ones(1), steps=3)

    params = {name: getattr(networks, name).shapes() for name in ("text_encoder", "unet", "vae")}
    traced = jax.make_jaxpr(decode)(params)
    [loop] = [each for each in traced.eqns if each.primitive.name == "scan" and each.params["length"] == 3]
    cast = jax.eval_shape(networks.unet.cast, params["unet"])
    kernels = {leaf.shape for leaf in cast.values() if len(leaf.shape) == 4 and leaf.dtype == jnp.bfloat16}
    read = [argument.aval.dtype for argument in loop.invars if argument.aval.shape in kernels]
    assert len(read) > 5
    assert set(read) == {jnp.dtype("bfloat16")}
