import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import CLIPTextConfig, CLIPTextModel

from elements_jax.checkpoints import torch_names
from elements_jax.config import TextConfig
from elements_jax.models.functional import Functional
from elements_jax.models.text_encoder import CLIPTextEncoder

CONFIG = TextConfig(vocab_size=99, max_length=12, hidden_size=32, intermediate_size=80, layers=3, heads=4)


@pytest.fixture
def theirs(randomise) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=CONFIG.vocab_size,
        max_position_embeddings=CONFIG.max_length,
        hidden_size=CONFIG.hidden_size,
        intermediate_size=CONFIG.intermediate_size,
        num_hidden_layers=CONFIG.layers,
        num_attention_heads=CONFIG.heads,
    )
    return randomise(CLIPTextModel(config))


def build(rngs: nnx.Rngs) -> CLIPTextEncoder:
    return CLIPTextEncoder(CONFIG, jnp.float32, rngs=rngs)


@pytest.mark.parametrize("length", [12, 7])
def test_equals_transformers(theirs, tensors_of, assert_same, length):
    ours = Functional(build)
    params = torch_names.from_torch(torch_names.TEXT, tensors_of(theirs), ours.shapes())
    tokens = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (2, length))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens)).last_hidden_state
    assert_same(jax.jit(ours)(params, jnp.asarray(tokens, jnp.int32)), expected)


def test_reads_the_names_of_official_checkpoints(theirs, tensors_of):
    tensors, shapes = tensors_of(theirs), Functional(build).shapes()
    official = {f"text_model.{name}": value for name, value in tensors.items()}
    official["text_model.embeddings.position_ids"] = np.arange(CONFIG.max_length)[None]
    params, expected = (torch_names.from_torch(torch_names.TEXT, t, shapes) for t in (official, tensors))
    assert params.keys() == expected.keys()
    assert all(np.array_equal(params[name], expected[name]) for name in params)


def test_a_prompt_that_is_too_long_is_refused():
    ours = Functional(build)
    with pytest.raises(ValueError, match="13 tokens, the text encoder takes at most 12"):
        jax.eval_shape(ours, ours.shapes(), jax.ShapeDtypeStruct((1, 13), jnp.int32))
