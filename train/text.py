"""Text for models that start from nothing: a tokenizer of the captions' own words and a random text encoder."""

import json
from collections.abc import Iterable
from pathlib import Path

import jax
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordLevelTrainer

from elements_jax.checkpoints.model_folder import has_network, save_network
from elements_jax.config import ModelConfig, TextConfig
from elements_jax.models.networks import Networks
from train.input.stored import Folders, captions

UNKNOWN, START, END = "<unk>", "<s>", "</s>"


def write_tokenizer(folder: Path, captions: Iterable[str], config: TextConfig) -> int:
    """Write a tokenizer with one token for each of the captions' commonest words; returns their number.

    A caption stands between a start and an end token and is padded with the latter.
    """
    tokenizer = Tokenizer(WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    special = [UNKNOWN, START, END]
    tokenizer.train_from_iterator(
        captions, WordLevelTrainer(vocab_size=config.vocab_size, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(token, tokenizer.token_to_id(token)) for token in (START, END)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": END, "unk_token": UNKNOWN}, indent=2)
    )
    return tokenizer.get_vocab_size()


def start_text(model: ModelConfig, seed: int, folder: Path, records: Folders) -> None:
    """Where the model folder has no text encoder, put a random one there, and a tokenizer of the records' captions."""
    if has_network(folder, "text_encoder"):
        return
    words = write_tokenizer(folder / "tokenizer", captions(records, "train"), model.text)
    print(
        f"{folder} has no text encoder: starting a random one, which stays as it is, and a tokenizer of the {words} "
        "words of the captions"
    )
    save_network(folder, "text_encoder", Networks(model).text_encoder.init(jax.random.key(seed)))
