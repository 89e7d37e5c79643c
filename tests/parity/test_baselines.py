"""SDEdit and inpainting against diffusers' own pipelines: the same small random networks, folder, prompt and noise.

Tolerance: 1.1 of 255 for a complete image, half of it rounding to 8 bits, over all steps in float32.
"""

import dataclasses
import json
import types

import diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img as img2img
import diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint as inpaint
import jax
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
)
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from transformers import CLIPTokenizer

from elements_jax.checkpoints.model_folder import read_model
from elements_jax.config import ModelConfig, UNetConfig
from elements_jax.diffusion.samplers import sample_timesteps
from elements_jax.evaluation.methods.stable_diffusion import StableDiffusion, skipped_steps
from elements_jax.pipeline.pipeline import ElementsPipeline
from tests.helpers.stable_diffusion import stable_diffusion, write_stable_diffusion

STEPS, GUIDANCE, PROMPT, NEGATIVE = 10, 3.0, "a photo of a cat", "blurry"


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    return write_stable_diffusion(tmp_path_factory.mktemp("sd"), stable_diffusion())


@pytest.fixture(scope="module")
def inpainting_folder(tmp_path_factory):
    """A folder like the published Stable Diffusion Inpainting, whose UNet has in_channels 9."""
    return write_stable_diffusion(tmp_path_factory.mktemp("inpainting"), stable_diffusion(in_channels=9))


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def reference(kind, folder, in_channels=4):
    """diffusers' pipeline with DDIM and the same networks."""
    networks = stable_diffusion(in_channels)
    networks["unet"].register_to_config(sample_size=64)  # the pipelines compare it with 64
    pipeline = kind(
        **networks,
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler", clip_sample=False, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(autouse=True)
def _same_noise(monkeypatch):
    def noise(shape, **_):
        z = np.array(jax.random.normal(jax.random.key(7), (*shape[2:], shape[1])))
        return torch.from_numpy(z.transpose(2, 0, 1)[None])

    monkeypatch.setattr(img2img, "randn_tensor", noise)
    monkeypatch.setattr(inpaint, "randn_tensor", noise)
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


@pytest.mark.parametrize("strength", [0.7])  # the others differ only in their timesteps
def test_sdedit_is_diffusers_image_to_image(text_folder, picture, strength):
    theirs = reference(StableDiffusionImg2ImgPipeline, text_folder)
    how = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "negative_prompt": NEGATIVE}
    expected = theirs(PROMPT, Image.fromarray(picture), strength=strength, output_type="np", **how).images[0] * 255
    model = StableDiffusion.from_pretrained(text_folder, guidance=GUIDANCE, steps=STEPS)
    ours = model.sdedit(picture[None], [PROMPT], [NEGATIVE], [7], strength)[0]
    assert ours.std() > 5
    assert np.abs(ours - expected).max() < 1.1


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("strength", [0.1, 0.5, 0.7, 0.9, 0.99, 1.0])
def test_the_timesteps_of_a_strength_equal_diffusers(strength, steps):
    scheduler = DDIMScheduler(steps_offset=1)
    scheduler.set_timesteps(steps)
    pipeline = types.SimpleNamespace(scheduler=scheduler)
    expected, _ = StableDiffusionImg2ImgPipeline.get_timesteps(pipeline, steps, strength, "cpu")
    np.testing.assert_array_equal(sample_timesteps(1000, steps)[skipped_steps(steps, strength) :], expected)


def test_inpainting_equals_diffusers(inpainting_folder, picture):
    mask = np.zeros((64, 64), bool)
    mask[11:37, 20:59] = True
    theirs = reference(StableDiffusionInpaintPipeline, inpainting_folder, in_channels=9)
    how = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "negative_prompt": NEGATIVE, "output_type": "np"}
    pictures = {"image": Image.fromarray(picture), "mask_image": Image.fromarray(mask), "height": 64, "width": 64}
    expected = theirs(PROMPT, **pictures, **how).images[0] * 255
    model = StableDiffusion.from_pretrained(inpainting_folder, guidance=GUIDANCE, steps=STEPS)
    ours = model.inpaint(picture[None], mask[None], [PROMPT], [NEGATIVE], [7])[0]
    assert ours.std() > 5
    assert np.abs(ours - expected).max() < 1.1
    other = model.inpaint(picture[None], ~mask[None], [PROMPT], [NEGATIVE], [7])[0]
    assert np.abs(ours.astype(int) - other).max() > 5  # the mask matters


def test_inpainting_and_element_models_are_not_interchangeable(text_folder, inpainting_folder, picture):
    model = StableDiffusion.from_pretrained(text_folder)
    with pytest.raises(ValueError, match="inpainting needs Stable Diffusion Inpainting"):
        model.inpaint(picture[None], np.ones((1, 64, 64), bool), [""], [""], [0])
    with pytest.raises(ValueError, match="runs none of 50 steps"):
        model.sdedit(picture[None], [""], [""], [0], 0.01)
    with pytest.raises(ValueError, match="whose UNet does not support elements"):
        ElementsPipeline.from_pretrained(inpainting_folder)


def test_another_number_of_channels_is_refused(inpainting_folder, tmp_path):
    path = tmp_path / "unet" / "config.json"
    for part in ("unet", "vae", "text_encoder", "scheduler"):
        (tmp_path / part).symlink_to(inpainting_folder / part)
    fields = json.loads(path.read_text())
    (tmp_path / "unet").unlink()
    (tmp_path / "unet").mkdir()
    path.write_text(json.dumps(fields | {"in_channels": 8}))
    with pytest.raises(ValueError, match=r"expected 4 as in_channels of unet/config.json, found 8"):
        read_model(tmp_path)


def test_reads_older_configs_and_stays_strict_with_others(tmp_path):
    config = ModelConfig(unet=UNetConfig(layers_per_block=1))
    config.save(tmp_path / "config.json")
    fields = dataclasses.asdict(config)
    del fields["unet"]["beside_latent"]
    (tmp_path / "old.json").write_text(json.dumps(fields))
    assert ModelConfig.load(tmp_path / "old.json") == ModelConfig.load(tmp_path / "config.json") == config
    del fields["unet"]["heads"]
    (tmp_path / "old.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"unet must have the fields .*differing: \['heads'\]"):
        ModelConfig.load(tmp_path / "old.json")
