"""Training that starts from a Stable Diffusion as diffusers wrote it."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.checkpoints.model_folder import (
    has_network,
    load_present,
    read_config,
    read_model,
    save_network,
    write_config,
)
from elements_jax.cli import train as cli
from elements_jax.elements import ImageElements
from elements_jax.models.networks import Networks
from elements_jax.pipeline.pipeline import ElementsPipeline
from tests.helpers.records import SMALL, write_records
from tests.helpers.stable_diffusion import stable_diffusion, write_stable_diffusion
from train.config import DiffusionTrainConfig
from train.stages.diffusion import DiffusionStage
from train.start import start_from
from train.state import init_state, make_optimizer

NETWORKS = ("vae", "text_encoder", "unet", "encoder", "decoder")
TRAIN = DiffusionTrainConfig(steps=2, batch_size=4, learning_rate=1e-3, warmup=1, sample_count=2)


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory):
    return write_stable_diffusion(tmp_path_factory.mktemp("sd"), stable_diffusion())


@pytest.fixture
def config(diffusion):
    """The paper's additions to the small Stable Diffusion, as a preset names them."""
    config = read_config(diffusion)
    return dataclasses.replace(
        SMALL,
        vae=config.vae,
        text=config.text,
        unet=dataclasses.replace(config.unet, zero_init_elements=False),
    )


def with_encoder(folder, config):
    """Write the networks that stage 1 would leave."""
    for name in ("encoder", "decoder"):
        save_network(folder, name, getattr(Networks(config), name).init(jax.random.key(5)))


def test_missing_networks_are_added_to_the_model_folder(diffusion, config, tmp_path):
    start_from(str(diffusion), tmp_path, config)
    assert read_config(tmp_path) == config
    with_encoder(tmp_path, config)
    _, base, _ = read_model(diffusion)

    stage = DiffusionStage(config, TRAIN, tmp_path)
    assert stage.tokenize("a photo of a cat")[:3].tolist() == [49406, 320, 1125]
    pretrained = stage.pretrained()
    assert pretrained.keys() == base["unet"].keys()
    state = init_state(make_optimizer(TRAIN), stage.init(jax.random.key(0), pretrained))
    for name, value in base["unet"].items():
        np.testing.assert_array_equal(state["params"][name], value)
    new = state["params"].keys() - base["unet"].keys()
    assert len(new) == 4 * 7
    assert all(state["params"][name].any() for name in new if name.endswith("kernel"))

    changed = {name: value + 1 for name, value in base["vae"].items()}
    save_network(tmp_path, "vae", changed)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    start_from(str(diffusion), tmp_path, config)  # copies only the UNet again
    kept = DiffusionStage(config, TRAIN, tmp_path)
    np.testing.assert_array_equal(kept.frozen["vae"]["quant_conv.bias"], changed["quant_conv.bias"])
    assert kept.pretrained().keys() == base["unet"].keys()


def test_a_model_folder_gives_all_it_has(diffusion, config, tmp_path):
    stage_1, whole = tmp_path / "stage 1", tmp_path / "whole"
    write_config(stage_1, config)
    with_encoder(stage_1, config)
    start_from(str(stage_1), whole, config)
    assert {name for name in NETWORKS if has_network(whole, name)} == {"encoder", "decoder"}
    start_from(str(diffusion), whole, config)
    start_from(str(whole), tmp_path / "new", config)
    given = read_networks(whole, config)
    assert given.keys() == set(NETWORKS)
    jax.tree.map(np.testing.assert_array_equal, read_networks(tmp_path / "new", config), given)
    DiffusionStage(config, TRAIN, tmp_path / "new")  # the folder also has the tokenizer


def test_takes_networks_of_a_model_that_is_not_stable_diffusion(config, tmp_path):
    config = dataclasses.replace(config, unet=dataclasses.replace(config.unet, position_frequencies=2))
    whole = tmp_path / "whole"
    write_config(whole, config)
    unet = Networks(config).unet.init(jax.random.key(0))
    save_network(whole, "unet", unet)
    start_from(str(whole), tmp_path / "new", config)
    jax.tree.map(np.testing.assert_array_equal, read_networks(tmp_path / "new", config), {"unet": unet})


def read_networks(folder, config):
    return load_present(folder, Networks(config), *NETWORKS)


def test_stage_1_of_another_model_is_refused(config, tmp_path):
    write_config(tmp_path / "stage 1", config)
    with_encoder(tmp_path / "stage 1", config)
    other = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, blocks=2))
    with pytest.raises(ValueError, match=r"belongs to another model.*\['decoder'\]"):
        start_from(str(tmp_path / "stage 1"), tmp_path / "new", other)


def test_stage_1_starts_any_diffusion_decoder(config, tmp_path):
    write_config(tmp_path / "stage 1", config)
    with_encoder(tmp_path / "stage 1", config)
    other = dataclasses.replace(config, unet=dataclasses.replace(config.unet, heads=2))
    start_from(str(tmp_path / "stage 1"), tmp_path / "new", other)
    assert read_config(tmp_path / "new") == other
    assert read_networks(tmp_path / "new", other).keys() == {"encoder", "decoder"}


def test_stage_1_of_another_size_starts_with_resized_images(config, tmp_path):
    write_config(tmp_path / "stage 1", config)
    with_encoder(tmp_path / "stage 1", config)
    larger = dataclasses.replace(
        config, elements=dataclasses.replace(config.elements, image_size=2 * config.elements.image_size)
    )
    start_from(str(tmp_path / "stage 1"), tmp_path / "new", larger)

    given, found = (read_networks(tmp_path / folder, c) for folder, c in (("stage 1", config), ("new", larger)))
    jax.tree.map(np.testing.assert_array_equal, found["encoder"], given["encoder"])
    rng, shape = np.random.default_rng(0), (1, config.elements.num_elements)
    content, position = rng.standard_normal((*shape, config.elements.content_channels)), rng.random((*shape, 4))
    elements = ImageElements(jnp.float32(content), jnp.float32(position), jnp.ones(shape, bool))
    before, after = (
        np.asarray(Networks(c).decoder(networks["decoder"], elements))[0]
        for c, networks in ((config, given), (larger, found))
    )
    cell = config.elements.image_size // config.decoder.query_grid
    at = (np.arange(2 * cell) + 0.5) / 2 - 0.5
    for row, column in np.ndindex(config.decoder.query_grid, config.decoder.query_grid):
        small = before[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        for axis in (0, 1):
            small = np.apply_along_axis(lambda values: np.interp(at, np.arange(cell), values), axis, small)
        large = after[2 * row * cell : 2 * (row + 1) * cell, 2 * column * cell : 2 * (column + 1) * cell]
        np.testing.assert_allclose(large, small, atol=1e-5)


def test_another_model_is_refused_by_the_parts_that_differ(diffusion, config, tmp_path):
    other = dataclasses.replace(config, unet=dataclasses.replace(config.unet, heads=2), vae=SMALL.vae)
    with pytest.raises(ValueError, match=r"belongs to another model.*\['unet', 'vae'\]"):
        start_from(str(diffusion), tmp_path, other)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_from_stable_diffusion_to_a_model(diffusion, config, tmp_path):
    (tmp_path / "records").mkdir()
    records, model = write_records(tmp_path / "records"), tmp_path / "model"
    job = cli.Job(data=(records,), model=model, train=TRAIN, config=config, init=str(diffusion))
    with pytest.raises(FileNotFoundError, match=r"elements holds no encoder.* `elements train autoencoder`"):
        cli.run("diffusion", job)
    with_encoder(model, config)
    cli.run("diffusion", job)
    _, base, _ = read_model(diffusion)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained = ElementsPipeline.from_pretrained(model).params
    np.testing.assert_array_equal(trained["vae"]["quant_conv.bias"], base["vae"]["quant_conv.bias"])
    moved = np.abs(trained["unet"]["conv_in.kernel"] - base["unet"]["conv_in.kernel"]).max()
    assert 0 < moved < 3e-3  # two steps of AdamW, averaged
