"""The tokenizer of a model folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int32
from tokenizers import Tokenizer

from elements_jax.config import TextConfig


def load_tokenizer(path: Path, config: TextConfig) -> Callable[[str], Int32[np.ndarray, " L"]]:
    """The function from a caption to its tokens, cut or padded to `config.max_length`.

    Raises FileNotFoundError, or ValueError where the file is no tokenizer or does not fit the text encoder.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no tokenizer there")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"{path} is not a file of the tokenizers library: {error}") from error
    length, words = len(tokenizer.encode("").ids), tokenizer.get_vocab_size()
    if length != config.max_length or words > config.vocab_size:
        takes = f"the text encoder takes {config.max_length} of {config.vocab_size}"
        raise ValueError(f"{path} pads to {length} tokens of {words}; {takes}")
    return partial(_tokenize, tokenizer)


def _tokenize(tokenizer: Tokenizer, caption: str) -> Int32[np.ndarray, " L"]:
    return np.array(tokenizer.encode(caption).ids, np.int32)
