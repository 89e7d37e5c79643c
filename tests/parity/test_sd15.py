"""Stable Diffusion 1.5 at full size, with random parameters: our networks against diffusers' and transformers'.

Tolerance: 1e-4 in float32, by the relative error in the 2-norm. PyTorch's networks are made, run, saved and freed
before ours are loaded, since two UNets and a copy in between would not fit in 9 GB.
"""

import functools
import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save_file

from elements_jax.checkpoints import torch_names
from elements_jax.config import ModelConfig, UNetConfig
from elements_jax.models.functional import Params
from elements_jax.models.networks import Networks
from tests.helpers.algorithm_1 import add_element_attention, torch_predict
from tests.helpers.stable_diffusion import TABLES, official_name, theirs

pytestmark = pytest.mark.slow

CONFIG = ModelConfig(unet=UNetConfig(zero_init_elements=True))
NETWORKS = Networks(CONFIG)
TOLERANCE = 1e-4


class Case(NamedTuple):
    """Inputs, outputs and files of PyTorch's network, and the parameters read from the files."""

    inputs: dict[str, np.ndarray]
    expected: dict[str, torch.Tensor]
    files: list[Path]
    params: Params


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for gigabytes that pytest's own folders would keep."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def make(randomise):
    """Make PyTorch's network with random parameters; it may use all cores, since nothing else runs."""

    def randomised(network: str) -> torch.nn.Module:
        torch.set_num_threads(os.cpu_count() or 1)
        return randomise(theirs(network).to_empty(device="cpu"))

    return randomised


def nchw(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(0, 3, 1, 2))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def vae(make, folder) -> Case:
    network, path = make("vae"), folder / "vae.safetensors"
    inputs = {"image": np.tanh(normal(1, 512, 512, 3)), "latent": normal(1, 64, 64, 4)}
    with torch.no_grad():
        moments = network.encode(nchw(inputs["image"])).latent_dist
        expected = {"mean": moments.mean, "logvar": moments.logvar}
        expected["image"] = network.decode(nchw(inputs["latent"])).sample
    save_file(network.state_dict(), path)
    return Case(
        inputs, expected, [path], torch_names.from_torch(torch_names.VAE, load_file(path), NETWORKS.vae.shapes())
    )


@pytest.fixture(scope="module")
def text_encoder(make, folder) -> Case:
    network, path = make("text_encoder"), folder / "text_encoder.safetensors"
    tokens = np.random.default_rng(0).integers(0, CONFIG.text.vocab_size, (2, CONFIG.text.max_length))
    with torch.no_grad():  # the positions, since their buffer is not a parameter and so is empty
        positions = torch.arange(CONFIG.text.max_length)[None]
        expected = network(torch.from_numpy(tokens), position_ids=positions).last_hidden_state
    save_file(network.state_dict(), path)
    params = torch_names.from_torch(torch_names.TEXT, load_file(path), NETWORKS.text_encoder.shapes())
    return Case({"tokens": tokens.astype(np.int32)}, {"features": expected}, [path], params)


@pytest.fixture(scope="module")
def unet(make, randomise, folder) -> Case:
    """diffusers' network, run first unchanged and then with Algorithm 1 added to its blocks."""
    files = [folder / "unet.safetensors", folder / "elements.safetensors"]
    inputs = {
        "latent": normal(1, 64, 64, 4),
        "timestep": np.array([481], np.int32),
        "text": normal(1, CONFIG.text.max_length, CONFIG.text.hidden_size),
        "elements": normal(1, CONFIG.elements.num_elements, CONFIG.elements.token_channels),
    }
    inputs["elements"][:, ::4] = 0  # deleted elements: zero tokens, which take part in the softmax

    network = make("unet")
    save_file(network.state_dict(), files[0])
    stock = set(network.state_dict())
    expected = {"alone": torch_predict(network, inputs)}
    new = add_element_attention(network, CONFIG.elements.token_channels, torch.from_numpy(inputs["elements"]))
    randomise(new, seed=1)
    save_file({name: value for name, value in network.state_dict().items() if name not in stock}, files[1])
    expected["elements"] = torch_predict(network, inputs)
    del network, new
    gc.collect()  # the blocks' new methods refer to the blocks

    shapes = NETWORKS.unet.shapes()
    params = torch_names.from_torch(torch_names.UNET, load_file(files[0]), shapes)
    shapes = {name: shape for name, shape in shapes.items() if name not in params}
    return Case(inputs, expected, files, params | torch_names.from_torch(torch_names.UNET, load_file(files[1]), shapes))


@pytest.fixture
def assert_same_and_telling(assert_same):
    """Check agreement on numbers of order one that differ from each other; others would agree trivially."""

    def compare(ours: jax.Array, theirs: torch.Tensor) -> None:
        assert 0.1 < theirs.std() < 10
        assert_same(ours, theirs, TOLERANCE)

    return compare


def test_vae_equals_diffusers(vae, assert_same_and_telling):
    mean, logvar = jax.jit(lambda params, x: NETWORKS.vae.module(params).encode(x))(vae.params, vae.inputs["image"])
    image = jax.jit(lambda params, z: NETWORKS.vae.module(params).decode(z))(vae.params, vae.inputs["latent"])
    assert mean.shape == logvar.shape == vae.inputs["latent"].shape
    assert image.shape == vae.inputs["image"].shape
    assert_same_and_telling(mean, vae.expected["mean"])
    assert_same_and_telling(logvar, vae.expected["logvar"])
    assert_same_and_telling(image, vae.expected["image"])


def test_text_encoder_equals_transformers(text_encoder, assert_same_and_telling):
    features = jax.jit(NETWORKS.text_encoder)(text_encoder.params, text_encoder.inputs["tokens"])
    assert features.shape == (2, 77, 768)
    assert_same_and_telling(features, text_encoder.expected["features"])


# Without LLVM's optimisations, so that two programs compute their common part in the same way: with them, an attention
# that adds only zeros still changes the noise, by up to 4e-6.
@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
def predict(params: Params, inputs: dict[str, jax.Array]) -> jax.Array:
    """Predict the noise, without attention to elements if the inputs have none."""
    unet = NETWORKS.unet.module(params)
    return unet(inputs["latent"], inputs["timestep"], unet.context(inputs["text"], inputs.get("elements")))


@pytest.fixture(scope="module")
def noise_without_elements(unet) -> jax.Array:
    unused = {name: jnp.full_like(value, jnp.nan) for name, value in unet.params.items() if "element" in name}
    assert len(unused) == 7 * 16  # to_q, to_k, to_v, to_out and its bias, the norm's scale and bias in each block
    return predict(unet.params | unused, {name: x for name, x in unet.inputs.items() if name != "elements"})


def test_unet_without_elements_equals_diffusers(unet, noise_without_elements, assert_same_and_telling):
    assert_same_and_telling(noise_without_elements, unet.expected["alone"])


def test_unet_with_elements_equals_algorithm_1_in_diffusers(unet, assert_same_and_telling):
    alone, expected = unet.expected["alone"], unet.expected["elements"]
    assert torch.linalg.norm(expected - alone) / torch.linalg.norm(alone) > 100 * TOLERANCE
    assert_same_and_telling(predict(unet.params, unet.inputs), expected)


def test_zero_elements_and_zero_outputs_leave_sd15_unchanged(unet, noise_without_elements):
    """Training starts from exactly Stable Diffusion."""
    stock = {name: value for name, value in unet.params.items() if "element" not in name}
    params = NETWORKS.unet.init_missing(stock, jax.random.key(0))
    new = {name: value for name, value in params.items() if ".element_attention." in name}
    assert all(value.any() == (".to_out." not in name) for name, value in new.items())
    elements = np.zeros_like(unet.inputs["elements"])
    noise = predict(params, unet.inputs | {"elements": elements})
    np.testing.assert_array_equal(noise, noise_without_elements)


@pytest.mark.parametrize("network", ["vae", "text_encoder", "unet"])
def test_round_trip_is_bit_exact(network, request):
    case, table = request.getfixturevalue(network), TABLES[network]
    ours = {torch_names.torch_name(table, name): {name: value} for name, value in case.params.items()}
    for path in case.files:
        with safe_open(path, framework="numpy") as file:
            names = file.keys()
        for name in names:
            with safe_open(path, framework="numpy") as file:  # reopened, since an open file's parts stay in memory
                saved = file.get_tensor(name)
            back = torch_names.to_torch(table, ours.pop(official_name(network, name)))[official_name(network, name)]
            assert (back.shape, back.dtype) == (saved.shape, np.float32)
            assert back.tobytes() == saved.tobytes()
    assert not ours
