"""The networks of a model, each a pure function of its parameters."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import jax.numpy as jnp
from jax.typing import DTypeLike

from elements_jax.config import ModelConfig
from elements_jax.models.content_encoder import ContentEncoder
from elements_jax.models.functional import Functional
from elements_jax.models.light_decoder import TransformerDecoder
from elements_jax.models.text_encoder import CLIPTextEncoder
from elements_jax.models.unet import FlaxUNet
from elements_jax.models.vae import AutoencoderKL

T = TypeVar("T")


def _once(make: Callable[[Any], T]) -> T:
    """Return a property that is cached for all equal objects: tracing a network's structure takes seconds."""
    return property(lru_cache(maxsize=16)(make))  # type: ignore[return-value]


@dataclass(frozen=True)
class Networks:
    """The networks of a configuration, each built on first use."""

    config: ModelConfig

    @property
    def _dtype(self) -> DTypeLike:
        return jnp.dtype(self.config.dtype)

    @_once
    def encoder(self) -> Functional[ContentEncoder]:
        """Content encoder E (Section 3.2)."""
        c = self.config
        return Functional(lambda rngs: ContentEncoder(c.encoder, c.elements, self._dtype, rngs=rngs))

    @_once
    def decoder(self) -> Functional[TransformerDecoder]:
        """Lightweight decoder of stage 1 (Section 3.2)."""
        c = self.config
        return Functional(lambda rngs: TransformerDecoder(c.decoder, c.elements, self._dtype, rngs=rngs))

    @_once
    def vae(self) -> Functional[AutoencoderKL]:
        """Image <-> latent (Section 3.3)."""
        return Functional(lambda rngs: AutoencoderKL(self.config.vae, self._dtype, rngs=rngs))

    @_once
    def text_encoder(self) -> Functional[CLIPTextEncoder]:
        """Prompt -> C (Section 3.3)."""
        return Functional(lambda rngs: CLIPTextEncoder(self.config.text, self._dtype, rngs=rngs))

    @_once
    def unet(self) -> Functional[FlaxUNet]:
        """Diffusion decoder (Section 3.3, Algorithm 1)."""
        c = self.config
        channels = c.vae.latent_channels, c.text.hidden_size, c.elements.token_channels
        return Functional(lambda rngs: FlaxUNet(c.unet, *channels, self._dtype, rngs=rngs))
