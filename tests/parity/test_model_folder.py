"""Model folders: we read those of diffusers and transformers, and they read ours."""

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from elements_jax.checkpoints import torch_names
from elements_jax.checkpoints.model_folder import (
    load_networks,
    read_config,
    read_model,
    save_network,
    write_config,
)
from elements_jax.config import ModelConfig, TextConfig, UNetConfig, VAEConfig
from elements_jax.elements import ImageElements
from elements_jax.models.networks import Networks
from elements_jax.pipeline.pipeline import ElementsPipeline
from tests.helpers.algorithm_1 import add_element_attention
from tests.helpers.records import SMALL
from tests.helpers.stable_diffusion import TABLES, assert_same_params, stable_diffusion, write_stable_diffusion


@pytest.fixture(scope="module")
def networks() -> dict[str, torch.nn.Module]:
    return stable_diffusion()


@pytest.fixture(scope="module")
def folder(networks, tmp_path_factory) -> Path:
    return write_stable_diffusion(tmp_path_factory.mktemp("sd"), networks)


@pytest.fixture(scope="module")
def pipeline(folder) -> ElementsPipeline:
    with pytest.warns(UserWarning, match="is a Stable Diffusion: its element attention is new and untrained"):
        return ElementsPipeline.from_pretrained(folder)


def read_tensors(*paths: Path) -> dict[str, np.ndarray]:
    return {name: value for path in paths for name, value in safetensors.numpy.load_file(path).items()}


def test_a_stable_diffusion_without_a_tokenizer_takes_clips(networks, folder, pipeline, tmp_path):
    without = write_stable_diffusion(tmp_path / "sd", networks)
    vocabulary = (without / "tokenizer").rename(tmp_path / "clip")
    with pytest.warns(UserWarning, match="is a Stable Diffusion"):
        opened = ElementsPipeline.from_pretrained(without, tokenizer=vocabulary)
    np.testing.assert_array_equal(opened.tokenizer("a cat"), pipeline.tokenizer("a cat"))


def test_pickled_stable_diffusion_weights_name_the_converter(networks, tmp_path):
    folder = write_stable_diffusion(tmp_path, networks)
    for name, pickled in {
        "vae": "diffusion_pytorch_model.bin",
        "unet": "diffusion_pytorch_model.bin",
        "text_encoder": "pytorch_model.bin",
    }.items():
        for path in (folder / name).glob("*.safetensors"):
            path.unlink()
        torch.save(networks[name].state_dict(), folder / name / pickled)
    with pytest.raises(FileNotFoundError, match="can run code and is not read") as refused:
        ElementsPipeline.from_pretrained(folder)
    assert str(refused.value).count("DiffusionPipeline") == 3
    assert "made by" not in str(refused.value)


def test_the_configuration_is_read_from_diffusers_files(folder):
    config = read_config(folder)
    assert config.unet == UNetConfig((16, 32), (True, False), 1, heads=4, norm_groups=8, zero_init_elements=True)
    assert config.vae == VAEConfig((8, 8, 8, 16), 1, norm_groups=4)
    assert config.text == TextConfig(hidden_size=24, intermediate_size=48, layers=2, heads=4)
    assert config.diffusion == ModelConfig().diffusion


@pytest.mark.parametrize(
    ("how", "files"),
    [
        ({"max_shard_size": "20KB"}, "unet/*-of-*.safetensors"),
        ({"variant": "fp16"}, "unet/diffusion_pytorch_model.fp16.safetensors"),
        ({"variant": "fp16", "max_shard_size": "20KB"}, "unet/*.fp16-*-of-*.safetensors"),
    ],
    ids=["parts", "half precision", "parts in half precision"],
)
def test_every_way_to_store_the_parameters_is_read(how, files, tmp_path):
    networks = stable_diffusion()
    if "variant" in how:
        networks = {name: network.half() for name, network in networks.items()}
    write_stable_diffusion(tmp_path, networks, **how)
    assert list(tmp_path.glob(files))
    _, params, _ = read_model(tmp_path)
    config = read_config(tmp_path)
    expected = {
        name: torch_names.from_torch(
            TABLES[name],
            {key: value.numpy() for key, value in network.state_dict().items()},
            getattr(Networks(config), name).shapes(),
        )
        for name, network in networks.items()
    }
    assert_same_params(params, expected)


def test_torch_is_not_needed(folder):
    script = f"""
        import sys
        for name in ("torch", "transformers", "diffusers"):
            sys.modules[name] = None  # importing it fails
        import elements_jax.pipeline.pipeline
        from elements_jax.checkpoints.model_folder import read_model
        print(len(read_model({str(folder)!r})[1]["unet"]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


def test_the_way_back_is_bit_exact_and_has_the_published_names(pipeline, folder, tmp_path):
    pipeline.save_pretrained(tmp_path)
    for name in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"):
        back, there = (read_tensors(root / f"{name}.safetensors") for root in (tmp_path, folder))
        there = {key if "unet" in name or "vae" in name else f"text_model.{key}": v for key, v in there.items()}
        assert back.keys() == there.keys()
        assert all(np.array_equal(back[key], there[key]) for key in there)
    added = read_tensors(tmp_path / "elements" / "attention.safetensors")
    block = "mid_block.attentions.0.transformer_blocks.0"
    assert added[f"{block}.element_attention.to_k.weight"].shape == (32, 112)
    assert not added[f"{block}.element_attention.to_out.0.weight"].any()
    assert len(added) == 4 * 7
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "unet")  # how a PyTorch user gets the complete network
    add_element_attention(unet, 112, None)
    loaded = unet.load_state_dict({key: torch.from_numpy(value) for key, value in added.items()}, strict=False)
    assert not loaded.unexpected_keys
    assert not [key for key in loaded.missing_keys if "element" in key]

    again = ElementsPipeline.from_pretrained(tmp_path)  # without a warning
    assert again.config == pipeline.config
    assert_same_params(again.params, pipeline.params)


def test_diffusers_own_pipeline_paints_the_same_image(pipeline, tmp_path):
    """Text to image from a folder that we write tests tokenizer, three networks, scheduler and guidance at once."""
    pipeline.save_pretrained(tmp_path)
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path)
    theirs.set_progress_bar_config(disable=True)
    assert isinstance(theirs.scheduler, DDIMScheduler)
    side = pipeline.config.latent_size
    noise = np.array(jax.random.normal(jax.random.key(7), (side, side, 4)))
    expected = theirs(
        "a photo of a cat",
        num_inference_steps=3,
        guidance_scale=4.0,
        latents=torch.from_numpy(noise.transpose(2, 0, 1)[None]),
        height=512,
        width=512,
        output_type="np",
    ).images[0]
    rng = np.random.default_rng(0)
    shape = (1, pipeline.config.elements.num_elements)
    content, position = (jnp.float32(rng.random((*shape, width))) for width in (32, 4))
    elements = ImageElements(content, position, jnp.ones(shape, bool))  # attention to them starts at zero
    ours = pipeline.decode_batch(elements, ["a photo of a cat"], seeds=[7], steps=3, guidance=4.0)[0]
    assert ours.std() > 5
    assert np.abs(ours - expected * 255).max() < 1.1  # rounding to 8 bits, and float32


def test_a_folder_in_the_hub_cache_is_found_by_its_name(folder, pipeline, tmp_path, monkeypatch):
    """The hub's own client finds an earlier download in its cache, without a network."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    cached = tmp_path / "models--somebody--small-diffusion"
    shutil.copytree(folder, cached / "snapshots" / "0123")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0123")
    _, params, _ = read_model("somebody/small-diffusion")
    np.testing.assert_array_equal(params["vae"]["quant_conv.bias"], pipeline.params["vae"]["quant_conv.bias"])
    with pytest.raises(
        FileNotFoundError,
        match=r"^nobody/none: no such file or folder, and not to be had from the Hugging Face hub: .*$",
    ):
        read_model("nobody/none")


def test_one_error_lists_the_mismatches_of_all_networks(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "sd")
    unet, vae = (tmp_path / "sd" / name / "diffusion_pytorch_model.safetensors" for name in ("unet", "vae"))
    tensors = read_tensors(unet)
    del tensors["conv_in.weight"]
    tensors["conv_out.bias"] = np.zeros(9, np.float32)
    safetensors.numpy.save_file(tensors, unet)
    safetensors.numpy.save_file(read_tensors(vae) | {"extra": np.zeros(1, np.float32)}, vae)
    with pytest.raises(ValueError, match="sd does not fit the model") as error:
        read_model(tmp_path / "sd")
    for line in (
        "missing: conv_in.weight",
        "expected shape (4,), found (9,): conv_out.bias",
        "unknown: extra",
    ):
        assert f"  {line}" in str(error.value).splitlines()


def test_a_truncated_file_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "sd")
    path = tmp_path / "sd" / "text_encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"text_encoder/model\.safetensors: not a safetensors file, or damaged"):
        read_model(tmp_path / "sd")


def test_rejects_other_diffusion_models_by_their_settings(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "sd")
    path = tmp_path / "sd" / "unet" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"use_linear_projection": True}))
    with pytest.raises(ValueError, match=r"(?s)not a Stable Diffusion 1:.*False as use_linear_projection .*found True"):
        read_model(tmp_path / "sd")
    path.write_text(json.dumps(config | {"attention_head_dim": [4, 8]}))
    with pytest.raises(ValueError, match=r"expected int as attention_head_dim of unet/config.json, found \[4, 8\]"):
        read_model(tmp_path / "sd")
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"(?s)int as layers_per_block .*found None.*int as attention_head_dim"):
        read_model(tmp_path / "sd")


def test_a_single_exchanged_network_is_noticed(tmp_path):
    """The UNet and its attention to elements belong together."""
    write_config(tmp_path, SMALL)
    shapes = Networks(SMALL).unet.shapes()
    save_network(tmp_path, "unet", {name: jnp.zeros(spec.shape) for name, spec in shapes.items()})
    kept = (tmp_path / "elements" / "attention.safetensors").read_bytes()
    save_network(tmp_path, "unet", {name: jnp.ones(spec.shape) for name, spec in shapes.items()})
    (tmp_path / "elements" / "attention.safetensors").write_bytes(kept)
    with pytest.raises(ValueError, match="come from different saves"):
        load_networks(tmp_path, Networks(SMALL), ["unet"])
