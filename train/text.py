"""Text for models that start from nothing: a tokenizer of the captions' own words and a random text encoder."""

from collections.abc import Iterable
from pathlib import Path

import jax
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordLevelTrainer

from elements_jax.config import ModelConfig, TextConfig
from elements_jax.weights import Networks, save_params
from train.data import captions

UNKNOWN, START, END = "<unk>", "<s>", "</s>"


def word_tokenizer(captions: Iterable[str], config: TextConfig) -> Tokenizer:
    """One token for each of the captions' commonest words, between a start and an end token, padded with the latter."""
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
    tokenizer.enable_truncation(config.max_length)
    tokenizer.enable_padding(length=config.max_length, pad_id=tokenizer.token_to_id(END), pad_token=END)
    return tokenizer


def start_text(model: ModelConfig, seed: int, folder: Path, records: Path) -> None:
    """Where the model folder has no text encoder, put a random one there, and a tokenizer of the records' captions."""
    path = folder / "text_encoder.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return
    tokenizer = word_tokenizer(captions(records, "train"), model.text)
    print(
        f"{folder} has no text encoder: starting a random one, which stays as it is, and a tokenizer of the "
        f"{tokenizer.get_vocab_size()} words of the captions"
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    save_params(path, Networks(model).text_encoder.init(jax.random.key(seed)))
