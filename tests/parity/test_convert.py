import math

import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.checkpoints import torch_names
from elements_jax.config import ModelConfig, TextConfig, UNetConfig, VAEConfig
from elements_jax.models.functional import Functional
from elements_jax.models.text_encoder import CLIPTextEncoder
from elements_jax.models.unet import FlaxUNet
from elements_jax.models.vae import AutoencoderKL
from tests.helpers.stable_diffusion import TABLES, official_name, theirs

SD15 = ModelConfig()
OURS = {
    "unet": lambda: Functional(
        lambda rngs: FlaxUNet(SD15.unet, 4, SD15.text.hidden_size, SD15.elements.token_channels, jnp.float32, rngs=rngs)
    ),
    "vae": lambda: Functional(lambda rngs: AutoencoderKL(SD15.vae, jnp.float32, rngs=rngs)),
    "text_encoder": lambda: Functional(lambda rngs: CLIPTextEncoder(SD15.text, jnp.float32, rngs=rngs)),
}


@pytest.mark.parametrize(
    ("network", "tensors", "millions"), [("unet", 686, 859.52), ("vae", 248, 83.65), ("text_encoder", 196, 123.06)]
)
def test_default_config_has_the_parameters_of_sd15(network, tensors, millions):
    """It has every name and shape of the published networks, and besides only the attention to elements."""
    state = theirs(network).state_dict()
    published = {official_name(network, name): tuple(value.shape) for name, value in state.items()}
    assert len(published) == tensors
    assert sum(map(math.prod, published.values())) / 1e6 == pytest.approx(millions, abs=0.005)

    ours = torch_names.torch_shapes(TABLES[network], OURS[network]().shapes())
    assert {name: shape for name, shape in ours.items() if "element" not in name} == published
    new = {name: shape for name, shape in ours.items() if name not in published}
    if network == "unet":
        assert len(new) == 16 * 7  # per block: to_q, to_k, to_v, to_out and its bias, the norm's scale and bias
        assert sum(map(math.prod, new.values())) / 1e6 == pytest.approx(27.61, abs=0.005)
    else:
        assert not new


TINY = Functional(
    lambda rngs: FlaxUNet(
        UNetConfig(block_out_channels=(16, 32), attention_levels=(True, False), layers_per_block=1, norm_groups=8),
        *(4, 24, 20),
        jnp.float32,
        rngs=rngs,
    )
)


def pytorch_tensors(table: torch_names.Table, network: Functional) -> dict[str, np.ndarray]:
    """Random tensors under PyTorch's names, including the attention to elements."""
    rng = np.random.default_rng(0)
    shapes = torch_names.torch_shapes(table, network.shapes())
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


SMALL = {
    "unet": TINY,
    "vae": Functional(lambda rngs: AutoencoderKL(VAEConfig((8, 16), 1, norm_groups=4), jnp.float32, rngs=rngs)),
    "text_encoder": Functional(lambda rngs: CLIPTextEncoder(TextConfig(50, 8, 16, 32, 1, 2), jnp.float32, rngs=rngs)),
}


@pytest.mark.parametrize("network", TABLES)
def test_round_trip_is_bit_exact(network):
    table = TABLES[network]
    tensors = pytorch_tensors(table, SMALL[network])
    back = torch_names.to_torch(table, torch_names.from_torch(table, tensors, SMALL[network].shapes()))
    assert back.keys() == tensors.keys()
    assert all(np.array_equal(back[name], tensors[name]) for name in tensors)


def test_base_checkpoint_leaves_element_attention_uninitialised():
    base = {name: value for name, value in pytorch_tensors(torch_names.UNET, TINY).items() if "element" not in name}
    params = torch_names.from_torch(torch_names.UNET, base, TINY.shapes())
    new = TINY.shapes().keys() - params.keys()
    assert len(new) == 7 * 4  # down, middle, and two up
    assert all("element" in name for name in new)


def test_half_precision_is_read_as_float32():
    tensors = {name: value.astype(np.float16) for name, value in pytorch_tensors(torch_names.UNET, TINY).items()}
    params = torch_names.from_torch(torch_names.UNET, tensors, TINY.shapes())
    assert all(value.dtype == jnp.float32 for value in params.values())
    np.testing.assert_array_equal(params["conv_in.bias"], tensors["conv_in.bias"])


def test_one_error_lists_all_that_does_not_fit():
    tensors = pytorch_tensors(torch_names.UNET, TINY)
    attention = "mid_block.attentions.0.transformer_blocks.0"
    del tensors["conv_in.weight"]
    del tensors[f"{attention}.element_attention.to_k.weight"]  # the others exist, so it is not a base checkpoint
    tensors["class_embedding.weight"] = np.zeros(3, np.float32)
    tensors["conv_out.weight"] = np.zeros((4, 16, 1, 1), np.float32)
    with pytest.raises(ValueError, match="does not fit the network") as error:
        torch_names.from_torch(torch_names.UNET, tensors, TINY.shapes())
    assert str(error.value).splitlines()[1:] == [
        "  expected shape (4, 16, 3, 3), found (4, 16, 1, 1): conv_out.weight",
        "  missing: conv_in.weight",
        f"  missing: {attention}.element_attention.to_k.weight",
        "  unknown: class_embedding.weight",
    ]


def test_a_tensor_that_is_given_twice_is_refused():
    text = SMALL["text_encoder"]
    tensors = pytorch_tensors(torch_names.TEXT, text)
    tensors["final_layer_norm.bias"] = tensors["text_model.final_layer_norm.bias"]
    with pytest.raises(ValueError, match=r"given twice: text_model.final_layer_norm.bias and final_layer_norm.bias"):
        torch_names.from_torch(torch_names.TEXT, tensors, text.shapes())
