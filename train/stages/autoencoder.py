"""Stage 1: content encoder and transformer decoder learn to reconstruct the image (Section 3.2, Equation 2)."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from elements_jax.checkpoints.model_folder import load_present, save_networks
from elements_jax.config import ModelConfig
from elements_jax.elements import ImageElements
from elements_jax.models.light_decoder import look_nearby
from elements_jax.models.method import encode_image
from elements_jax.models.networks import Networks
from elements_jax.typing import Tree
from train.config import AutoencoderTrainConfig
from train.sample_grid import mean_colours
from train.stage import Batch, Metrics, psnr, to_float
from train.stages.conditioning import dropped_elements, touched_elements
from train.stages.perceptual import PerceptualLoss
from train.start import open_folder


class AutoencoderStage:
    """Mean squared error under the image's own partition (Appendix C.2). The configuration can add LPIPS, and element
    dropout as in stage 2, so that the decoder learns to fill holes."""

    tokenize = None
    cached = False

    def __init__(self, model: ModelConfig, train: AutoencoderTrainConfig, folder: Path):
        """Raise ValueError if the perceptual loss is on and its weights are not installed."""
        self.model, self.train, self.folder = open_folder(folder, model), train, folder
        self.networks = Networks(self.model)
        self.frozen: Tree = {}
        if train.perceptual_weight:
            self.perceptual, self.frozen["lpips"] = PerceptualLoss.load(
                train.perceptual_weight, train.perceptual_crop, jnp.dtype(self.model.dtype)
            )

    @property
    def masks(self) -> bool:
        return self.train.element_dropout > 0

    @property
    def rows(self) -> tuple[str, ...]:
        shown = ("input", "elements", "reconstruction")
        return (*shown, "elements left", "filled in") if self.train.element_dropout else shown

    def pretrained(self) -> Tree:
        return load_present(self.folder, self.networks, "encoder", "decoder")

    def shapes(self) -> Tree:
        return {name: getattr(self.networks, name).shapes() for name in ("encoder", "decoder")}

    def init(self, key: Key[Array, ""], pretrained: Tree) -> Tree:
        encoder_key, decoder_key = jax.random.split(key)
        decoder = pretrained.get("decoder") or look_nearby(
            self.networks.decoder.init(decoder_key), self.model.decoder, self.model.elements, self.train.seed
        )
        return {
            "encoder": self.networks.encoder.init_missing(pretrained.get("encoder", {}), encoder_key),
            "decoder": decoder,
        }

    def cast(self, params: Tree) -> Tree:
        return {name: getattr(self.networks, name).cast(params[name]) for name in ("encoder", "decoder")}

    def encode(self, params: Tree, batch: Batch) -> ImageElements:
        """Return S, the elements of the batch's images under their own partition."""
        return encode_image(self.networks, params, to_float(batch["image"]), batch["label_map"])

    def loss(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], Metrics]:
        """Compute Equation 2: E |D(S) - x|^2."""
        image, elements, metrics = to_float(batch["image"]), self.encode(params, batch), {}
        if self.train.element_dropout:
            dropped = dropped_elements(
                batch["label_map"],
                batch["other_object_mask"],
                keys,
                probability=self.train.element_dropout,
                num_elements=self.model.elements.num_elements,
            )
            elements = dataclasses.replace(elements, valid=elements.valid & ~dropped)
            metrics["dropped_elements"] = dropped.mean()
        made = self.networks.decoder(params["decoder"], elements)
        loss = jnp.mean((made - image) ** 2)
        if self.train.perceptual_weight:
            loss += self.perceptual(frozen["lpips"], made, image, keys).mean()
        return loss, metrics | {"psnr": psnr(made, image)}

    def pictures(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"]
    ) -> dict[str, Float[Array, "B H W 3"]]:
        """Reconstruct the images from all elements and, if training drops some, from those outside a mask."""
        image, label_map, elements = to_float(batch["image"]), batch["label_map"], self.encode(params, batch)
        every = jnp.ones_like(elements.valid)
        pictures = {
            "input": image,
            "elements": mean_colours(image, label_map, every),
            "reconstruction": self.networks.decoder(params["decoder"], elements),
        }
        if self.train.element_dropout:
            kept = ~touched_elements(label_map, batch["other_object_mask"], self.model.elements.num_elements)
            left = dataclasses.replace(elements, valid=elements.valid & kept)
            pictures["elements left"] = mean_colours(image, label_map, kept)
            pictures["filled in"] = self.networks.decoder(params["decoder"], left)
        return pictures

    def export(self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], made_by: str) -> None:
        save_networks(self.folder, params, made_by)
