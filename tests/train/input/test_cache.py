"""Features computed once: the stored values, resuming a killed call, and equal training."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.checkpoints.model_folder import load_networks, save_network, write_config
from elements_jax.checkpoints.tokenizer import PromptTokenizer
from elements_jax.cli import main as command_line
from elements_jax.cli import train as cli
from elements_jax.data.record import CACHED, Example, Record
from elements_jax.data.tfrecord import TFRecordSource, find_shards, shard_path, write_tfrecord
from elements_jax.models.networks import Networks
from tests.helpers.records import record
from train.config import DiffusionTrainConfig
from train.input import cache as module
from train.input.cache import cache, require_cached
from train.input.data import dataset
from train.stage import example_keys, to_float
from train.stages.conditioning import with_partner_example
from train.stages.diffusion import DiffusionStage
from train.start import start_text

TRAIN = DiffusionTrainConfig(steps=2, batch_size=8, learning_rate=1e-3, warmup=1, sample_count=2, cached=True)
SHARDS = {"train": [range(7), range(7, 14), range(14, 20)], "val": [range(100, 104)]}
"""Seeds of the records in every shard."""


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    for split, shards in SHARDS.items():
        for number, seeds in enumerate(shards):
            path = shard_path(folder, split, number, len(shards))
            write_tfrecord(path, (record(seed).to_example() for seed in seeds))
    return folder


@pytest.fixture(scope="module")
def model(small, records, tmp_path_factory):
    """A model folder that is ready for stage 2, of random networks, the UNet's among them."""
    folder, rng = tmp_path_factory.mktemp("model"), np.random.default_rng(0)
    write_config(folder, small)
    for name in ("vae", "encoder", "unet"):
        shapes = getattr(Networks(small), name).shapes()
        drawn = {key: 0.3 * rng.standard_normal(leaf.shape, np.float32) for key, leaf in shapes.items()}
        save_network(folder, name, jax.tree.map(jnp.asarray, drawn))
    start_text(small, 0, folder, records)
    return folder


@pytest.fixture(scope="module")
def cached(records, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "cached"
    assert command_line.main(["cache", str(records), str(out), "--model", str(model), "--batch-size", "4"]) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sources(folder: Path) -> list[TFRecordSource]:
    return [TFRecordSource([path]) for shards in find_shards(folder).values() for path in shards]


def test_adds_network_outputs_to_records_left_unchanged(records, cached, model, small):
    networks, tokenize = Networks(small), PromptTokenizer(model / "tokenizer", small.text)
    params = load_networks(model, networks, ["vae", "text_encoder"])

    @jax.jit
    def oracle(image, tokens):
        moments = networks.vae.module(params["vae"]).encode(to_float(image))
        return *moments, networks.text_encoder(params["text_encoder"], tokens)

    for before, after in zip(sources(records), sources(cached), strict=True):
        assert len(before) == len(after)
        for number in range(len(before)):
            stored = Example.FromString(after[number])
            read = Record.from_example(after[number], "here")
            assert tuple(read.cached) == CACHED
            expected = oracle(read.image[None], tokenize(read.caption)[None])
            for name, array in zip(CACHED, expected, strict=True):
                # Half a unit in the last of float16's 11 bits, plus the effect of another batch size.
                np.testing.assert_allclose(read.cached[name], np.ravel(array), rtol=2**-11, atol=1e-5)
                del stored.features.feature[name]
            assert stored.SerializeToString(deterministic=True) == before[number]
    assert find_shards(cached).keys() == {"train", "val"}
    described = json.loads((cached / "features.json").read_text())["content"]["features"]
    shapes = {name: described[name]["tensor"]["shape"]["dimensions"] for name in CACHED}
    assert shapes == {"latent_mean": ["8", "8", "4"], "latent_logvar": ["8", "8", "4"], "text": ["6", "16"]}


def test_a_call_resumes_a_killed_one(records, cached, model, tmp_path, monkeypatch):
    computed = module._examples

    def killed_in_the_second_shard(source, *arguments):
        for number, example in enumerate(computed(source, *arguments)):
            if "00001-of-00003" in source.where(0) and number == 5:
                raise KeyboardInterrupt
            yield example

    monkeypatch.setattr(module, "_examples", killed_in_the_second_shard)
    with pytest.raises(KeyboardInterrupt):
        cache(records, tmp_path, model, 4)
    monkeypatch.undo()
    (tmp_path / ".elements-val.tfrecord-00000-of-00001.0.unfinished").write_bytes(b"of a process killed harder")
    first = shard_path(tmp_path, "train", 0, 3)
    assert {path for path in tmp_path.iterdir() if not path.name.startswith(".")} == {first, tmp_path / module.MADE_OF}
    written = first.stat().st_mtime_ns
    cache(records, tmp_path, model, 4)
    assert first.stat().st_mtime_ns == written
    assert contents(tmp_path) == contents(cached)


@pytest.fixture
def changed(model, small, tmp_path):
    """Return the model folder with one tensor of a network changed."""

    def change(network, name, value):
        folder = tmp_path / f"other-{name}"
        shutil.copytree(model, folder)
        params = load_networks(folder, Networks(small), [network])[network]
        save_network(folder, network, params | {name: jnp.full_like(params[name], value)})
        return folder

    return change


def train_on(records, folder, config):
    cli.run("diffusion", cli.Job(data=(records,), model=folder, train=TRAIN, config=config))


def test_training_with_other_networks_is_refused(records, cached, model, small, changed):
    with pytest.raises(ValueError, match=rf"{records} holds no cache.json: `elements cache` writes such records"):
        train_on(records, model, small)
    with pytest.raises(ValueError, match=f"{cached} was cached with another VAE than that of"):
        train_on(cached, changed("vae", "quant_conv.bias", 0.5), small)
    with pytest.raises(ValueError, match=f"{cached} was cached with another text encoder than that of"):
        train_on(cached, changed("text_encoder", "final_layer_norm.scale", 0.5), small)
    other = changed("vae", "decoder.conv_in.bias", 0.5)  # this does not change the latents
    require_cached(cached, other)
    words = other / "tokenizer" / "tokenizer.json"
    words.write_text(words.read_text().replace("square", "squire"))
    (other / "elements" / "text_encoder.manifest.json").unlink()  # it holds the tokenizer's checksum
    with pytest.raises(ValueError, match=f"{cached} was cached with another tokenizer than that of"):
        train_on(cached, other, small)


def test_records_are_not_mixed_with_others(records, cached, model, changed, tmp_path):
    with pytest.raises(ValueError, match=r"cached was cached from other networks: VAE; remove it, or choose another"):
        cache(records, cached, changed("vae", "quant_conv.bias", 0.5), 4)
    with pytest.raises(ValueError, match=r"-train.tfrecord-00000-of-00003 already exists, and is not from"):
        cache(records, records, model, 4)
    shutil.copytree(records, tmp_path / "records")
    write_tfrecord(shard_path(tmp_path / "records", "val", 0, 1), [record(200).to_example()])
    with pytest.raises(ValueError, match=r"was cached from other records: elements-val.tfrecord-00000-of-00001;"):
        cache(tmp_path / "records", cached, model, 4)


def test_what_cannot_be_cached_is_named(records, model, changed, tmp_path):
    with pytest.raises(ValueError, match="00000-of-00003 record 0: latent_mean not finite in float16"):
        cache(records, tmp_path / "out", changed("vae", "quant_conv.bias", 1e6), 4)
    assert not find_shards(tmp_path / "out")
    larger = record(1, image_size=20)
    write_tfrecord(shard_path(tmp_path, "train", 0, 1), [record(0).to_example(), larger.to_example()])
    with pytest.raises(ValueError, match=r"record 1: the model takes images of 16 x 16 px .* has images of 20 x 20"):
        cache(tmp_path, tmp_path / "another", model, 4)
    batches = dataset(records, "train", batch_size=4, seed=0, shuffle=False, tokenize=None, cached=True)
    with closing(batches), pytest.raises(ValueError, match="no latent_mean, latent_logvar, text, which"):
        next(batches)


def test_cached_losses_are_equal_up_to_storage_rounding(cached, model, small):
    losses = []
    for train in (dataclasses.replace(TRAIN, cached=False), TRAIN):
        stage = DiffusionStage(small, train, model)
        params, loss = stage.pretrained(), jax.jit(stage.loss)
        if train.cached:  # it does not look at the networks
            stage.frozen |= {name: jax.tree.map(jnp.zeros_like, stage.frozen[name]) for name in ("vae", "text_encoder")}
        options = {"tokenize": stage.tokenize, "cached": stage.cached}
        with closing(dataset(cached, "train", batch_size=8, seed=0, shuffle=True, **options)) as batches:
            for step in range(4):
                batch = jax.tree.map(jnp.asarray, next(batches))
                keys = example_keys(jax.random.key(1), step, batch["index"])
                losses.append(float(loss(params, stage.frozen, with_partner_example(batch), keys, jnp.int32(0))[0]))
    np.testing.assert_allclose(losses[4:], losses[:4], rtol=1e-5)
    for name in CACHED:
        without = float(
            loss(params, stage.frozen, with_partner_example(batch | {name: 0 * batch[name]}), keys, jnp.int32(0))[0]
        )
        assert without != pytest.approx(losses[-1], rel=1e-4)


@pytest.mark.slow
def test_a_stage_trains_from_cached_records(cached, model, small, capsys):
    cli.run("diffusion", cli.Job(data=(cached,), model=model, train=TRAIN, config=small))
    assert "step 2/2  loss" in capsys.readouterr().out
    assert (model / "runs" / "diffusion" / "samples" / "0000002.png").stat().st_size > 0


SCRIPT = """
import sys
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", 2)
from train.input.cache import cache
records, out, model = map(Path, sys.argv[1:])
cache(records, out, model, 2)
assert jax.device_count() == 2
"""


def test_a_batch_is_divided_over_all_devices(records, cached, model, tmp_path):
    root = Path(__file__).parents[3]  # where `python -c` finds the packages
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PJRT_NPROC": "16"}
    arguments = map(str, (records, tmp_path, model))
    subprocess.run([sys.executable, "-c", SCRIPT, *arguments], env=environment, cwd=root, check=True)
    for one, two in zip(sources(cached), sources(tmp_path), strict=True):
        for number in range(len(one)):
            expected, found = (Record.from_example(source[number], "here").cached for source in (one, two))
            for name in CACHED:  # a unit of float16, since sums have another order
                np.testing.assert_allclose(found[name], expected[name], rtol=2**-10, atol=1e-4)
