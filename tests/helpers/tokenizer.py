"""CLIP's tokenizer, from the vocabulary that comes with open_clip."""

import gzip
import importlib.util
import json
from pathlib import Path

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from elements_jax.checkpoints.tokenizer import END, START


def write_clip_tokenizer(folder: Path) -> Path:
    """Write the files of `tokenizer/` in Stable Diffusion 1.5."""
    found = importlib.util.find_spec("open_clip")
    if found is None or found.origin is None:
        pytest.skip("needs CLIP's vocabulary, which open_clip_torch brings")
    with gzip.open(Path(found.origin).with_name("bpe_simple_vocab_16e6.txt.gz"), "rt", encoding="utf-8") as file:
        merges = file.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printable]  # the letter of each byte; bytes without a letter take the next ones
    letters += sorted(set(ByteLevel.alphabet()) - set(letters))
    words = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *("".join(line.split()) for line in merges),
        START,
        END,
    ]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")
    names = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END, "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(names | {"tokenizer_class": "CLIPTokenizer"}))
    return folder
