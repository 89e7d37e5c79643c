"""Model folders with files that were not saved together are refused."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from elements_jax.checkpoints.manifest import manifest_path
from elements_jax.checkpoints.model_folder import load_networks, remove_network, save_network, save_networks
from elements_jax.models.networks import Networks
from tests.helpers.records import SMALL

NETWORKS = Networks(SMALL)


@pytest.fixture
def folder(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("vae", "vae/diffusion_pytorch_model.safetensors"),
        ("unet", "elements/attention.safetensors"),
        ("encoder", "elements/encoder.safetensors"),
        ("text_encoder", "tokenizer/tokenizer.json"),
    ],
)
def test_a_flipped_bit_in_a_file_is_found(folder, name, file):
    load_networks(folder, NETWORKS, [name])
    content = bytearray((folder / file).read_bytes())
    content[-20] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{file} has the checksum \w{{8}}, and {name}.manifest.json expects \w{{8}}"):
        load_networks(folder, NETWORKS, [name])
    manifest_path(folder, name).unlink()  # as the error says
    load_networks(folder, NETWORKS, [name])


def test_networks_of_two_saves_are_not_mixed(folder):
    """The folder is as a kill between two files of stage 1 leaves it."""
    params = load_networks(folder, NETWORKS, ["encoder", "decoder"])
    before = (folder / "elements" / "decoder.safetensors").read_bytes()
    save_networks(folder, jax.tree.map(lambda value: value + 1, params), "runs/autoencoder, step 4")
    (folder / "elements" / "decoder.safetensors").write_bytes(before)
    with pytest.raises(ValueError, match=r"decoder.safetensors has the checksum"):
        load_networks(folder, NETWORKS, ["encoder", "decoder"])


def test_a_manifest_names_run_and_step(folder):
    params = load_networks(folder, NETWORKS, ["vae"])["vae"]
    save_networks(folder, {"vae": params}, "runs/vae, step 4000", SMALL.vae.scaling_factor)
    assert json.loads(manifest_path(folder, "vae").read_bytes())["made_by"] == "runs/vae, step 4000"
    load_networks(folder, NETWORKS, ["vae"])
    save_networks(folder, {"vae": params}, "runs/vae, step 4000", 0.5)
    with pytest.raises(ValueError, match=r"saved with scaling_factor 0.5, and its configuration has 1.0"):
        load_networks(folder, NETWORKS, ["vae"])


def test_a_damaged_manifest_is_one_clear_error(folder):
    manifest_path(folder, "vae").write_text("[]")
    with pytest.raises(ValueError, match=r"vae.manifest.json is damaged: expected the checksums of files"):
        load_networks(folder, NETWORKS, ["vae"])
    remove_network(folder, "vae")
    assert not manifest_path(folder, "vae").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rejects_non_finite_parameters_on_save_and_load(folder, value):
    params = load_networks(folder, NETWORKS, ["encoder"])["encoder"]
    name = sorted(params)[0]
    before = (folder / "elements" / "encoder.safetensors").read_bytes()
    with pytest.raises(ValueError, match=rf"not saved: 1 parameters of encoder are not finite, such as {name}"):
        save_network(folder, "encoder", params | {name: params[name].at[(0,) * params[name].ndim].set(value)})
    assert (folder / "elements" / "encoder.safetensors").read_bytes() == before

    path = folder / "elements" / "encoder.safetensors"
    tensors = load_file(path)
    odd = sorted(tensors)[0]
    tensors[odd].flat[0] = value
    save_file(tensors, path)
    manifest_path(folder, "encoder").unlink()
    with pytest.raises(ValueError, match=rf"encoder: .*\n  not finite: {odd}"):
        load_networks(folder, NETWORKS, ["encoder"])


@pytest.mark.parametrize("kind", [np.int64, np.bool_, np.uint8])
def test_parameters_of_whole_numbers_are_refused(folder, kind):
    path = folder / "elements" / "encoder.safetensors"
    tensors = load_file(path)
    odd = sorted(tensors)[0]
    save_file(tensors | {odd: tensors[odd].astype(kind)}, path)
    manifest_path(folder, "encoder").unlink()
    with pytest.raises(ValueError, match=rf"expected real numbers, found {np.dtype(kind)}: {odd}"):
        load_networks(folder, NETWORKS, ["encoder"])


def test_half_precision_is_read(folder):
    path = folder / "elements" / "encoder.safetensors"
    tensors = load_file(path)
    odd = sorted(tensors)[0]
    half = tensors[odd].astype(jnp.bfloat16)
    save_file(tensors | {odd: half}, path)
    manifest_path(folder, "encoder").unlink()
    read = load_networks(folder, NETWORKS, ["encoder"])["encoder"]
    assert any(np.array_equal(value.ravel(), half.astype(np.float32).ravel()) for value in read.values())
