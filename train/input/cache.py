"""Outputs of frozen networks for stage 2, computed once and written into the records (`elements cache`).

They are the moments of the VAE's posterior, from which every epoch draws again, and the text encoder's features of the
caption: 66 KB and 118 KB for an image of Stable Diffusion. They are stored as float16: its range holds them easily,
and its significand has three bits more than bfloat16's, a relative error of 0.0002 (root mean square) and not 0.0017.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float16, Int, UInt8
from tqdm import tqdm

from elements_jax.checkpoints.model_folder import load_networks, read_config
from elements_jax.checkpoints.tokenizer import PromptTokenizer
from elements_jax.config import ModelConfig
from elements_jax.data.atomic import new_file
from elements_jax.data.lock import locked
from elements_jax.data.object_store import UNFINISHED, AnyPath, abort_uploads, is_url
from elements_jax.data.record import Example, Record, with_cached
from elements_jax.data.tfds_metadata import write_metadata
from elements_jax.data.tfrecord import DATASET, TFRecordSource, find_shards, new_tfrecord
from elements_jax.models.functional import Params
from elements_jax.models.networks import Networks
from elements_jax.parallel import sharding
from train.input.stored import Tokenize, require_fit
from train.stage import to_float

T = TypeVar("T")
Features = dict[str, Float16[Array, "B ..."]]
"""Features by the names in `elements_jax.data.record.CACHED`."""

MADE_OF = "cache.json"
"""File next to the records: fingerprints of the networks, and names and sizes of the source files."""


def cache(records: Path, out: AnyPath, folder: Path, batch_size: int) -> None:
    """Write a copy of the records of every split, with the features that the networks of a model folder compute.

    Existing shards are kept, so the same call resumes after one that was killed.

    Args:
        batch_size: images per device and batch.

    Raises ValueError if the records do not fit the model, or `out` holds other records; and as `load_networks` does.
    """
    config = read_config(folder)
    require_fit(records, "train", config.elements)
    networks, tokenize = Networks(config), PromptTokenizer(folder / "tokenizer", config.text)
    params = load_networks(folder, networks, ["vae", "text_encoder"])
    files = {path.name: path.stat().st_size for shards in find_shards(records).values() for path in shards}
    made_of = {"networks": fingerprints(folder, params), "records": files}
    with locked(out, "elements cache"):
        _write(records, out, config, networks, params, tokenize, made_of, batch_size)


def _write(
    records: Path,
    out: AnyPath,
    config: ModelConfig,
    networks: Networks,
    params: dict[str, Params],
    tokenize: PromptTokenizer,
    made_of: dict[str, Any],
    batch_size: int,
) -> None:
    """Write the missing shards."""
    _begin(out, made_of)
    mesh = sharding.make_mesh(-1, 1)
    params = jax.device_put(params, sharding.replicated(mesh))
    program = jax.jit(sharding.shard_over_batch(partial(features, networks), mesh))
    size, batch, batch_sharding = config.elements.image_size, batch_size * mesh.size, sharding.batch_sharding(mesh)

    def compute(*arrays: np.ndarray) -> Features:
        """Compute a batch; the last one of a file is padded with copies of its last record."""
        padded = tuple(
            np.pad(array, [(0, batch - len(array))] + [(0, 0)] * (array.ndim - 1), "edge") for array in arrays
        )
        return program(params, jax.device_put(padded, batch_sharding))

    there = {path.name for path in out.iterdir()}
    sources = {name: TFRecordSource([records / name]) for name in made_of["records"] if name not in there}
    total = sum(map(len, sources.values()))
    with ThreadPoolExecutor() as threads, tqdm(total=total, desc="cache", unit="image", smoothing=0.05) as bar:
        for name, source in sources.items():
            read = partial(_read, source, size, tokenize)
            with new_tfrecord(out / name) as append:
                for example in _examples(source, read, batch, compute, threads):
                    append(example)
                    bar.update()
    # What calls that were killed have left over.
    abort_uploads(out)
    for left_over in [] if is_url(out) else out.glob(f".{DATASET}-*{UNFINISHED}"):
        left_over.unlink()
    latent = (config.latent_size, config.latent_size, config.vae.latent_channels)
    text = (config.text.max_length, config.text.hidden_size)
    lengths = {
        split: {number: len(TFRecordSource([path])) for number, path in enumerate(paths)}
        for split, paths in find_shards(records).items()
    }
    write_metadata(out, {"latent_mean": latent, "latent_logvar": latent, "text": text}, lengths)


def features(
    networks: Networks, params: dict[str, Params], batch: tuple[UInt8[Array, "B H W 3"], Int[Array, "B L"]]
) -> Features:
    """Return the posterior's mean and log variance (B, h, w, Z) of images, and the features (B, L, C) of captions."""
    image, tokens = batch
    mean, logvar = networks.vae.module(params["vae"]).encode(to_float(image))
    text = networks.text_encoder(params["text_encoder"], tokens)
    return jax.tree.map(
        lambda array: array.astype(jnp.float16), {"latent_mean": mean, "latent_logvar": logvar, "text": text}
    )


def require_cached(records: Path, folder: Path) -> None:
    """Raise ValueError if the records hold no features, or features of other networks than the model folder's."""
    if (made_of := _made_of(records)) is None:
        raise ValueError(f"{records} holds no {MADE_OF}: `elements cache` writes such records")
    params = load_networks(folder, Networks(read_config(folder)), ["vae", "text_encoder"])
    if other := _differing(made_of["networks"], fingerprints(folder, params)):
        raise ValueError(f"{records} was cached with another {other} than that of {folder}: cache the records again")


def fingerprints(folder: Path, params: dict[str, Params]) -> dict[str, str]:
    """Return fingerprints of everything that determines the features, so not of the VAE's decoder."""
    encoder = {name: value for name, value in params["vae"].items() if name.startswith(("encoder.", "quant_conv."))}
    words = {path.name: np.fromfile(path, np.uint8) for path in (folder / "tokenizer").glob("*") if path.is_file()}
    parts: dict[str, Mapping[str, Any]] = {"VAE": encoder, "text encoder": params["text_encoder"], "tokenizer": words}
    return {name: _digest(part) for name, part in parts.items()}


def _digest(arrays: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    return digest.hexdigest()[:16]


def _made_of(folder: AnyPath) -> dict[str, Any] | None:
    path = folder / MADE_OF
    return json.loads(path.read_text()) if path.is_file() else None


def _differing(one: dict[str, Any], other: dict[str, Any]) -> str:
    return ", ".join(name for name in one | other if one.get(name) != other.get(name))


def _begin(out: AnyPath, made_of: dict[str, Any]) -> None:
    """Prepare `out` to start or resume this job. Raises ValueError if another job has written there."""
    if (before := _made_of(out)) is not None:
        for part, now in made_of.items():
            if other := _differing(before[part], now):
                raise ValueError(f"{out} was cached from other {part}: {other}; remove it, or choose another folder")
    elif there := sorted(out.glob(f"{DATASET}-*"), key=str):
        raise ValueError(f"{there[0]} already exists, and is not from `elements cache`; choose another folder")
    if not is_url(out):
        out.mkdir(parents=True, exist_ok=True)
    with new_file(out / MADE_OF) as file:
        file.write(json.dumps(made_of, indent=1).encode() + b"\n")


def _read(source: TFRecordSource, size: int, tokenize: Tokenize, number: int) -> tuple[bytes, np.ndarray, np.ndarray]:
    """Read a record's stored bytes, its image, and the tokens of its caption."""
    data, where = source[number], source.where(number)
    record = Record.from_example(data, where, choose_masks=lambda _: [])
    if record.image.shape[:2] != (size, size):
        raise ValueError(f"{where}: the model takes images of {size} x {size} px, got shape {record.image.shape}")
    return data, record.image, tokenize(record.caption)


def _examples(
    source: TFRecordSource,
    read: Callable[[int], tuple[bytes, np.ndarray, np.ndarray]],
    batch: int,
    compute: Callable[..., Features],
    threads: Executor,
) -> Iterator[bytes]:
    """Yield the records of a file with their features; the devices compute a batch while the next one is read."""

    def start(first: int) -> tuple[int, tuple[bytes, ...], Features]:
        stored, images, tokens = zip(*threads.map(read, range(first, min(first + batch, len(source)))), strict=True)
        return first, stored, compute(np.stack(images), np.stack(tokens))

    for first, stored, computed in _one_ahead(map(start, range(0, len(source), batch))):
        found = jax.device_get(computed)
        for number, data in enumerate(stored):
            own = {name: array[number] for name, array in found.items()}
            if odd := [name for name, array in own.items() if not np.isfinite(array).all()]:
                raise ValueError(f"{source.where(first + number)}: {', '.join(odd)} not finite in float16")
            yield with_cached(Example.FromString(data), own)


def _one_ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield the same items, each after the next one was requested."""
    waiting: list[T] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting
