"""Stage 2: the diffusion decoder learns to paint images from their elements and captions (Section 3.3, Equation 5)."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from elements_jax.checkpoints.model_folder import load_networks, load_present, save_networks
from elements_jax.checkpoints.tokenizer import PromptTokenizer
from elements_jax.config import ModelConfig
from elements_jax.diffusion.schedule import add_noise, guidance_weights, make_schedule, velocity
from elements_jax.elements import element_tokens
from elements_jax.models.method import decode_elements, draft_latent, encode_image
from elements_jax.models.networks import Networks
from elements_jax.typing import Tree
from train.config import DiffusionTrainConfig
from train.sample_grid import mean_colours
from train.stage import Batch, Metrics, Ratio, normal, to_float
from train.stages.conditioning import condition_dropout, dropped_elements, overlaid_mask, touched_elements
from train.stages.vae import sample_posterior
from train.start import open_folder

TIMESTEP_BUCKETS = 4
"""Equal parts of the timesteps, from little to much noise, whose losses are reported separately."""


class DiffusionStage:
    """Noise prediction given elements and text; VAE, text encoder and content encoder are frozen."""

    rows = ("input", "elements", "reconstruction", "elements left", "filled in")
    masks = True

    def __init__(self, model: ModelConfig, train: DiffusionTrainConfig, folder: Path):
        self.model, self.train, self.folder = open_folder(folder, model), train, folder
        self.networks = Networks(self.model)
        loaded = load_networks(folder, self.networks, self.frozen_networks)
        self.frozen: Tree = {name: getattr(self.networks, name).cast(params) for name, params in loaded.items()}
        self.tokenize = PromptTokenizer(folder / "tokenizer", self.model.text)
        self.empty_prompt = self.tokenize("")
        if self.cached:  # computed once, and an argument of the step like the weights
            empty_prompt = jnp.asarray(self.empty_prompt)[None]
            self.frozen["no_text"] = jax.jit(self.networks.text_encoder)(self.frozen["text_encoder"], empty_prompt)[0]

    @property
    def frozen_networks(self) -> tuple[str, ...]:
        """Networks that this stage reads from a model folder and does not train."""
        return ("vae", "encoder", "text_encoder") + ("decoder",) * self.model.diffusion.has_draft

    @property
    def cached(self) -> bool:
        return self.train.cached

    def pretrained(self) -> Tree:
        """Return the UNet in the model folder: Stable Diffusion's, or one that was trained before."""
        return load_present(self.folder, self.networks, "unet").get("unet", {})

    def shapes(self) -> Tree:
        return self.networks.unet.shapes()

    def init(self, key: Key[Array, ""], pretrained: Tree) -> Tree:
        return self.networks.unet.init_missing(pretrained, key)

    def cast(self, params: Tree) -> Tree:
        return self.networks.unet.cast(params)

    def loss(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], Metrics]:
        """Compute Equation 5, E |eps - eps_theta(z_t, t, C, S)|^2, with random partition, element and condition
        dropout."""
        posterior_key, time_key, noise_key, condition_key, element_key, mask_key = jax.vmap(
            lambda key: jax.random.split(key, 6), out_axes=1
        )(keys)
        image = to_float(batch["image"])
        label_map = batch["other_label_map" if self.train.random_partition else "label_map"]
        keep_text, keep_elements = condition_dropout(condition_key, self.train)
        dropped = dropped_elements(
            label_map,
            overlaid_mask(batch, keep_text, mask_key, self.train.own_mask_probability),
            element_key,
            probability=self.train.element_dropout,
            num_elements=self.model.elements.num_elements,
        )
        elements = encode_image(self.networks, frozen, image, label_map)
        elements = dataclasses.replace(elements, valid=elements.valid & ~dropped)
        text = self.text(frozen, batch, keep_text)
        tokens = element_tokens(elements, self.model.elements.frequencies) * keep_elements[:, None, None]

        schedule = make_schedule(self.model.diffusion)
        latent = sample_posterior(*self.posterior(frozen, batch), posterior_key) * self.model.vae.scaling_factor
        beside = []
        if self.model.diffusion.has_draft:
            draft = draft_latent(self.networks, frozen, elements)
            latent = (latent - draft) / self.model.diffusion.draft_error
            beside = [draft * keep_elements[:, None, None, None]]
        steps = self.model.diffusion.train_timesteps
        timestep = jax.vmap(lambda key: jax.random.randint(key, (), 0, steps, jnp.int32))(time_key)
        noise = normal(noise_key, latent.shape[1:])
        unet = self.networks.unet.module(params)
        read = jnp.concatenate([add_noise(schedule, latent, noise, timestep), *beside], axis=-1)
        predicted = unet(read, timestep, unet.context(text, tokens), remat=self.train.remat)
        target = velocity(schedule, latent, noise, timestep) if self.model.diffusion.prediction == "v" else noise
        error = jnp.mean((predicted - target) ** 2, axis=(1, 2, 3))
        return error.mean(), {"dropped_elements": dropped.mean()} | by_timestep(error, timestep, steps)

    def posterior(self, frozen: Tree, batch: Batch) -> tuple[Float[Array, "B h w Z"], Float[Array, "B h w Z"]]:
        """Return mean and log variance of the images' latents."""
        if self.cached:
            shape = (-1, self.model.latent_size, self.model.latent_size, self.model.vae.latent_channels)
            mean, logvar = (batch[name].astype(jnp.float32).reshape(shape) for name in ("latent_mean", "latent_logvar"))
            return mean, logvar
        return self.networks.vae.module(frozen["vae"]).encode(to_float(batch["image"]))

    def text(self, frozen: Tree, batch: Batch, keep: Bool[Array, " B"]) -> Float[Array, "B L C"]:
        """Return the features of the captions, or of the empty prompt where a caption is not kept."""
        if self.cached:
            no_text = frozen["no_text"]
            text = batch["text"].astype(jnp.float32).reshape(-1, *no_text.shape)
            return jnp.where(keep[:, None, None], text, no_text)
        prompt = jnp.where(keep[:, None], batch["tokens"], self.empty_prompt)
        return self.networks.text_encoder(frozen["text_encoder"], prompt)

    def pictures(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"]
    ) -> dict[str, Float[Array, "B H W 3"]]:
        """Sample from all elements of the image's own partition, and from those outside another example's mask."""
        config = self.model
        image, label_map = to_float(batch["image"]), batch["label_map"]
        dropped = touched_elements(label_map, batch["other_object_mask"], config.elements.num_elements)
        every = encode_image(self.networks, frozen, image, label_map)
        left = dataclasses.replace(every, valid=every.valid & ~dropped)
        noise = normal(keys, (config.latent_size, config.latent_size, config.vae.latent_channels))
        sampled = decode_elements(  # both as one batch
            self.networks,
            frozen | {"unet": params},
            jax.tree.map(lambda *leaves: jnp.concatenate(leaves), every, left),
            jnp.tile(batch["tokens"], (2, 1)),
            jnp.tile(self.empty_prompt, (len(noise) * 2, 1)),
            jnp.tile(noise, (2, 1, 1, 1)),
            guidance_weights(config.diffusion.guidance),
            config.diffusion.sample_steps,
        )
        reconstruction, filled_in = jnp.split(sampled, 2)
        return {
            "input": image,
            "elements": mean_colours(image, label_map, jnp.ones_like(dropped)),
            "reconstruction": reconstruction,
            "elements left": mean_colours(image, label_map, ~dropped),
            "filled in": filled_in,
        }

    def export(self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], made_by: str) -> None:
        save_networks(self.folder, {"unet": params}, made_by)


def by_timestep(error: Float[Array, " B"], timestep: Int[Array, " B"], timesteps: int) -> Metrics:
    """Return the mean error of the examples in each bucket of timesteps."""
    edges = [timesteps * bucket // TIMESTEP_BUCKETS for bucket in range(TIMESTEP_BUCKETS + 1)]
    losses: Metrics = {}
    for first, end in pairwise(edges):
        inside = (timestep >= first) & (timestep < end)
        losses[f"loss_t{first}-{end - 1}"] = Ratio(jnp.where(inside, error, 0).sum(), inside.sum().astype(jnp.float32))
    return losses
