"""CLIP's tokenizer from its own files, against transformers'; the vocabulary comes with open_clip."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from elements_jax.checkpoints.tokenizer import PromptTokenizer
from elements_jax.config import TextConfig
from tests.helpers.tokenizer import write_clip_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_clip_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def tokenize(folder) -> PromptTokenizer:
    return PromptTokenizer(folder, TextConfig())


@pytest.fixture(scope="module")
def reference(folder):
    from transformers import CLIPTokenizer

    theirs = CLIPTokenizer.from_pretrained(folder)
    return lambda text: theirs(text, padding="max_length", truncation=True, max_length=77).input_ids


def test_tokens_are_the_published_ones(tokenize):
    tokens = tokenize("a photo of a cat")
    assert tokens.shape == (77,)
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [49406, 320, 1125, 539, 320, 2368, *[49407] * 71]


@given(text=st.text(max_size=300))
@example("It's 2 cats, ISN'T it?  \n\t ## ###... émigré — 猫 <|endoftext|> \U0001f600")
@example("")
@example("a cat " * 100)
def test_tokens_equal_those_of_transformers(tokenize, reference, text):
    assert tokenize(text).tolist() == reference(text)


def test_the_cut_part_of_a_prompt_is_returned(tokenize):
    assert tokenize.cut("a red cat " * 25) == ""  # 75 tokens between start and end
    assert tokenize.cut("a red cat " * 25 + "On a Mat.") == "On a Mat."
    assert tokenize("cat " * 90).tolist() == [49406, *[2368] * 75, 49407]


def test_saved_files_are_the_ones_that_were_read(tokenize, folder, tmp_path):
    tokenize.save(tmp_path / "tokenizer")
    copied = {path.name: path.read_bytes() for path in (tmp_path / "tokenizer").iterdir()}
    assert copied == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_padding_token_is_the_checkpoints_own(folder, tmp_path):
    PromptTokenizer(folder, TextConfig()).save(tmp_path)
    for token in ("!", {"content": "!", "lstrip": False}):  # as Stable Diffusion 2 pads
        (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": token}))
        assert PromptTokenizer(tmp_path, TextConfig())("")[-1] == 0
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<none>"}))
    with pytest.raises(ValueError, match=r"its padding token is not in its vocabulary: '<none>'"):
        PromptTokenizer(tmp_path, TextConfig())


def test_a_file_that_transformers_wrote_is_read(folder, tmp_path, tokenize):
    from transformers import CLIPTokenizer

    CLIPTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    text = "An astronaut's horse, 4K"
    assert PromptTokenizer(tmp_path, TextConfig())(text).tolist() == tokenize(text).tolist()
