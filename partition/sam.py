"""Segment Anything as the segmenter of Algorithm 2, and as the source of object masks (Sections 3.1, 3.3).

Official checkpoints of SAM (Kirillov et al. 2023: vit_b, vit_l, vit_h) and of MobileSAM (Zhang et al. 2023) are read as
they are published.
"""

import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from segment_anything import SamAutomaticMaskGenerator, sam_model_registry
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor
from torch.nn import functional as F

from partition.algorithm import assign_elements
from partition.config import PartitionConfig
from partition.tiny_vit import TinyViT

Kind = Literal["vit_b", "vit_l", "vit_h", "mobile-sam"]

_VIT_WIDTHS: dict[int, Kind] = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_CLASSIFIER = ("image_encoder.norm_head.", "image_encoder.head.")
"""TinyViT's classifier, which MobileSAM's checkpoint still carries; no mask depends on it."""


class SamSegmenter:
    """Algorithm 2 with SAM's scores. One image embedding, then one positive point per query."""

    def __init__(self, model: Sam, config: PartitionConfig):
        self.model = model
        self.config = config
        # Each prompt repeats the image's 4 MB of features. Measured on a CPU with MobileSAM and 256 prompts: in batches
        # of 2 or 4, which stay in the cache, 15 s; of 16 or more, 20 s; of 1, 24 s. A GPU wants many.
        self.batch = 4 if model.device.type == "cpu" else 64

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> Int[np.ndarray, "H W"]:
        """Each pixel's element, in [0, N)."""
        scores = partial(self.scores, self.embed(image))
        return assign_elements(scores, image.shape[:2], self.config).cpu().numpy()

    @torch.inference_mode()
    def embed(self, image: UInt8[np.ndarray, "H W 3"]) -> Float[Tensor, "1 256 64 64"]:
        """SAM's embedding of a square image, which is resized to SAM's 1024 px."""
        pixels = torch.tensor(image, dtype=torch.float32, device=self.model.device).permute(2, 0, 1)[None]
        side = self.model.image_encoder.img_size
        return self.model.image_encoder(
            self.model.preprocess(F.interpolate(pixels, (side, side), mode="bilinear", antialias=True))
        )

    @torch.inference_mode()
    def scores(
        self, embedding: Float[Tensor, "1 256 64 64"], points: Float[Tensor, "N 2"]
    ) -> Float[Tensor, "N 256 256"]:
        """The affinity s(m, n) in [0, 1] of each query point, (x, y) in unit coordinates, with every pixel."""
        model, positions = self.model, self.model.prompt_encoder.get_dense_pe()
        masks = []
        for batch in points.to(embedding).split(self.batch):
            # The prompt encoder counts in pixels and adds the half to their centres itself.
            coordinates = batch[:, None] * model.image_encoder.img_size - 0.5
            positive = torch.ones(coordinates.shape[:2], device=embedding.device)
            sparse, dense = model.prompt_encoder(points=(coordinates, positive), boxes=None, masks=None)
            logits, predicted_iou = model.mask_decoder(
                image_embeddings=embedding,
                image_pe=positions,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=self.config.mask != "single",
            )
            masks.append(choose_mask(logits, predicted_iou, self.config.mask))
        return torch.cat(masks).sigmoid()

    def object_masks(self, image: UInt8[np.ndarray, "H W 3"]) -> Bool[np.ndarray, "M H W"]:
        """Objects found by SAM's automatic mask generator from grid x grid points, the largest first; may overlap."""
        generator = SamAutomaticMaskGenerator(self.model, points_per_side=self.config.grid, points_per_batch=self.batch)
        found = sorted(generator.generate(image), key=lambda mask: -mask["area"])
        return np.array([mask["segmentation"] for mask in found], bool).reshape(-1, *image.shape[:2])


def choose_mask(
    logits: Float[Tensor, "n K h w"], predicted_iou: Float[Tensor, "n K"], choice: Literal["best", "single", "smallest"]
) -> Float[Tensor, "n h w"]:
    """One of the K candidate masks of each query: the smallest that has a pixel, or else the one SAM trusts most."""
    if choice == "smallest":
        area = (logits > 0).sum((2, 3))
        index = torch.where(area > 0, area, logits[0, 0].numel() + 1).argmin(dim=1)
    else:
        index = predicted_iou.argmax(dim=1)
    return logits[torch.arange(len(logits), device=logits.device), index]


def load_sam(checkpoint: Path, kind: Kind | None = None) -> tuple[Sam, Kind]:
    """Read an official checkpoint of SAM or MobileSAM; its kind is told from its tensors unless given.

    Raises ValueError naming the file if it is none, or if tensors are missing, unexpected or misshapen: all are listed.
    """
    try:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{checkpoint}: not a PyTorch checkpoint, or damaged: {error}") from error
    if not (isinstance(weights, Mapping) and all(isinstance(value, Tensor) for value in weights.values())):
        raise ValueError(f"{checkpoint}: expected a mapping from names to tensors, as in SAM's official checkpoints")
    kind = kind or detect_kind(weights, str(checkpoint))
    model = _build_mobile_sam() if kind == "mobile-sam" else sam_model_registry[kind]()
    if kind == "mobile-sam":
        weights = {name: value for name, value in weights.items() if not name.startswith(_CLASSIFIER)}
    _check_tensors(weights, model.state_dict(), f"{checkpoint}: not a checkpoint of {kind}")
    model.load_state_dict(weights)
    return model.eval(), kind


def detect_kind(weights: Mapping[str, Tensor], where: str) -> Kind:
    """Which of the official networks a checkpoint belongs to. Raises ValueError naming `where` if none."""
    if "image_encoder.patch_embed.seq.0.c.weight" in weights:
        return "mobile-sam"
    positions = weights.get("image_encoder.pos_embed", torch.empty(0))
    if positions.shape and positions.shape[-1] in _VIT_WIDTHS:
        return _VIT_WIDTHS[positions.shape[-1]]
    raise ValueError(
        f"{where}: not an official checkpoint of {', '.join(get_args(Kind))}: there is neither MobileSAM's "
        f"image_encoder.patch_embed.seq nor SAM's image_encoder.pos_embed of {', '.join(map(str, _VIT_WIDTHS))} "
        f"channels; it starts with {', '.join(list(weights)[:5]) or 'nothing'}"
    )


def _build_mobile_sam() -> Sam:
    """SAM's prompt encoder and mask decoder, with the sizes that all SAM checkpoints share, around TinyViT."""
    channels, side = 256, TinyViT.img_size
    features = (side // 16, side // 16)
    transformer = TwoWayTransformer(depth=2, embedding_dim=channels, num_heads=8, mlp_dim=2048)
    return Sam(
        TinyViT(),
        PromptEncoder(channels, image_embedding_size=features, input_image_size=(side, side), mask_in_chans=16),
        MaskDecoder(transformer_dim=channels, transformer=transformer),
    )


def _check_tensors(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], problem: str) -> None:
    wrong = {
        "missing": sorted(expected.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - expected.keys()),
        "misshapen": [
            f"{name} {tuple(weights[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() & weights.keys())
            if weights[name].shape != expected[name].shape
        ],
    }
    if any(wrong.values()):
        lists = (f"\n  {what}: {', '.join(names)}" for what, names in wrong.items() if names)
        raise ValueError(problem + "".join(lists))
