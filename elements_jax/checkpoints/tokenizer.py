"""The tokenizer of a model folder: CLIP's, or any tokenizer of the tokenizers library."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from elements_jax.config import TextConfig
from elements_jax.data.atomic import new_file

START, END = "<|startoftext|>", "<|endoftext|>"
# CLIP's pre-tokens: contractions, runs of letters, single digits, runs of anything else except spaces.
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class PromptTokenizer:
    """Turns a prompt into the text encoder's tokens, truncated or padded to `max_length`.

    Args:
        folder: holds a `tokenizer.json` of the tokenizers library, or CLIP's `vocab.json` and `merges.txt`.

    Raises FileNotFoundError, or ValueError if a file is damaged or has more tokens than the text encoder.
    """

    def __init__(self, folder: Path, config: TextConfig):
        self._files = {path.name: path.read_bytes() for path in sorted(folder.glob("*")) if path.is_file()}
        try:
            if "tokenizer.json" in self._files:
                self._tokenizer = Tokenizer.from_str(self._files["tokenizer.json"].decode())
            else:
                self._tokenizer = _clip(folder)
            pad = self._padding_token()
            pad_id = self._tokenizer.token_to_id(pad)
            if pad_id is None:
                raise ValueError(f"its padding token is not in its vocabulary: {pad!r}")
        except FileNotFoundError:
            raise
        except Exception as error:  # the library raises only this
            raise ValueError(f"{folder} holds no readable tokenizer: {error}") from error
        words = self._tokenizer.get_vocab_size()
        if words > config.vocab_size:
            raise ValueError(f"{folder}: the tokenizer has {words} tokens, the text encoder {config.vocab_size}")
        self._tokenizer.enable_truncation(config.max_length)
        self._tokenizer.enable_padding(length=config.max_length, pad_id=pad_id, pad_token=pad)

    def __call__(self, prompt: str) -> Int32[np.ndarray, " L"]:
        """Return the tokens of a prompt, truncated if it is too long."""
        return np.array(self._tokenizer.encode(prompt).ids, np.int32)

    def cut(self, prompt: str) -> str:
        """Return the part of a prompt that is truncated; "" if all of it fits."""
        encoding = self._tokenizer.encode(prompt)
        if not encoding.overflowing:
            return ""
        return prompt[max(end for _, end in encoding.offsets) :].strip()

    def save(self, folder: Path) -> None:
        """Write the files that were read, each completely or not at all. Raises OSError that names a file."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._files.items():
            with new_file(folder / name) as file:
                file.write(content)

    def _padding_token(self) -> str:
        if self._tokenizer.padding is not None:
            return self._tokenizer.padding["pad_token"]
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            token: Any = json.loads(self._files.get(name, b"{}")).get("pad_token")
            if token is not None:
                return token["content"] if isinstance(token, dict) else token
        return END


def _clip(folder: Path) -> Tokenizer:
    """CLIP's byte pair encoding (Radford et al. 2021): lower case, white space collapsed, words end in "</w>"."""
    if missing := [name for name in ("vocab.json", "merges.txt") if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder} holds no tokenizer: neither tokenizer.json nor {' and '.join(missing)}")
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    # "# #" is an ordinary pair.
    pairs = [(a, b) for a, b in (line.split() for line in merges if line and not line.startswith("#version"))]
    tokenizer = Tokenizer(BPE(vocabulary, pairs, end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.post_processor = TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(token, vocabulary[token]) for token in (START, END)]
    )
    tokenizer.add_special_tokens([START, END])
    return tokenizer
