"""The arithmetic cost of Stable Diffusion 1.5's UNet: operations and bytes of its products and convolutions.

python tests/benchmarks/arithmetic.py
"""

import dataclasses

import jax
import jax.numpy as jnp

from elements_jax.config import ModelConfig
from elements_jax.models.networks import Networks
from train.cost.chips import CHIPS
from train.cost.flops import cost


def main() -> None:
    """Print the UNet's cost for a batch of two in bfloat16, and its least time on a TPU v5e."""
    chip = CHIPS["TPU v5 lite"]
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
        seconds = [asked / given for asked, given in ((flops, chip.flops), (moved, chip.bandwidth))]
        print(
            f"{name}, a batch of 2: {flops / 1e9:.0f} GFLOP, at least {moved / 1e9:.2f} GB in bfloat16: on a v5e "
            f"{1e3 * seconds[0]:.1f} ms of arithmetic, {1e3 * seconds[1]:.1f} ms of memory"
        )


if __name__ == "__main__":
    main()
