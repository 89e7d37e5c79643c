"""Prepare a stage's start: the model folder of earlier stages and, for models trained from scratch, the text encoder.

Models trained from scratch get a tokenizer of the captions' own words and a random text encoder.
"""

import dataclasses
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

from elements_jax.checkpoints.diffusers_config import differing_parts
from elements_jax.checkpoints.model_folder import (
    CONFIG,
    has_network,
    load_present,
    local_model,
    read_config,
    read_model,
    save_network,
    write_config,
)
from elements_jax.checkpoints.tokenizer import PromptTokenizer
from elements_jax.config import ModelConfig, TextConfig
from elements_jax.data.atomic import new_file
from elements_jax.models.light_decoder import resize_cells
from elements_jax.models.networks import Networks
from train.input.stored import Folders, captions


def open_folder(folder: Path, wanted: ModelConfig) -> ModelConfig:
    """Make the folder with `wanted` as its configuration, or check that it holds the same model; return the folder's.

    The two may differ only in the VAE's scaling factor, which its stage measures. Raises ValueError naming the parts
    that differ.
    """
    path = folder / CONFIG
    if not path.exists():
        write_config(folder, wanted)
        return wanted
    config = ModelConfig.load(path)
    wanted = with_scaling_factor(wanted, config.vae.scaling_factor)
    parts = [field.name for field in dataclasses.fields(config)]
    if differ := [name for name in parts if getattr(config, name) != getattr(wanted, name)]:
        raise ValueError(f"{path} belongs to another model: it differs from the preset and its overrides in {differ}")
    return config


def start_from(source: str, folder: Path, wanted: ModelConfig) -> None:
    """Fill the folder with the networks and the tokenizer of another model; existing parts are kept.

    Args:
        source: a model as `ElementsPipeline.from_pretrained` takes it, such as Stable Diffusion, or an incomplete model
            folder, such as one of stage 1, whose networks are copied.

    A light decoder of another image size starts with its images resized. Raises ValueError naming the parts in which
    the other model differs from `wanted` otherwise. Parts are compared only if the other model has networks for them.
    """
    names = ("encoder", "decoder", "vae", "text_encoder", "unet")
    if all(has_network(folder, name) for name in names):
        return
    path, tokenizer = local_model(source), None
    if (path / CONFIG).is_file():
        config = read_config(path)
        params = load_present(path, Networks(config), *names)
        if "text_encoder" in params:
            tokenizer = PromptTokenizer(path / "tokenizer", config.text)
    else:
        config, params, tokenizer = read_model(source)
    wanted = with_scaling_factor(wanted, config.vae.scaling_factor)
    if "decoder" in params and config.decoder == wanted.decoder:
        config = with_image_size(config, wanted.elements.image_size)
        params["decoder"] = resize_cells(params["decoder"], config.elements.image_size // config.decoder.query_grid)
    needed_by = {"scheduler": "unet"}
    differ = [part for part in differing_parts(wanted, config) if needed_by.get(part, part) in params]
    if "unet" in params and config.diffusion.draft_error != wanted.diffusion.draft_error:
        differ.append("diffusion.draft_error")
    if "encoder" in params:
        differ += [
            part for part in ("elements", "encoder", "decoder") if getattr(wanted, part) != getattr(config, part)
        ]
    if differ:
        raise ValueError(f"{source} belongs to another model: it differs from the preset and its overrides in {differ}")
    open_folder(folder, wanted)
    if tokenizer is not None and not has_network(folder, "text_encoder"):
        tokenizer.save(folder / "tokenizer")
    for name, network in params.items():
        if not has_network(folder, name):
            save_network(folder, name, network)


def with_scaling_factor(config: ModelConfig, scaling_factor: float) -> ModelConfig:
    """Return the configuration with another factor between the VAE's latents and the diffused ones."""
    return dataclasses.replace(config, vae=dataclasses.replace(config.vae, scaling_factor=scaling_factor))


def with_image_size(config: ModelConfig, image_size: int) -> ModelConfig:
    """Return the configuration for images of another size."""
    return dataclasses.replace(config, elements=dataclasses.replace(config.elements, image_size=image_size))


UNKNOWN, START, END = "<unk>", "<s>", "</s>"


def write_tokenizer(folder: Path, captions: Iterable[str], text: TextConfig) -> int:
    """Write a tokenizer with one token for each of the captions' commonest words; return their number.

    A caption is placed between a start and an end token, and padded with the latter.
    """
    tokenizer = Tokenizer(WordLevel(unk_token=UNKNOWN))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    special = [UNKNOWN, START, END]
    tokenizer.train_from_iterator(
        captions, WordLevelTrainer(vocab_size=text.vocab_size, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(token, tokenizer.token_to_id(token)) for token in (START, END)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": END, "unk_token": UNKNOWN}
    for name, content in {
        "tokenizer_config.json": json.dumps(config, indent=2),
        "tokenizer.json": tokenizer.to_str(pretty=True),
    }.items():
        with new_file(folder / name) as file:
            file.write(content.encode())
    return tokenizer.get_vocab_size()


def start_text(model: ModelConfig, seed: int, folder: Path, records: Folders) -> None:
    """Put a random text encoder and a tokenizer of the records' captions into a model folder without a text encoder."""
    if has_network(folder, "text_encoder"):
        return
    words = write_tokenizer(folder / "tokenizer", captions(records, "train"), model.text)
    print(
        f"{folder} has no text encoder: starting a random one, which is not trained, and a tokenizer of the {words} "
        "words of the captions"
    )
    save_network(folder, "text_encoder", Networks(model).text_encoder.init(jax.random.key(seed)))
