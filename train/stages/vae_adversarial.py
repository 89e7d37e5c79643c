"""The VAE against a patch discriminator: VAE-KL-Adv of Table 2, after Latent Diffusion Models.

The two players are one state, {"vae", "discriminator"}, with one loss. Each term of the loss keeps the other player's
parameters fixed, so a single gradient moves both, each by its own loss. This differs from LDM in three ways:

- Both move at once, from the same reconstruction. In LDM the discriminator follows, with a new reconstruction by the
  updated VAE, and its own optimiser of the same settings.
- Each image has its own adaptive weight. LDM's weight is for the mean over one GPU's images, so its loss changes with
  the number of GPUs or parts of a batch.
- The discriminator's norms are over one image (`train.stages.discriminator`).
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from elements_jax.config import ModelConfig
from elements_jax.models.functional import Functional, Params
from elements_jax.typing import Tree
from train.config import VAETrainConfig
from train.stage import Batch, Metrics, to_float
from train.stages.discriminator import PatchDiscriminator, hinge
from train.stages.vae import VAEStage

Judge = Callable[[Float[Array, "B H W 3"]], Float[Array, " B"]]
"""A loss of each image by itself."""


class AdversarialVAEStage(VAEStage):
    """A VAE, and a discriminator that tells its images from real ones; only the VAE is exported."""

    def __init__(self, model: ModelConfig, train: VAETrainConfig, folder: Path):
        super().__init__(model, train, folder)
        channels, levels, dtype = train.discriminator_channels, train.discriminator_levels, jnp.dtype(model.dtype)
        self.discriminator = Functional(lambda rngs: PatchDiscriminator(channels, levels, dtype, rngs=rngs))

    def shapes(self) -> Tree:
        return {"vae": super().shapes(), "discriminator": self.discriminator.shapes()}

    def init(self, key: Key[Array, ""], pretrained: Params) -> Tree:
        vae_key, discriminator_key = jax.random.split(key)
        return {"vae": super().init(vae_key, pretrained), "discriminator": self.discriminator.init(discriminator_key)}

    def cast(self, params: Tree) -> Tree:
        return {"vae": super().cast(params["vae"]), "discriminator": self.discriminator.cast(params["discriminator"])}

    def loss(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], Metrics]:
        """Return the VAE's own loss plus, from `adversarial_start` on, its adversarial loss and the discriminator's."""
        image = to_float(batch["image"])
        made = self.reconstruct(params["vae"], frozen, batch, keys)
        held = lax.stop_gradient(params["discriminator"])

        def seen_through(picture: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
            return -self.discriminator(held, picture).mean((1, 2))

        def distance(picture: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
            return self.distance(frozen, picture, image, keys)

        weight = adaptive_weight(
            lax.stop_gradient(made.features), lax.stop_gradient(made.image), distance, seen_through
        )
        generator = (weight * seen_through(made.image)).mean()
        discriminate = self.discriminator.module(params["discriminator"])
        discriminator = hinge(discriminate(image), discriminate(lax.stop_gradient(made.image)))
        adversarial = self.train.adversarial_weight * generator + discriminator
        figures = {"adaptive_weight": weight.mean(), "generator": generator, "discriminator": discriminator}
        return made.loss + (step >= self.train.adversarial_start) * adversarial, made.metrics | figures

    def pictures(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"]
    ) -> dict[str, Float[Array, "B H W 3"]]:
        return super().pictures(params["vae"], frozen, batch, keys)

    def export(self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], made_by: str) -> None:
        super().export(params["vae"], frozen, batch, keys, made_by)


def adaptive_weight(
    features: Float[Array, "B H W C"], picture: Float[Array, "B H W 3"], distance: Judge, adversarial: Judge
) -> Float[Array, " B"]:
    """Return the ratio of gradient norms of each image's `distance` and `adversarial` loss, both at the kernel of the
    decoder's last convolution, which makes the image from the features.

    The bounds are LDM's, whose distance is the sum over the image: |grad| / (|grad adversarial| + 1e-4), at most 1e4.
    """
    numbers = picture[0].size

    def of_kernel(features: Float[Array, "H W C"], towards: Float[Array, "H W 3"]) -> Float[Array, ""]:
        def convolve(kernel):
            inputs = features[None].astype(kernel.dtype)
            return lax.conv_general_dilated(inputs, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

        kernel = jax.ShapeDtypeStruct((3, 3, features.shape[-1], 3), towards.dtype)
        (gradient,) = jax.linear_transpose(convolve, kernel)(towards[None])
        return jnp.linalg.norm(gradient)

    def norm(judge: Judge) -> Float[Array, " B"]:
        towards = jax.grad(lambda picture: judge(picture).sum())(picture)
        return jax.vmap(of_kernel)(features, towards)

    return jnp.minimum(numbers * norm(distance) / (norm(adversarial) + 1e-4), 1e4) / numbers
