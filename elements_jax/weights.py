"""The networks of a model, and parameters on disk: safetensors files, saved whole and loaded strictly."""

import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from elements_jax.clip_text import CLIPTextEncoder
from elements_jax.config import ModelConfig
from elements_jax.decoder import TransformerDecoder
from elements_jax.encoder import ContentEncoder
from elements_jax.functional import Functional, Params
from elements_jax.unet import FlaxUNet
from elements_jax.vae import AutoencoderKL


def save_params(path: Path, params: Params) -> None:
    """Write `params` under `path`, where there is then a whole file or the one before."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        save_file({name: np.asarray(value, order="C") for name, value in params.items()}, unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load_params(path: Path, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> Params:
    """Read the parameters that `shapes` (`Functional.shapes()`) names.

    Raises FileNotFoundError, or one ValueError naming the file and every parameter that is missing, unknown, or of
    another shape or type.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of parameters")
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            problems = [f"missing: {name}" for name in sorted(shapes.keys() - names)]
            problems += [f"unknown: {name}" for name in sorted(names - shapes.keys())]
            params = {name: file.get_tensor(name) for name in shapes if name in names}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or damaged: {error}") from error
    for name, value in params.items():
        expected = shapes[name]
        if value.shape != expected.shape or value.dtype != expected.dtype:
            wanted = f"{expected.dtype}{list(expected.shape)}"
            problems.append(f"expected {wanted}, found {value.dtype}{list(value.shape)}: {name}")
    if problems:
        raise ValueError(f"{path} does not fit the model:\n  " + "\n  ".join(problems))
    return {name: jnp.asarray(value) for name, value in params.items()}


class Networks:
    """The networks of a model, each a pure function of its parameters, built when first asked for.

    A model folder holds the parameters of each under its attribute's name: `encoder.safetensors` and so on.
    """

    def __init__(self, config: ModelConfig):
        self.config = config
        self._dtype = jnp.dtype(config.dtype)

    @cached_property
    def encoder(self) -> Functional[ContentEncoder]:
        """Content encoder E (Section 3.2)."""
        c = self.config
        return Functional(lambda rngs: ContentEncoder(c.encoder, c.elements, self._dtype, rngs=rngs))

    @cached_property
    def decoder(self) -> Functional[TransformerDecoder]:
        """Lightweight decoder of stage 1 (Section 3.2)."""
        c = self.config
        return Functional(lambda rngs: TransformerDecoder(c.decoder, c.elements, self._dtype, rngs=rngs))

    @cached_property
    def vae(self) -> Functional[AutoencoderKL]:
        """Image <-> latent (Section 3.3)."""
        return Functional(lambda rngs: AutoencoderKL(self.config.vae, self._dtype, rngs=rngs))

    @cached_property
    def text_encoder(self) -> Functional[CLIPTextEncoder]:
        """Prompt -> C (Section 3.3)."""
        return Functional(lambda rngs: CLIPTextEncoder(self.config.text, self._dtype, rngs=rngs))

    @cached_property
    def unet(self) -> Functional[FlaxUNet]:
        """Diffusion decoder (Section 3.3, Algorithm 1)."""
        c = self.config
        channels = c.vae.latent_channels, c.text.hidden_size, c.elements.token_channels
        return Functional(lambda rngs: FlaxUNet(c.unet, *channels, self._dtype, rngs=rngs))


_MADE_BY = {
    "vae": "`elements train vae`",
    "encoder": "`elements train autoencoder`",
    "decoder": "`elements train autoencoder`",
    "text_encoder": "`elements train diffusion` with text_from_scratch",
    "unet": "`elements train diffusion`",
}
"""What writes the parameters of each network."""


def load_networks(folder: Path, networks: Networks, names: list[str]) -> dict[str, Params]:
    """Parameters of the named networks. Raises one FileNotFoundError that lists what is missing and what makes it."""
    paths = {name: folder / f"{name}.safetensors" for name in names}
    if missing := [f"{path.name} (made by {_MADE_BY[name]})" for name, path in paths.items() if not path.is_file()]:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}")
    return {name: load_params(path, getattr(networks, name).shapes()) for name, path in paths.items()}
