"""Stage 2 that also trains the content encoder: its start, its updates, and its export."""

import dataclasses
import shutil
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.checkpoints.model_folder import has_network, load_networks, save_network, write_config
from elements_jax.cli import train as cli
from elements_jax.models.networks import Networks
from elements_jax.parallel.sharding import make_mesh
from elements_jax.pipeline.pipeline import ElementsPipeline
from train.config import DiffusionTrainConfig
from train.cost.ahead_of_time import stage_of_shapes, step_arguments, step_flops
from train.input.data import dataset
from train.stage import example_keys
from train.stages.conditioning import with_partner_example
from train.stages.diffusion import DiffusionStage
from train.stages.diffusion_unfrozen import UnfrozenStage
from train.start import start_text

FROZEN = DiffusionTrainConfig(steps=2, batch_size=4, learning_rate=1e-3, warmup=1, sample_count=2)
UNFROZEN, JOINT = (dataclasses.replace(FROZEN, encoder=encoder) for encoder in ("unfrozen", "joint"))


@pytest.fixture(scope="module")
def folder(small, records, tmp_path_factory):
    """A model folder that stage 1 has finished, of random networks."""
    folder = tmp_path_factory.mktemp("model")
    write_config(folder, small)
    for name in ("vae", "encoder", "decoder"):
        save_network(folder, name, getattr(Networks(small), name).init(jax.random.key(1)))
    start_text(small, 0, folder, records)
    return folder


@pytest.fixture
def copied(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copied")
    return tmp_path / "copied"


def encoder_of(folder, small):
    return load_networks(folder, Networks(small), ["encoder"])["encoder"]


@pytest.mark.slow
@pytest.mark.parametrize("train", [UNFROZEN, JOINT], ids=lambda train: train.encoder)
def test_trains_the_encoder_and_drops_the_light_decoder(train, small, records, copied, folder):
    assert cli.run("diffusion", cli.Job(data=(records,), model=copied, train=train, config=small)) == 2
    before, after = encoder_of(folder, small), encoder_of(copied, small)
    moved = max(float(np.abs(after[name] - before[name]).max()) for name in before)
    assert moved > 0
    assert (moved > 0.1) == (train is JOINT)  # two small steps away, or another encoder
    assert not has_network(copied, "decoder")

    pipeline = ElementsPipeline.from_pretrained(copied)
    label_map = (2 * (np.arange(16)[:, None] > 7) + (np.arange(16) > 7)).astype(np.uint16)
    elements = pipeline.encode_batch(np.zeros((1, 16, 16, 3), np.uint8), label_map[None]).elements
    with pytest.raises(ValueError, match="no light decoder: its content encoder was trained in stage 2"):
        pipeline.reconstruct(elements)


def test_frozen_is_the_same_loss_with_an_encoder_that_stays(small, records, folder):
    frozen, unfrozen = DiffusionStage(small, FROZEN, folder), UnfrozenStage(small, UNFROZEN, folder)
    assert set(unfrozen.frozen) == {"vae", "text_encoder"}
    params = unfrozen.init(jax.random.key(3), unfrozen.pretrained())
    for name, value in encoder_of(folder, small).items():
        np.testing.assert_array_equal(params["encoder"][name], value)
    with closing(dataset(records, "train", batch_size=4, seed=0, shuffle=False, tokenize=frozen.tokenize)) as batches:
        batch = with_partner_example(jax.tree.map(jnp.asarray, next(batches)))
    rest = batch, example_keys(jax.random.key(1), 0, batch["index"]), jnp.int32(0)
    expected = jax.jit(jax.value_and_grad(frozen.loss, has_aux=True))(params["unet"], frozen.frozen, *rest)
    found = jax.jit(jax.value_and_grad(unfrozen.loss, has_aux=True))(params, unfrozen.frozen, *rest)
    np.testing.assert_allclose(found[0][0], expected[0][0], rtol=1e-5)
    for name, value in expected[1].items():
        np.testing.assert_allclose(found[1]["unet"][name], value, rtol=1e-3, atol=1e-6, err_msg=name)
    assert sum(float(np.abs(leaf).max()) > 0 for leaf in found[1]["encoder"].values()) > len(params["encoder"]) // 2


def test_unfrozen_needs_stage_1_and_joint_takes_nothing_of_it(small, copied):
    assert UnfrozenStage(small, JOINT, copied).pretrained() == {}  # and nothing of the UNet, which does not exist yet
    (copied / "elements" / "encoder.safetensors").unlink()
    stage = UnfrozenStage(small, UNFROZEN, copied)
    with pytest.raises(
        FileNotFoundError, match=r"elements holds no encoder.* \(made by `elements train autoencoder`\)"
    ):
        stage.pretrained()


def test_the_folder_of_stage_1_is_not_overwritten(small, records, copied):
    (copied / "runs" / "autoencoder" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"stage 1 was trained, and encoder='joint' would .* --init"):
        cli.run("diffusion", cli.Job(data=(records,), model=copied, train=JOINT, config=small))
    assert has_network(copied, "decoder")


def test_compiles_and_counts_flops_without_a_model_folder(small):
    stages = [stage_of_shapes(small, train) for train in (FROZEN, JOINT)]
    state, frozen, *_ = step_arguments(stages[1], JOINT, make_mesh(1, 1))
    assert state["params"].keys() == state["ema"].keys() == {"unet", "encoder"}
    assert set(frozen) == {"vae", "text_encoder"}
    model, _ = step_flops(stages[1], JOINT)
    assert model > step_flops(stages[0], FROZEN)[0]
