"""Stage 1: content encoder and transformer decoder learn to reconstruct the image (Section 3.2, Equation 2)."""

from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from elements_jax.config import ModelConfig
from elements_jax.model_folder import load_present, save_network
from elements_jax.networks import Networks
from elements_jax.pipeline import encode_image
from train.folder import open_folder
from train.pictures import mean_colours
from train.stage import Batch, Metrics, Tree, psnr, to_float


class AutoencoderStage:
    """Mean squared error; every element is shown to the decoder, under the image's own partition (Appendix C.2)."""

    rows = ("input", "elements", "reconstruction")
    tokenize = None
    cached = False

    def __init__(self, model: ModelConfig, folder: Path):
        self.model, self.folder = open_folder(folder, model), folder
        self.networks = Networks(self.model)
        self.frozen: Tree = {}

    def pretrained(self) -> Tree:
        return load_present(self.folder, self.networks, "encoder", "decoder")

    def init(self, key: Key[Array, ""], pretrained: Tree) -> Tree:
        encoder_key, decoder_key = jax.random.split(key)
        return {
            "encoder": self.networks.encoder.complete(pretrained.get("encoder", {}), encoder_key),
            "decoder": self.networks.decoder.complete(pretrained.get("decoder", {}), decoder_key),
        }

    def cast(self, params: Tree) -> Tree:
        return {name: getattr(self.networks, name).cast(params[name]) for name in ("encoder", "decoder")}

    def reconstruct(self, params: Tree, batch: Batch) -> Float[Array, "B H W 3"]:
        """D(S): the batch's images through their elements (Equation 2)."""
        elements = encode_image(self.networks, params, to_float(batch["image"]), batch["label_map"])
        return self.networks.decoder(params["decoder"], elements)

    def loss(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], Metrics]:
        image = to_float(batch["image"])
        reconstruction = self.reconstruct(params, batch)
        return jnp.mean((reconstruction - image) ** 2), {"psnr": psnr(reconstruction, image)}

    def pictures(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"]
    ) -> dict[str, Float[Array, "B H W 3"]]:
        image = to_float(batch["image"])
        every = jnp.ones((image.shape[0], self.model.elements.num_elements), bool)
        return {
            "input": image,
            "elements": mean_colours(image, batch["label_map"], every),
            "reconstruction": self.reconstruct(params, batch),
        }

    def export(self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"]) -> None:
        for name in ("encoder", "decoder"):
            save_network(self.folder, name, params[name])
