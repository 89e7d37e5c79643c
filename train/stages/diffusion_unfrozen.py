"""Stage 2 that also trains the content encoder: two variants of Table 1 (Section 4.4)."""

from pathlib import Path

import jax
from jaxtyping import Array, Float, Int, Key

from elements_jax.checkpoints.model_folder import load_networks, load_present, remove_network, save_networks
from elements_jax.config import ModelConfig
from elements_jax.typing import Tree
from train.config import DiffusionTrainConfig
from train.stage import Batch, Metrics
from train.stages.diffusion import DiffusionStage


def require_no_draft(model: ModelConfig) -> None:
    """Raise ValueError for a model whose diffusion decoder starts from the light decoder's image."""
    if model.diffusion.has_draft:
        raise ValueError("a draft needs the encoder with which the light decoder was trained: train.encoder=frozen")


class UnfrozenStage(DiffusionStage):
    """The diffusion loss also trains the content encoder: stage 1's, or a new one without a stage 1.

    Its parameters are {"unet", "encoder"}. The exported model folder has no light decoder, since that reads only the
    codes of the encoder with which it was trained.
    """

    @property
    def frozen_networks(self) -> tuple[str, ...]:
        return ("vae", "text_encoder")

    def __init__(self, model: ModelConfig, train: DiffusionTrainConfig, folder: Path):
        """Raise ValueError in the folder where stage 1 was trained, since its encoder would be overwritten."""
        if (folder / "runs" / "autoencoder" / "checkpoints").exists():
            raise ValueError(
                f"{folder} is where stage 1 was trained, and encoder={train.encoder!r} would overwrite its encoder: "
                f"choose another --model, and --init {folder}"
            )
        require_no_draft(model)
        super().__init__(model, train, folder)

    def pretrained(self) -> Tree:
        found = load_present(self.folder, self.networks, "unet")
        if self.train.encoder == "unfrozen":
            found |= load_networks(self.folder, self.networks, ["encoder"])
        return found

    def shapes(self) -> Tree:
        return {"unet": super().shapes(), "encoder": self.networks.encoder.shapes()}

    def init(self, key: Key[Array, ""], pretrained: Tree) -> Tree:
        unet_key, encoder_key = jax.random.split(key)
        return {
            "unet": super().init(unet_key, pretrained.get("unet", {})),
            "encoder": self.networks.encoder.init_missing(pretrained.get("encoder", {}), encoder_key),
        }

    def cast(self, params: Tree) -> Tree:
        return {"unet": super().cast(params["unet"]), "encoder": self.networks.encoder.cast(params["encoder"])}

    def loss(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], step: Int[Array, ""]
    ) -> tuple[Float[Array, ""], Metrics]:
        return super().loss(params["unet"], frozen | {"encoder": params["encoder"]}, batch, keys, step)

    def pictures(
        self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"]
    ) -> dict[str, Float[Array, "B H W 3"]]:
        return super().pictures(params["unet"], frozen | {"encoder": params["encoder"]}, batch, keys)

    def export(self, params: Tree, frozen: Tree, batch: Batch, keys: Key[Array, " B"], made_by: str) -> None:
        remove_network(self.folder, "decoder")
        save_networks(self.folder, params, made_by)
