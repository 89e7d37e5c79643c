"""The VAE's stage: Stable Diffusion's KL autoencoder, for models trained from scratch, and as a baseline.

Latent Diffusion Models sum their losses over an image. Here the losses are divided by the count of the image's numbers,
so that the gradient's size does not depend on the image's. `train.stages.vae_adversarial` adds the discriminator.
"""

import math
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from elements_jax.checkpoints.model_folder import load_present, save_networks, write_config
from elements_jax.config import ModelConfig
from elements_jax.models.functional import Params
from elements_jax.models.networks import Networks
from elements_jax.typing import Tree
from train.config import VAETrainConfig
from train.stage import Batch, Metrics, normal, psnr, to_float
from train.stages.perceptual import PerceptualLoss
from train.start import open_folder, with_scaling_factor


class Reconstructed(NamedTuple):
    """Images through the autoencoder, and its losses."""

    features: Float[Array, "B H W C"]  # before the decoder's last convolution
    image: Float[Array, "B H W 3"]
    loss: Float[Array, ""]
    metrics: Metrics


class VAEStage:
    """Reconstruction, with a light pull of the latents towards a unit Gaussian (Rombach et al. 2022, appendix G)."""

    rows = ("input", "reconstruction")
    tokenize = None
    masks = False
    cached = False

    def __init__(self, model: ModelConfig, train: VAETrainConfig, folder: Path):
        """Raise ValueError if the perceptual loss is on and its weights are not installed."""
        self.model, self.train, self.folder = open_folder(folder, model), train, folder
        self.networks = Networks(self.model)
        self.frozen: Tree = {}
        if train.perceptual_weight:
            self.perceptual, self.frozen["lpips"] = PerceptualLoss.load(
                train.perceptual_weight, train.perceptual_crop, jnp.dtype(self.model.dtype)
            )

    def pretrained(self) -> Params:
        return load_present(self.folder, self.networks, "vae").get("vae", {})

    def shapes(self) -> Tree:
        return self.networks.vae.shapes()

    def init(self, key: Key[Array, ""], pretrained: Params) -> Tree:
        return self.networks.vae.init_missing(pretrained, key)

    def cast(self, params: Tree) -> Tree:
        return self.networks.vae.cast(params)

    def loss(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], Metrics]:
        reconstructed = self.reconstruct(params, frozen, batch, keys)
        return reconstructed.loss, reconstructed.metrics

    def reconstruct(self, params: Params, frozen: Tree, batch: Batch, keys: Key[Array, " B"]) -> Reconstructed:
        """Reconstruct the batch; loss = E distance(D(z), x) + kl_weight * KL(q(z|x) || N(0, 1)) / (H W 3)."""
        image = to_float(batch["image"])
        network = self.networks.vae.module(params)
        mean, logvar = network.encode(image)
        features = network.decoder.features(network.post_quant_conv(self.latent(mean, logvar, keys)))
        made = network.decoder.conv_out(features)
        loss = self.distance(frozen, made, image, keys).mean()
        metrics = {"distance": loss, "psnr": psnr(made, image)}
        if self.train.kl_weight:
            divergence = 0.5 * (mean**2 + jnp.exp(logvar) - 1 - logvar).sum((1, 2, 3)).mean()
            loss += self.train.kl_weight * divergence / image[0].size
            metrics["kl"] = divergence
        return Reconstructed(features, made, loss, metrics)

    def distance(
        self, frozen: Tree, made: Float[Array, "B H W 3"], image: Float[Array, "B H W 3"], keys: Key[Array, " B"]
    ) -> Float[Array, " B"]:
        """Return each image's distance from its truth: mean |.| or |.|^2 of its numbers, plus perceptual_weight *
        LPIPS."""
        error = jnp.abs(made - image) if self.train.reconstruction == "l1" else (made - image) ** 2
        distance = error.mean((1, 2, 3))
        if self.train.perceptual_weight:
            distance += self.perceptual(frozen["lpips"], made, image, keys)
        return distance

    def latent(
        self, mean: Float[Array, "B h w Z"], logvar: Float[Array, "B h w Z"], keys: Key[Array, " B"]
    ) -> Float[Array, "B h w Z"]:
        """Draw z ~ q(z|x), or return the mean in a plain autoencoder."""
        return sample_posterior(mean, logvar, keys) if self.train.kl_weight else mean

    def pictures(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"]
    ) -> dict[str, Float[Array, "B H W 3"]]:
        image = to_float(batch["image"])
        network = self.networks.vae.module(params)
        mean, _ = network.encode(image)
        return {"input": image, "reconstruction": network.decode(mean)}

    def export(self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], made_by: str) -> None:
        """Export the VAE, and measure the factor that gives the latents unit variance (Rombach et al. 2022, appendix
        G)."""

        @jax.jit
        def spread(params, batch, keys):
            def latent(example):
                image, key = (array[None] for array in example)
                return self.latent(*self.networks.vae.module(params).encode(to_float(image)), key)

            # One by one: here one device has the complete batch.
            return jnp.std(jax.lax.map(latent, (batch["image"], keys)))

        if not 0 < (deviation := float(spread(params, batch, keys))) < math.inf:
            raise ValueError(f"{self.folder}: the latents' standard deviation is {deviation}: the VAE is not saved")
        factor = 1 / deviation
        save_networks(self.folder, {"vae": params}, made_by, factor)
        write_config(self.folder, with_scaling_factor(self.model, factor))


def sample_posterior(
    mean: Float[Array, "B h w Z"], logvar: Float[Array, "B h w Z"], keys: Key[Array, " B"]
) -> Float[Array, "B h w Z"]:
    """Draw z ~ q(z|x) = N(mean, exp(logvar))."""
    return mean + jnp.exp(0.5 * logvar) * normal(keys, mean.shape[1:])
