"""A model that diffuses what the light decoder's image lacks (`DiffusionConfig.draft_error`)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.diffusion.preserve import Preserve
from elements_jax.diffusion.samplers import ddim_sample
from elements_jax.diffusion.schedule import guidance_weights, make_schedule, noise_from_velocity
from elements_jax.elements import element_tokens
from elements_jax.evaluation.methods.stable_diffusion import StableDiffusion
from elements_jax.models.method import decode_elements
from elements_jax.models.networks import Networks
from elements_jax.models.unet import FlaxUNet
from elements_jax.pipeline.pipeline import ElementsPipeline, to_uint8
from tests.helpers.models import write_random_model
from tests.helpers.records import SMALL, record
from train.config import DiffusionTrainConfig
from train.cost.ahead_of_time import stage_of_shapes
from train.stage import example_keys, to_float
from train.stages import diffusion
from train.stages.conditioning import with_partner_example
from train.stages.diffusion import DiffusionStage
from train.stages.diffusion_unfrozen import UnfrozenStage
from train.start import start_from

ERROR = 0.5
DRAFTING = dataclasses.replace(
    SMALL,
    unet=dataclasses.replace(SMALL.unet, beside_latent=4),
    diffusion=dataclasses.replace(SMALL.diffusion, draft_error=ERROR, prediction="v"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("model"), DRAFTING)


@pytest.fixture(scope="module")
def pipeline(folder):
    return ElementsPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def elements(pipeline):
    records = [record(0), record(1)]
    canvas = pipeline.encode_batch(*(np.stack([getattr(r, name) for r in records]) for name in ("image", "label_map")))
    return canvas.elements


def drafts(pipeline, elements):
    """Encode the light decoder's images, part by part."""
    networks = Networks(DRAFTING)
    drawn = networks.decoder(pipeline.params["decoder"], elements)
    return networks.vae.module(pipeline.params["vae"]).encode(drawn)[0] * DRAFTING.vae.scaling_factor


def test_the_sample_is_added_to_the_draft(pipeline, elements):
    """Against a plain loop with two predictions per step, the unconditioned one without a draft."""
    networks, schedule, weight = Networks(DRAFTING), make_schedule(DRAFTING.diffusion), 1.5
    unet, draft = networks.unet.module(pipeline.params["unet"]), drafts(pipeline, elements)
    noise = jax.random.normal(jax.random.key(0), draft.shape)
    prompt = jnp.tile(jnp.asarray(pipeline.tokenizer("a red square")), (2, 1))
    text = networks.text_encoder(pipeline.params["text_encoder"], prompt)
    tokens = element_tokens(elements, DRAFTING.elements.frequencies)

    def predict(latent, timestep):
        def noise_given(draft, tokens):
            read = jnp.concatenate([latent, draft], axis=-1)
            velocity = unet(read, timestep, unet.context(text, tokens))
            return noise_from_velocity(schedule, velocity, latent, timestep)

        without = noise_given(draft * 0, tokens * 0)
        return without + weight * (noise_given(draft, tokens) - without)

    latent = draft + ERROR * ddim_sample(predict, schedule, noise, 2)
    expected = networks.vae.module(pipeline.params["vae"]).decode(latent / DRAFTING.vae.scaling_factor)
    got = decode_elements(networks, pipeline.params, elements, prompt, prompt, noise, jnp.float32([weight]), steps=2)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_weights_of_one_leave_out_the_other_predictions(pipeline, elements):
    """eps(0) + 1 (eps(c) - eps(0)) = eps(c), and no step computes eps(0)."""
    networks, read = Networks(DRAFTING), []
    prompt, noise = jnp.ones((2, 6), jnp.int32), jax.random.normal(jax.random.key(0), (2, 8, 8, 4))

    def decode(weights):
        return decode_elements(networks, pipeline.params, elements, prompt, prompt, noise, weights, steps=2)

    def count(self, latent, *rest):
        read.append(len(latent))
        return unet(self, latent, *rest)

    unet = FlaxUNet.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlaxUNet, "__call__", count)
        guided, separately = decode(jnp.ones(1)), decode(jnp.ones(2))
        alone = [decode(guidance_weights(weight)) for weight in (1.0, (1.0, 1.0))]
    assert read == [4, 6, 2, 2]
    for each in (separately, *alone):
        np.testing.assert_allclose(each, guided, atol=1e-4)
    assert guidance_weights((1.0, 3.0)).tolist() == [1, 3]


def test_step_by_step_gives_the_same_image(pipeline, elements):
    both = [
        pipeline.decode_batch(elements, ["a red square", ""], seeds=[0, 1], report=report).astype(int)
        for report in (None, lambda timestep: True)
    ]
    assert np.abs(both[0] - both[1]).max() <= 1  # rounding to 8 bits


def test_outside_of_an_edit_the_latent_is_the_images_own(pipeline, elements):
    """If nothing may change, every prediction leads to the image's latent, not to the draft or to the sum of both."""
    networks = Networks(DRAFTING)
    image = np.stack([record(0).image, record(1).image])
    latents = []

    def capture(self, latent):
        latents.append(latent)
        return jnp.zeros((2, 16, 16, 3))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("elements_jax.models.vae.AutoencoderKL.decode", capture)
        decode_elements(
            networks,
            pipeline.params,
            elements,
            jnp.zeros((2, 6), jnp.int32),
            jnp.zeros((2, 6), jnp.int32),
            jnp.ones((2, 8, 8, 4)),
            jnp.ones(1),
            steps=5,
            preserve=Preserve(image, jnp.zeros((2, 16, 16), bool)),
        )
    own, _ = networks.vae.module(pipeline.params["vae"]).encode(to_float(jnp.asarray(image)))
    np.testing.assert_allclose(latents[0], own, atol=0.1)  # DDIM ends at the first timestep, not without noise
    assert np.abs(np.asarray(drafts(pipeline, elements)) - own).max() > 0.2


def test_sdedit_with_hardly_any_noise_returns_the_image(pipeline):
    """What is noised and denoised is the difference from the draft of the input itself."""
    painter = StableDiffusion.of_pipeline(pipeline, steps=900)
    assert not painter.inpaints
    image = np.stack([record(0).image, record(1).image])
    got = painter.sdedit(image, ["", "a red square"], ["", ""], [0, 1], 1 / 900)
    vae = Networks(DRAFTING).vae.module(pipeline.params["vae"])
    expected = to_uint8(vae.decode(vae.encode(to_float(jnp.asarray(image)))[0]))
    assert np.abs(got.astype(int) - expected).mean() < 3  # alpha_bar is 0.998 at timestep 1: a hint of noise stays


class Read(Exception):
    """Carries out of the loss what the UNet reads."""


@pytest.mark.parametrize("drop_elements", [0.0, 1.0])
def test_training_diffuses_the_difference_from_the_draft(pipeline, folder, monkeypatch, drop_elements):
    train = DiffusionTrainConfig(
        steps=1, batch_size=2, learning_rate=1e-3, random_partition=False, element_dropout=0.0,
        drop_text=0.0, drop_elements=drop_elements, drop_both=0.0,
    )  # fmt: skip
    stage = DiffusionStage(DRAFTING, train, folder)
    records = [record(0), record(1)]
    batch = {name: jnp.asarray(np.stack([getattr(r, name) for r in records])) for name in ("image", "label_map")}
    batch |= {"object_mask": jnp.zeros((2, 16, 16), bool), "tokens": jnp.zeros((2, 6), jnp.int32)}

    def read(self, latent, *_, **__):
        raise Read(latent)

    monkeypatch.setattr(diffusion, "add_noise", lambda schedule, latent, noise, timestep: latent)
    monkeypatch.setattr(diffusion, "sample_posterior", lambda mean, logvar, key: mean)
    monkeypatch.setattr(FlaxUNet, "__call__", read)
    keys = example_keys(jax.random.key(0), 0, jnp.arange(2))
    with pytest.raises(Read) as caught:
        stage.loss(pipeline.params["unet"], stage.frozen, with_partner_example(batch), keys, jnp.int32(0))
    difference, seen = jnp.split(caught.value.args[0], 2, axis=-1)

    labels = jnp.where(batch["label_map"] < 4, batch["label_map"], 4)
    own, _ = Networks(DRAFTING).vae.module(pipeline.params["vae"]).encode(to_float(batch["image"]))
    draft = drafts(pipeline, pipeline.encode_batch(*map(np.asarray, (batch["image"], labels))).elements)
    np.testing.assert_allclose(draft + ERROR * difference, own, atol=1e-5)
    np.testing.assert_allclose(seen, draft * (drop_elements == 0), atol=1e-5)


def test_only_a_model_with_drafts_reads_the_light_decoder():
    train = DiffusionTrainConfig(steps=1, batch_size=2, learning_rate=1e-3)
    assert "decoder" in stage_of_shapes(DRAFTING, train).frozen
    assert "decoder" not in stage_of_shapes(SMALL, train).frozen


def test_an_unsuitable_configuration_is_refused(folder):
    with pytest.raises(ValueError, match=r"beside_latent.*must be the 4 channels of a draft, got 0"):
        dataclasses.replace(DRAFTING, unet=SMALL.unet)
    unfrozen = DiffusionTrainConfig(steps=1, batch_size=2, learning_rate=1e-3, encoder="unfrozen")
    with pytest.raises(ValueError, match="a draft needs the encoder with which the light decoder was trained"):
        UnfrozenStage(DRAFTING, unfrozen, folder)
    with pytest.raises(ValueError, match="a draft needs the encoder with which the light decoder was trained"):
        stage_of_shapes(DRAFTING, unfrozen)


def test_a_unet_of_another_draft_error_is_not_taken(folder, tmp_path):
    other = dataclasses.replace(DRAFTING, diffusion=dataclasses.replace(DRAFTING.diffusion, draft_error=2 * ERROR))
    with pytest.raises(ValueError, match=r"the preset and its overrides in \['diffusion.draft_error'\]"):
        start_from(str(folder), tmp_path / "new", other)
