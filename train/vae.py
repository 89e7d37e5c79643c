"""The VAE's stage: Stable Diffusion's KL autoencoder, for models that train everything from nothing."""

from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from elements_jax.config import ModelConfig
from elements_jax.functional import Params
from elements_jax.model_folder import load_present, save_network, write_config
from elements_jax.networks import Networks
from train.config import VAETrainConfig
from train.folder import open_folder, with_scaling_factor
from train.stage import Batch, Metrics, Tree, normal, psnr, to_float


class VAEStage:
    """Reconstruction (L1) and a light pull of the latents towards a unit Gaussian (Rombach et al. 2022, appendix G)."""

    rows = ("input", "reconstruction")
    tokenize = None
    cached = False

    def __init__(self, model: ModelConfig, train: VAETrainConfig, folder: Path):
        self.model, self.train, self.folder = open_folder(folder, model), train, folder
        self.networks = Networks(self.model)
        self.frozen: Tree = {}

    def pretrained(self) -> Params:
        return load_present(self.folder, self.networks, "vae").get("vae", {})

    def init(self, key: Key[Array, ""], pretrained: Params) -> Params:
        return self.networks.vae.complete(pretrained, key)

    def cast(self, params: Params) -> Params:
        return self.networks.vae.cast(params)

    def loss(
        self, params: Params, frozen: Tree, batch: Batch, keys: Key[Array, " B"]
    ) -> tuple[Float[Array, ""], Metrics]:
        """mean |x - D(z)| + kl_weight * KL(q(z|x) || N(0, 1)) / (H W 3), so that both count per image alike."""
        image = to_float(batch["image"])
        network = self.networks.vae.module(params)
        mean, logvar = network.encode(image)
        reconstruction = network.decode(sample_posterior(mean, logvar, keys))
        divergence = 0.5 * (mean**2 + jnp.exp(logvar) - 1 - logvar).sum((1, 2, 3)).mean()
        error = jnp.abs(reconstruction - image).mean()
        metrics = {"l1": error, "kl": divergence, "psnr": psnr(reconstruction, image)}
        return error + self.train.kl_weight * divergence / image[0].size, metrics

    def pictures(
        self, params: Params, frozen: Tree, batch: Batch, keys: Key[Array, " B"]
    ) -> dict[str, Float[Array, "B H W 3"]]:
        image = to_float(batch["image"])
        network = self.networks.vae.module(params)
        mean, _ = network.encode(image)
        return {"input": image, "reconstruction": network.decode(mean)}

    def export(self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"]) -> None:
        """Also measures the factor that gives the latents unit variance (Rombach et al. 2022, appendix G)."""

        @jax.jit
        def spread(params, batch, keys):
            def latent(example):
                image, key = (array[None] for array in example)
                return sample_posterior(*self.networks.vae.module(params).encode(to_float(image)), key)

            # One by one: all devices' share of the batch is on one of them here.
            return jnp.std(jax.lax.map(latent, (batch["image"], keys)))

        save_network(self.folder, "vae", params)
        factor = 1 / float(spread(params, batch, keys))
        write_config(self.folder, with_scaling_factor(self.model, factor))


def sample_posterior(
    mean: Float[Array, "B h w Z"], logvar: Float[Array, "B h w Z"], keys: Key[Array, " B"]
) -> Float[Array, "B h w Z"]:
    """A draw z ~ q(z|x) = N(mean, exp(logvar))."""
    return mean + jnp.exp(0.5 * logvar) * normal(keys, mean.shape[1:])
