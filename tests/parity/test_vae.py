import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL as DiffusersAutoencoderKL

from elements_jax.checkpoints import torch_names
from elements_jax.config import VAEConfig
from elements_jax.models.functional import Functional
from elements_jax.models.vae import AutoencoderKL

CONFIGS = {
    "tiny": VAEConfig(block_out_channels=(16, 32, 32), layers_per_block=1, norm_groups=8),
    "without attention": VAEConfig((16, 32), layers_per_block=1, norm_groups=8, middle_attention=False),
    "as SD 1.5": VAEConfig(block_out_channels=(16, 32, 48, 48), layers_per_block=2, norm_groups=4),
}


@pytest.fixture(params=CONFIGS)
def config(request) -> VAEConfig:
    return CONFIGS[request.param]


@pytest.fixture
def theirs(config, randomise) -> DiffusersAutoencoderKL:
    levels = len(config.block_out_channels)
    return randomise(
        DiffusersAutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=config.block_out_channels,
            layers_per_block=config.layers_per_block,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_groups,
            mid_block_add_attention=config.middle_attention,
        )
    )


@pytest.fixture
def ours(config) -> Functional[AutoencoderKL]:
    return Functional(lambda rngs: AutoencoderKL(config, jnp.float32, rngs=rngs))


def test_equals_diffusers(config, ours, theirs, tensors_of, assert_same):
    params = torch_names.from_torch(torch_names.VAE, tensors_of(theirs), ours.shapes())
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (2, 40, 24, 3)).astype(np.float32)
    latent = rng.normal(size=(2, 5, 3, config.latent_channels)).astype(np.float32)
    nchw = lambda x: torch.from_numpy(x.transpose(0, 3, 1, 2))  # noqa: E731

    with torch.no_grad():
        moments = theirs.encode(nchw(image)).latent_dist
        decoded = theirs.decode(nchw(latent)).sample
    mean, logvar = jax.jit(lambda params, image: ours.module(params).encode(image))(params, image)
    assert_same(mean, moments.mean)
    assert_same(logvar, moments.logvar)
    assert_same(jax.jit(lambda params, latent: ours.module(params).decode(latent))(params, latent), decoded)


@pytest.mark.parametrize("config", ["tiny", "as SD 1.5"], indirect=True)
def test_reads_the_attention_names_of_older_checkpoints(ours, theirs, tensors_of):
    tensors = tensors_of(theirs)
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    older = {}
    for name, value in tensors.items():
        for now, then in renamed.items():
            name = name.replace(f".{now}.", f".{then}.")
        older[name] = value
    assert older.keys() != tensors.keys()
    params, expected = (torch_names.from_torch(torch_names.VAE, t, ours.shapes()) for t in (older, tensors))
    assert all(np.array_equal(params[name], expected[name]) for name in expected)
