"""Reconstruction of held-out records: by stage 2, by stage 1's light decoder, or only by the VAE."""

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
    """A model that reconstructs images."""

    config: ModelConfig
    checksum: str
    """Checksum of the networks that are used."""
    settings: Mapping[str, Any]
    """Settings of the sampler, if there is one."""
    run: Callable[[Sequence[Record], Sequence[int]], UInt8[np.ndarray, "B H W 3"]]
    """Reconstructs records, given a seed for each; their number must be a multiple of the devices."""


def open_reconstructor(model: str, decoder: Decoder, sampling: Sampling, mesh: Mesh) -> Reconstructor:
    """Read the parts of a model that a decoder needs. Raises the errors of `ElementsPipeline.from_pretrained`."""
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
    """Make samples of the records of a split, by default the held-out one, and their reconstructions.

    Args:
        elements: whether the model uses label maps, so that the records must have its number of elements.

    A record's seed is its index in the split. Raises ValueError that names what is missing or does not fit the model.
    """
    splits = find_shards(folder)
    split = split or (next(iter(splits)) if len(splits) == 1 else HELD_OUT)
    if split not in splits:
        raise ValueError(f"{folder}: has no split {split!r}; it has {', '.join(splits) or 'none'}")
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
    """Reconstruct from the mean of the posterior, which training samples."""
    vae = networks.vae.module(params["vae"])
    return vae.decode(vae.encode(image)[0])


def _arrays(records: Sequence[Record]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([record.image for record in records]), np.stack([record.label_map for record in records]).astype(
        np.int32
    )
