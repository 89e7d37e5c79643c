"""Each stage's loss and wiring, and a model folder from random weights to a pipeline."""

import dataclasses
import shutil
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.checkpoints.model_folder import save_network, write_config
from elements_jax.cli import train as cli
from elements_jax.config import ModelConfig, TextConfig
from elements_jax.elements import ImageElements
from elements_jax.models.networks import Networks
from train.config import AutoencoderTrainConfig, DiffusionTrainConfig, VAETrainConfig
from train.input.data import dataset
from train.stage import Ratio, example_keys, psnr, to_float
from train.stages import diffusion
from train.stages.autoencoder import AutoencoderStage
from train.stages.conditioning import with_partner_example
from train.stages.diffusion import DiffusionStage
from train.stages.vae import VAEStage, sample_posterior
from train.start import start_text, write_tokenizer

SHARED = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "warmup": 1, "sample_count": 2}
DIFFUSION = DiffusionTrainConfig(**SHARED, text_from_scratch=True)
FIRST = jnp.int32(0)


def keys(batch, seed=0):
    return example_keys(jax.random.key(seed), 0, batch["index"])


@pytest.fixture(scope="module")
def folder(small, records, tmp_path_factory):
    """A model folder that is ready for stage 2, of random networks."""
    folder = tmp_path_factory.mktemp("model")
    write_config(folder, small)
    networks = Networks(small)
    for name in ("vae", "encoder", "decoder"):
        save_network(folder, name, getattr(networks, name).init(jax.random.key(1)))
    start_text(small, 0, folder, records)
    return folder


@pytest.fixture(scope="module")
def stage(small, folder):
    return DiffusionStage(small, DIFFUSION, folder)


@pytest.fixture(scope="module")
def params(stage):
    return stage.init(jax.random.key(2), {})


@pytest.fixture(scope="module")
def batch(stage, records):
    with closing(dataset(records, "train", batch_size=4, seed=0, shuffle=False, tokenize=stage.tokenize)) as batches:
        return jax.tree.map(jnp.asarray, next(batches))


def with_config(stage, **changes):
    """Return the stage with another training configuration."""
    changed = object.__new__(DiffusionStage)
    changed.__dict__ = stage.__dict__ | {"train": dataclasses.replace(stage.train, **changes)}
    return changed


ALL_KEPT = {"drop_text": 0.0, "drop_elements": 0.0, "drop_both": 0.0}


class Captured(Exception):
    """Carries values out of the loss before its expensive part."""


def test_vae_loss_is_reconstruction_and_divergence(small, batch, tmp_path):
    stage = VAEStage(small, VAETrainConfig(**SHARED, kl_weight=2.0), tmp_path)
    params = stage.init(jax.random.key(0), {})

    @jax.jit
    def oracle(params, image):
        network = stage.networks.vae.module(params)
        mean, logvar = network.encode(image)
        return mean, logvar, network.decode(sample_posterior(mean, logvar, keys(batch)))

    image = to_float(batch["image"])
    mean, logvar, decoded = (np.asarray(array, np.float64) for array in oracle(params, image))
    loss, metrics = jax.jit(stage.loss)(params, {}, batch, keys(batch), FIRST)
    error = np.abs(decoded - image).mean()
    divergence = np.mean([0.5 * np.sum(mean[b] ** 2 + np.exp(logvar[b]) - 1 - logvar[b]) for b in range(4)])
    np.testing.assert_allclose(metrics["distance"], error, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], divergence, rtol=1e-4)
    np.testing.assert_allclose(loss, error + 2 * divergence / (16 * 16 * 3), rtol=1e-4)


def test_vae_export_scales_latents_to_unit_variance(small, batch, tmp_path):
    stage = VAEStage(small, VAETrainConfig(**SHARED), tmp_path)
    params = stage.init(jax.random.key(0), {})
    stage.export(params, {}, batch, keys(batch), "runs/vae, step 2")
    config = ModelConfig.load(tmp_path / "elements" / "config.json")
    encode = jax.jit(lambda params, image: stage.networks.vae.module(params).encode(image))
    latent = sample_posterior(*encode(params, to_float(batch["image"])), keys(batch)) * config.vae.scaling_factor
    assert float(jnp.std(latent)) == pytest.approx(1, abs=1e-4)
    assert VAEStage(small, VAETrainConfig(**SHARED), tmp_path).model == config  # the folder's factor stays


def test_autoencoder_loss_is_equation_2(small, batch, tmp_path):
    stage, batch = AutoencoderStage(small, AutoencoderTrainConfig(**SHARED), tmp_path), with_partner_example(batch)
    params = stage.init(jax.random.key(0), {})
    value_and_gradient = jax.jit(jax.value_and_grad(stage.loss, has_aux=True))
    (loss, metrics), gradient = value_and_gradient(params, {}, batch, keys(batch), FIRST)
    pictures = jax.jit(stage.pictures)(params, {}, batch, keys(batch))
    error = np.asarray(pictures["reconstruction"] - pictures["input"], np.float64)
    np.testing.assert_allclose(loss, (error**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["psnr"], psnr(pictures["reconstruction"], pictures["input"]), rtol=1e-5)
    for network in ("encoder", "decoder"):
        assert any(np.abs(leaf).max() > 0 for leaf in gradient[network].values())


def test_autoencoder_learns_to_fill_dropped_elements(small, batch, tmp_path):
    train = AutoencoderTrainConfig(**SHARED, element_dropout=1.0)
    stage = AutoencoderStage(small, train, tmp_path)
    params = stage.init(jax.random.key(0), {})
    masks = np.zeros(batch["object_mask"].shape, bool)
    masks[:, :5, :9] = True
    paired = with_partner_example(batch | {"object_mask": jnp.asarray(masks)})
    loss, metrics = jax.jit(stage.loss)(params, {}, paired, keys(batch), FIRST)

    pictures = jax.jit(stage.pictures)(params, {}, paired, keys(batch))
    assert tuple(pictures) == tuple(sorted(stage.rows))
    error = np.asarray(pictures["filled in"] - pictures["input"], np.float64)
    np.testing.assert_allclose(loss, (error**2).mean(), rtol=1e-5)
    labels = np.asarray(batch["label_map"])
    touched = [len(np.setdiff1d(np.unique(each[:5, :9]), [small.elements.num_elements])) for each in labels]
    np.testing.assert_allclose(metrics["dropped_elements"], np.mean(touched) / small.elements.num_elements, rtol=1e-6)

    kept = with_partner_example(batch | {"object_mask": jnp.zeros(masks.shape, bool)})
    pictures = jax.jit(stage.pictures)(params, {}, kept, keys(batch))
    np.testing.assert_array_equal(pictures["filled in"], pictures["reconstruction"])


def test_psnr_is_the_mean_of_the_images_own():
    truth = np.zeros((2, 4, 4, 3), np.float32)
    image = truth + np.float32([0.2, 0.02])[:, None, None, None]  # errors of 0.1 and 0.01 on [0, 1]
    assert float(psnr(jnp.asarray(image), jnp.asarray(truth))) == pytest.approx((20 + 40) / 2, abs=1e-3)


@pytest.mark.parametrize("random_partition", [True, False])
def test_random_partition_uses_the_label_map_of_another_example(stage, batch, monkeypatch, random_partition):
    def capture(networks, params, image, label_map):
        raise Captured(image, label_map)

    monkeypatch.setattr(diffusion, "encode_image", capture)
    with pytest.raises(Captured) as captured:
        with_config(stage, random_partition=random_partition).loss(
            {}, stage.frozen, with_partner_example(batch), keys(batch), FIRST
        )
    image, label_map = captured.value.args
    np.testing.assert_array_equal(image, to_float(batch["image"]))
    for b in range(4):
        np.testing.assert_array_equal(label_map[b], batch["label_map"][b - 1 if random_partition else b])
        assert (batch["label_map"][b] != batch["label_map"][b - 1]).any()


@pytest.mark.parametrize("probability", [1.0, 0.0])
def test_element_dropout_deletes_elements_under_another_mask(stage, batch, monkeypatch, probability):
    def capture(elements, frequencies):
        raise Captured(elements.valid)

    every = ImageElements(jnp.zeros((4, 4, 8)), jnp.zeros((4, 4, 4)), jnp.ones((4, 4), bool))
    monkeypatch.setattr(diffusion, "encode_image", lambda *arguments: every)
    monkeypatch.setattr(diffusion, "element_tokens", capture)
    no_text = property(lambda networks: lambda params, prompt: jnp.zeros((4, 6, 16)))
    monkeypatch.setattr(type(stage.networks), "text_encoder", no_text)
    masks = np.zeros_like(batch["object_mask"])
    masks[1, :2, :2] = True  # touches only the first element, under any partition, and is laid over example 0
    expected = np.ones((4, 4), bool)
    expected[0, 0] = probability == 0
    with pytest.raises(Captured) as captured:
        with_config(stage, element_dropout=probability).loss(
            {}, stage.frozen, with_partner_example(batch | {"object_mask": jnp.asarray(masks)}), keys(batch), FIRST
        )
    np.testing.assert_array_equal(captured.value.args[0], expected)


@pytest.mark.parametrize("dropped", ["nothing", "drop_text", "drop_elements", "drop_both"])
def test_a_dropped_condition_leaves_no_trace(stage, params, batch, dropped):
    probabilities = ALL_KEPT if dropped == "nothing" else ALL_KEPT | {dropped: 1.0}
    loss = jax.jit(with_config(stage, **probabilities).loss)
    empty = jnp.tile(stage.tokenize(""), (4, 1))
    unchanged, other_text, other_elements, no_text = (
        loss(params, stage.frozen, with_partner_example(batch | change), keys(batch), FIRST)[0]
        for change in (
            {},
            {"tokens": batch["tokens"] * 0 + 3},
            {"label_map": 3 - batch["label_map"] % 4},
            {"tokens": empty},
        )
    )
    assert (unchanged == other_text) == (dropped in ("drop_text", "drop_both"))
    assert (unchanged == other_elements) == (dropped in ("drop_elements", "drop_both"))
    assert (unchanged == no_text) == (dropped in ("drop_text", "drop_both"))  # dropped text is the empty prompt


def test_losses_are_reported_by_timestep(stage, params, batch):
    _, metrics = jax.eval_shape(stage.loss, params, stage.frozen, with_partner_example(batch), keys(batch), FIRST)
    names = [name for name, figure in metrics.items() if isinstance(figure, Ratio)]
    assert names == ["loss_t0-249", "loss_t250-499", "loss_t500-749", "loss_t750-999"]


def test_only_the_unet_is_trained_in_stage_2(stage, params, batch):
    assert params.keys() == stage.networks.unet.shapes().keys()
    assert set(stage.frozen) == {"vae", "encoder", "text_encoder"}


def test_frozen_parameters_are_not_constants_of_the_step(stage, params, batch):
    jaxpr = jax.make_jaxpr(stage.loss)(params, stage.frozen, with_partner_example(batch), keys(batch), FIRST)
    assert max((np.size(constant) for constant in jaxpr.consts), default=0) < 100  # at most the empty prompt's tokens


def test_from_nothing_to_a_pipeline(small, records, tmp_path, capsys):
    folder = tmp_path / "model"
    trains = {"vae": VAETrainConfig(**SHARED), "autoencoder": AutoencoderTrainConfig(**SHARED), "diffusion": DIFFUSION}
    for name, train in trains.items():
        cli.run(name, cli.Job(data=(records,), model=folder, train=train, config=small))
        if name == "autoencoder":
            encoder = (folder / "elements" / "encoder.safetensors").read_bytes()
    assert (folder / "elements" / "encoder.safetensors").read_bytes() == encoder  # it is frozen in stage 2
    from elements_jax.pipeline.pipeline import ElementsPipeline

    pipeline = ElementsPipeline.from_pretrained(folder)
    assert pipeline.params["unet"].keys() == Networks(small).unet.shapes().keys()
    shown = capsys.readouterr().out
    assert "has no text encoder" in shown
    assert "step 2/2  loss" in shown
    for name in trains:
        assert (folder / "runs" / name / "samples" / "0000002.png").stat().st_size > 0
        assert list((folder / "runs" / name).glob("events.out.tfevents.*"))


def test_a_bad_model_folder_is_one_clear_error(small, records, folder, tmp_path):
    def train(where, config=DIFFUSION, model=small):
        cli.run("diffusion", cli.Job(data=(records,), model=where, train=config, config=model))

    with pytest.raises(
        FileNotFoundError, match=r"(?s)not complete:.*vae holds no .*\(made by .*elements holds no encoder.*\(made by"
    ):
        train(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"text_encoder holds no model.safetensors \(made by"):
        train(tmp_path / "sterner", dataclasses.replace(DIFFUSION, text_from_scratch=False))
    other = dataclasses.replace(small, unet=dataclasses.replace(small.unet, norm_groups=2))
    with pytest.raises(ValueError, match=r"config.json belongs to another model.*\['unet'\]"):
        train(folder, model=other)
    larger = dataclasses.replace(small, elements=dataclasses.replace(small.elements, image_size=32))
    with pytest.raises(ValueError, match=r"32 x 32 px.* 16 x 16 px"):
        train(tmp_path / "larger", model=larger)


def test_a_tokenizer_that_does_not_fit_is_refused(small, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / "tokenizer" / "tokenizer.json"
    write_tokenizer(path.parent, [f"word{i}" for i in range(99)], TextConfig(vocab_size=60))
    (tmp_path / "model" / "elements" / "text_encoder.manifest.json").unlink()  # it holds the tokenizer's checksum
    with pytest.raises(ValueError, match=r"has 60 tokens, the text encoder 32"):
        DiffusionStage(small, DIFFUSION, tmp_path / "model")
    path.write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer holds no readable tokenizer"):
        DiffusionStage(small, DIFFUSION, tmp_path / "model")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"neither tokenizer\.json nor vocab\.json and merges\.txt"):
        DiffusionStage(small, DIFFUSION, tmp_path / "model")


def test_captions_become_known_words(stage):
    tokens = stage.tokenize("A red square")
    assert tokens.shape == (6,)
    unknown, start, end = range(3)
    assert tokens[0] == start
    assert tokens[4:].tolist() == [end, end]
    assert unknown not in tokens
    assert unknown in stage.tokenize("a purple square")
    assert stage.tokenize("").tolist() == [start, end, end, end, end, end]
    assert stage.tokenize("a red square " * 9).shape == (6,)
