"""Stable Diffusion for the baselines: SDEdit from text only, and inpainting (Appendix A)."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from elements_jax.checkpoints.model_folder import read_model
from elements_jax.checkpoints.tokenizer import PromptTokenizer
from elements_jax.config import ModelConfig
from elements_jax.diffusion.samplers import ddim_sample, sample_timesteps
from elements_jax.diffusion.schedule import (
    PredictNoise,
    Schedule,
    add_noise,
    make_schedule,
    noise_from_velocity,
    with_guidance,
)
from elements_jax.models.functional import Params
from elements_jax.models.method import draft_latent, encode_image
from elements_jax.models.networks import Networks
from elements_jax.pipeline.pipeline import ElementsPipeline, checksum, to_uint8

GUIDANCE = 7.5
"""Stable Diffusion's usual guidance; the paper gives none for these baselines."""


class StableDiffusion:
    """A text-to-image or inpainting model; its functions are compiled once per shape and strength.

    A model with element attention, such as `tiny`, is conditioned on zero tokens, like dropped elements in training.
    Stable Diffusion itself has no element attention. A model with drafts, such as `photo`, diffuses what the light
    decoder's image of the input, in square elements, lacks, and does not see that draft.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: dict[str, Params],
        tokenizer: PromptTokenizer | None,
        *,
        guidance: float = GUIDANCE,
        steps: int | None = None,
    ):
        """Build the model; DDIM's `steps` default to the configuration's. Raises ValueError without stage 2."""
        if tokenizer is None:
            raise ValueError("the model has no diffusion decoder: stage 2 was not trained")
        networks = Networks(config)
        self.config, self._tokenizer, self._guidance = config, tokenizer, guidance
        self.steps = config.diffusion.sample_steps if steps is None else steps
        self.settings = {
            "weights": checksum(config, params),
            "guidance": guidance,
            "sampler": "ddim",
            "steps": self.steps,
        }
        """Settings that determine its images, to be written with them."""
        new = {name: spec for name, spec in networks.unet.shapes().items() if name not in params["unet"]}
        self._reads_elements = not new
        unet = {**params["unet"], **{name: jnp.zeros(spec.shape) for name, spec in new.items()}}  # not used
        drafting = ("encoder", "decoder") if config.diffusion.has_draft else ()
        self._params = {name: params[name] for name in ("vae", "text_encoder", *drafting)} | {"unet": unet}
        self._networks = networks
        self._sdedit = jax.jit(self._paint_over, static_argnames="skipped")
        self._inpaint = jax.jit(self._fill)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, guidance: float = GUIDANCE, steps: int | None = None):
        """Open a model like `model_folder.read_model`, with the same errors."""
        return cls(*read_model(source), guidance=guidance, steps=steps)

    @classmethod
    def of_pipeline(cls, pipeline: ElementsPipeline, *, steps: int | None = None) -> "StableDiffusion":
        """Use a model with elements as a text-to-image model, without elements."""
        guidance = pipeline.config.diffusion.guidance
        return cls(pipeline.config, pipeline.params, pipeline.tokenizer, guidance=guidance, steps=steps)

    @property
    def inpaints(self) -> bool:
        """Whether this is Stable Diffusion Inpainting."""
        return self.config.unet.beside_latent > 0 and not self.config.diffusion.has_draft

    def sdedit(
        self,
        image: UInt8[np.ndarray, "B H W 3"],
        prompts: Sequence[str],
        negative_prompts: Sequence[str],
        seeds: Sequence[int],
        strength: float,
    ) -> UInt8[np.ndarray, "B H W 3"]:
        """Run SDEdit (Meng et al. 2022): noise images to the timestep of a strength in (0, 1], and denoise them.

        Raises ValueError like `skipped_steps`.
        """
        skipped = skipped_steps(self.steps, strength)
        batch = self._batch(image, prompts, negative_prompts, seeds)
        return to_uint8(self._sdedit(self._params, *batch, skipped=skipped))

    def inpaint(
        self,
        image: UInt8[np.ndarray, "B H W 3"],
        mask: Bool[np.ndarray, "B H W"],
        prompts: Sequence[str],
        negative_prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> UInt8[np.ndarray, "B H W 3"]:
        """Inpaint images: follow the prompt inside the mask and agree with `image` outside it.

        Complete images are decoded, as in diffusers. Raises ValueError if the model cannot inpaint.
        """
        if not self.inpaints:
            raise ValueError("inpainting needs Stable Diffusion Inpainting, whose UNet reads a mask and a masked image")
        return to_uint8(self._inpaint(self._params, *self._batch(image, prompts, negative_prompts, seeds), mask))

    def _batch(self, image, prompts, negative_prompts, seeds):
        cell = 2 ** (len(self.config.vae.block_out_channels) - 1)
        shape = image.shape[1] // cell, image.shape[2] // cell, self.config.vae.latent_channels
        noise = jnp.stack([jax.random.normal(jax.random.key(seed), shape, jnp.float32) for seed in seeds])
        text, negative = (
            jnp.asarray(np.stack([self._tokenizer(prompt) for prompt in each])) for each in (prompts, negative_prompts)
        )
        return jnp.asarray(image), noise, text, negative, jnp.float32(self._guidance)

    def _paint_over(self, params, image, noise, text, negative, guidance, *, skipped: int):
        image = image / 127.5 - 1
        has_draft = self.config.diffusion.has_draft
        draft, error = (self._draft(params, image), self.config.diffusion.draft_error) if has_draft else (0.0, 1.0)
        hidden = jnp.zeros_like(draft) if has_draft else None
        predict, schedule = self._denoiser(params, text, negative, guidance, hidden)
        clean = (self._latent(params, image) - draft) / error
        first = sample_timesteps(schedule.alpha_bar.shape[0], self.steps)[skipped]
        start = add_noise(schedule, clean, noise, jnp.full(len(image), first))
        latent = ddim_sample(predict, schedule, start, self.steps, skipped=skipped)
        return self._picture(params, draft + error * latent)

    def _fill(self, params, image, noise, text, negative, guidance, mask):
        masked = jnp.where(mask[..., None], 0.0, image / 127.5 - 1)
        cell = image.shape[1] // noise.shape[1]
        at_latent = mask[:, ::cell, ::cell, None].astype(jnp.float32)  # the nearest pixel, like PyTorch's interpolate
        beside = jnp.concatenate([at_latent, self._latent(params, masked)], axis=-1)
        predict, schedule = self._denoiser(params, text, negative, guidance, beside)
        return self._picture(params, ddim_sample(predict, schedule, noise, self.steps))

    def _denoiser(
        self,
        params: dict[str, Params],
        text: Int[Array, "B L"],
        negative: Int[Array, "B L"],
        guidance: Float[Array, ""],
        beside: Float[Array, "B h w Zbeside"] | None = None,
    ) -> tuple[PredictNoise, Schedule]:
        """Return the guided prediction from text and from the UNet's extra input channels."""
        elements, schedule = self.config.elements, make_schedule(self.config.diffusion)
        unet = self._networks.unet.module(params["unet"])
        texts = self._networks.text_encoder(params["text_encoder"], jnp.concatenate([text, negative]))
        none = jnp.zeros((len(texts), elements.num_elements, elements.token_channels))
        context = unet.context(texts, none if self._reads_elements else None)

        def predict(latent: Float[Array, "B h w Z"], timestep: Int[Array, " B"]) -> Float[Array, "B h w Z"]:
            read = latent
            if beside is not None:
                read = jnp.concatenate([latent, jnp.concatenate([beside, beside])], axis=-1)
            predicted = unet(read, timestep, context)
            if self.config.diffusion.prediction == "v":
                return noise_from_velocity(schedule, predicted, latent, timestep)
            return predicted

        return with_guidance(predict, guidance[None]), schedule

    def _draft(self, params: dict[str, Params], image: Float[Array, "B H W 3"]) -> Float[Array, "B h w Z"]:
        """Return the latents of the light decoder's images, if every element is a cell of the grid."""
        grid, size = self.config.elements.grid, self.config.elements.image_size
        at = jnp.arange(size) * grid // size
        cells = jnp.broadcast_to(at[:, None] * grid + at, image.shape[:3])
        return draft_latent(self._networks, params, encode_image(self._networks, params, image, cells))

    def _latent(self, params: dict[str, Params], image: Float[Array, "B H W 3"]) -> Float[Array, "B h w Z"]:
        """Return the posterior's mean. Diffusers samples it, but its deviation is far below the added noise."""
        return self._networks.vae.module(params["vae"]).encode(image)[0] * self.config.vae.scaling_factor

    def _picture(self, params: dict[str, Params], latent: Float[Array, "B h w Z"]) -> Float[Array, "B H W 3"]:
        return self._networks.vae.module(params["vae"]).decode(latent / self.config.vae.scaling_factor)


def skipped_steps(steps: int, strength: float) -> int:
    """Return how many sampling steps SDEdit skips: as in diffusers, it runs the last int(strength * steps).

    Raises ValueError if no step would remain.
    """
    done = min(int(steps * strength), steps)
    if done < 1:
        raise ValueError(f"SDEdit with strength {strength} runs none of {steps} steps; use a larger one, up to 1")
    return steps - done
