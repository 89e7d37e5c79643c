"""Stable Diffusion's original single file, against diffusers' conversion of it."""

import numpy as np
import pytest
import safetensors.numpy
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

from elements_jax.checkpoints import torch_names
from elements_jax.checkpoints.model_folder import load_original
from elements_jax.config import ModelConfig, TextConfig, UNetConfig, VAEConfig
from elements_jax.models.networks import Networks
from tests.helpers.records import SMALL
from tests.helpers.stable_diffusion import TABLES, assert_same_params, stable_diffusion


@pytest.fixture(scope="module")
def networks() -> dict[str, torch.nn.Module]:
    return stable_diffusion()


# The names of the original checkpoints, built in the same way as by the code that wrote them, at small widths.
WIDTHS, CONTEXT = (16, 32, 64, 64), 24


def original_unet() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name, *shape, bias=True):
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    def resnet(name, before, width):
        layer(f"{name}.in_layers.0", before)
        layer(f"{name}.in_layers.2", width, before, 3, 3)
        layer(f"{name}.emb_layers.1", width, 4 * WIDTHS[0])
        layer(f"{name}.out_layers.0", width)
        layer(f"{name}.out_layers.3", width, width, 3, 3)
        if before != width:
            layer(f"{name}.skip_connection", width, before, 1, 1)

    def transformer(name, width):
        layer(f"{name}.norm", width)
        layer(f"{name}.proj_in", width, width, 1, 1)
        block = f"{name}.transformer_blocks.0"
        for attention, context in (("attn1", width), ("attn2", CONTEXT)):
            layer(f"{block}.{attention}.to_q", width, width, bias=False)
            layer(f"{block}.{attention}.to_k", width, context, bias=False)
            layer(f"{block}.{attention}.to_v", width, context, bias=False)
            layer(f"{block}.{attention}.to_out.0", width, width)
        layer(f"{block}.ff.net.0.proj", 8 * width, width)
        layer(f"{block}.ff.net.2", width, 4 * width)
        for i in (1, 2, 3):
            layer(f"{block}.norm{i}", width)
        layer(f"{name}.proj_out", width, width, 1, 1)

    layer("time_embed.0", 4 * WIDTHS[0], WIDTHS[0])
    layer("time_embed.2", 4 * WIDTHS[0], 4 * WIDTHS[0])
    layer("input_blocks.0.0", WIDTHS[0], 4, 3, 3)
    number, channels, skips = 1, WIDTHS[0], [WIDTHS[0]]
    for level, width in enumerate(WIDTHS):
        for _ in range(2):
            resnet(f"input_blocks.{number}.0", channels, width)
            if level < 3:
                transformer(f"input_blocks.{number}.1", width)
            channels, number = width, number + 1
            skips.append(channels)
        if level < 3:
            layer(f"input_blocks.{number}.0.op", width, width, 3, 3)
            number += 1
            skips.append(channels)
    resnet("middle_block.0", channels, channels)
    transformer("middle_block.1", channels)
    resnet("middle_block.2", channels, channels)
    number = 0
    for level, width in reversed(list(enumerate(WIDTHS))):
        for i in range(3):
            resnet(f"output_blocks.{number}.0", channels + skips.pop(), width)
            if level < 3:
                transformer(f"output_blocks.{number}.1", width)
            if i == 2 and level > 0:
                layer(f"output_blocks.{number}.{2 if level < 3 else 1}.conv", width, width, 3, 3)
            channels, number = width, number + 1
    layer("out.0", channels)
    layer("out.2", 4, channels, 3, 3)
    return shapes


def original_vae() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name, *shape):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    def resnet(name, before, width):
        layer(f"{name}.norm1", before)
        layer(f"{name}.conv1", width, before, 3, 3)
        layer(f"{name}.norm2", width)
        layer(f"{name}.conv2", width, width, 3, 3)
        if before != width:
            layer(f"{name}.nin_shortcut", width, before, 1, 1)

    def middle(name, width):
        resnet(f"{name}.mid.block_1", width, width)
        layer(f"{name}.mid.attn_1.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            layer(f"{name}.mid.attn_1.{part}", width, width, 1, 1)
        resnet(f"{name}.mid.block_2", width, width)

    layer("encoder.conv_in", WIDTHS[0], 3, 3, 3)
    channels = WIDTHS[0]
    for level, width in enumerate(WIDTHS):
        for i in range(2):
            resnet(f"encoder.down.{level}.block.{i}", channels, width)
            channels = width
        if level < 3:
            layer(f"encoder.down.{level}.downsample.conv", width, width, 3, 3)
    middle("encoder", channels)
    layer("encoder.norm_out", channels)
    layer("encoder.conv_out", 8, channels, 3, 3)
    layer("quant_conv", 8, 8, 1, 1)
    layer("post_quant_conv", 4, 4, 1, 1)
    layer("decoder.conv_in", channels, 4, 3, 3)
    middle("decoder", channels)
    for level, width in reversed(list(enumerate(WIDTHS))):
        for i in range(3):
            resnet(f"decoder.up.{level}.block.{i}", channels, width)
            channels = width
        if level > 0:
            layer(f"decoder.up.{level}.upsample.conv", width, width, 3, 3)
    layer("decoder.norm_out", channels)
    layer("decoder.conv_out", 3, channels, 3, 3)
    return shapes


def test_the_original_single_file_is_read(networks, tmp_path):
    """The reference is diffusers' own conversion of the same tensors."""
    rng = np.random.default_rng(0)
    tensors = {
        prefix + name: rng.normal(size=shape).astype(np.float16)
        for prefix, shapes in (("model.diffusion_model.", original_unet()), ("first_stage_model.", original_vae()))
        for name, shape in shapes.items()
    }
    text = {name: value.numpy() for name, value in networks["text_encoder"].state_dict().items()}
    prefix = "cond_stage_model.transformer.text_model."
    others = {prefix + "embeddings.position_ids": np.arange(77)[None], "alphas_cumprod": np.zeros(1000, np.float32)}
    others["model_ema.diffusion_modelinput_blocks00weight"] = np.zeros(1, np.float32)
    everything = tensors | others | {prefix + name: value for name, value in text.items()}
    safetensors.numpy.save_file(everything, tmp_path / "v1-5.safetensors")

    config = ModelConfig(
        unet=UNetConfig(block_out_channels=WIDTHS, heads=4, norm_groups=8),
        vae=VAEConfig(block_out_channels=WIDTHS, norm_groups=8),
        text=TextConfig(hidden_size=24, intermediate_size=48, layers=2, heads=4),
    )
    ours = load_original(tmp_path / "v1-5.safetensors", Networks(config))

    theirs = {
        "unet": convert_ldm_unet_checkpoint(dict(tensors), {"layers_per_block": 2}),
        "vae": convert_ldm_vae_checkpoint(
            {name: torch.from_numpy(value) for name, value in tensors.items() if name.startswith("first_stage_model.")},
            {"down_block_types": [""] * 4, "up_block_types": [""] * 4},
        ),
        "text_encoder": text,
    }
    expected = {
        name: torch_names.from_torch(
            TABLES[name],
            {key: np.asarray(value) for key, value in theirs[name].items()},
            getattr(Networks(config), name).shapes(),
        )
        for name in theirs
    }
    assert_same_params(ours, expected)


def test_a_single_file_of_something_else_is_one_clear_error(tmp_path):
    safetensors.numpy.save_file({"lora.up.weight": np.zeros((2, 2), np.float32)}, tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match=r"(?s)lora\.safetensors does not fit.*unet:.*missing.*vae:.*text_encoder:"):
        load_original(tmp_path / "lora.safetensors", Networks(SMALL))
