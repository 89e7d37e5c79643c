"""The networks of a model, each a pure function of its parameters."""

from functools import cached_property

import jax.numpy as jnp

from elements_jax.clip_text import CLIPTextEncoder
from elements_jax.config import ModelConfig
from elements_jax.decoder import TransformerDecoder
from elements_jax.encoder import ContentEncoder
from elements_jax.functional import Functional
from elements_jax.unet import FlaxUNet
from elements_jax.vae import AutoencoderKL


class Networks:
    """The networks that a configuration describes, each built when first asked for."""

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
