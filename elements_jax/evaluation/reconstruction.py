"""Held-out records, as a model gives them back: by stage 2, by stage 1's light decoder, or by the VAE alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from elements_jax.checkpoints.model_folder import load_networks, local_model, read_config
from elements_jax.config import ModelConfig
from elements_jax.data.record import Record
from elements_jax.data.tfrecord import TFRecordSource, find_shards
from elements_jax.editing.script import Sampling
from elements_jax.evaluation.judge import Arrays, Samples
from elements_jax.models.functional import Params
from elements_jax.models.networks import Networks
from elements_jax.parallel.sharding import replicated, shard_over_batch
from elements_jax.pipeline.pipeline import ElementsPipeline, checksum, encode_image, require_fit, to_uint8
from elements_jax.pipeline.session import decode_arguments

Decoder = Literal["diffusion", "light", "vae"]
HELD_OUT = "val"


@dataclass(frozen=True)
class Reconstructor:
    """A model that gives pictures back."""

    config: ModelConfig
    checksum: str
    """Of the networks that take part."""
    settings: Mapping[str, Any]
    """Of the sampler, if there is one."""
    run: Callable[[Sequence[Record], Sequence[int]], UInt8[np.ndarray, "B H W 3"]]
    """From records, and the seed of each; the mesh's devices must divide their number."""


def open_reconstructor(model: str, decoder: Decoder, sampling: Sampling, mesh: Mesh) -> Reconstructor:
    """Read of a model what a decoder needs. Raises as `ElementsPipeline.from_pretrained`."""
    if decoder == "diffusion":
        return _by_diffusion(ElementsPipeline.from_pretrained(model, mesh=mesh), sampling)
    folder = local_model(model)
    config = read_config(folder)
    networks = Networks(config)
    if decoder == "light":
        params = load_networks(folder, networks, ["encoder", "decoder"])
        return _directly(config, params, lambda *elements: _light(networks, *elements), mesh)
    params = load_networks(folder, networks, ["vae"])
    return _directly(config, params, lambda params, batch: _vae(networks, params, batch["image"]), mesh)


def of_records(folder: Path, split: str | None, reconstructor: Reconstructor, method: str, elements: bool) -> Samples:
    """The records of a split, the held-out one by default, and what a model makes of each.

    Args:
        elements: whether the model takes label maps, so that the records must be of its number of elements.

    A record's seed is its number in the split. Raises ValueError naming what is missing, or does not fit the model.
    """
    splits = find_shards(folder)
    split = split or (next(iter(splits)) if len(splits) == 1 else HELD_OUT)
    if split not in splits:
        raise ValueError(f"{folder}: holds no records of split {split!r}; it has {', '.join(splits) or 'none at all'}")
    source = TFRecordSource(splits[split])
    size = reconstructor.config.elements.image_size

    def record(number: int) -> Record:
        found = Record.from_example(source[number], source.where(number), lambda _: [])
        if elements:
            require_fit(found, reconstructor.config.elements)
        elif found.image.shape[:2] != (size, size):
            raise ValueError(f"{source.where(number)}: the model takes {size} x {size} px, not {found.image.shape[:2]}")
        return found

    def read(numbers: Sequence[int]) -> list[Arrays]:
        records = [record(number) for number in numbers]
        pictures = reconstructor.run(records, numbers)
        return [{"picture": p, "truth": each.image} for p, each in zip(pictures, records, strict=True)]

    names = [f"{split}-{number:06d}" for number in range(len(source))]
    return Samples(method, names, [""] * len(names), read, reconstructor.checksum)


def _by_diffusion(pipeline: ElementsPipeline, sampling: Sampling) -> Reconstructor:
    config = pipeline.config.diffusion

    def run(records: Sequence[Record], seeds: Sequence[int]) -> UInt8[np.ndarray, "B H W 3"]:
        elements = pipeline.encode_batch(*_arrays(records)).elements
        captions = [record.caption for record in records]
        return pipeline.decode_batch(elements, captions, seeds=seeds, **decode_arguments(sampling, config))

    return Reconstructor(pipeline.config, pipeline.checksum(), sampling.settings(config), run)


def _directly(config: ModelConfig, params: Mapping[str, Params], function: Callable, mesh: Mesh) -> Reconstructor:
    program = jax.jit(shard_over_batch(function, mesh))
    laid_out = jax.device_put(dict(params), replicated(mesh))

    def run(records: Sequence[Record], seeds: Sequence[int]) -> UInt8[np.ndarray, "B H W 3"]:
        image, label_map = _arrays(records)
        return to_uint8(
            program(laid_out, {"image": jnp.asarray(image) / 127.5 - 1, "label_map": jnp.asarray(label_map)})
        )

    return Reconstructor(config, checksum(config, params), {}, run)


def _light(networks: Networks, params: Mapping[str, Params], batch: Mapping[str, Array]) -> Float[Array, "B H W 3"]:
    return networks.decoder(params["decoder"], encode_image(networks, params, **batch))


def _vae(networks: Networks, params: Mapping[str, Params], image: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
    """By the mean of the posterior, of which training draws a sample."""
    vae = networks.vae.module(params["vae"])
    return vae.decode(vae.encode(image)[0])


def _arrays(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([record.image for record in records]), np.stack([record.label_map for record in records]).astype(
        np.int32
    )
