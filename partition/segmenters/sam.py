"""Segment Anything as the segmenter of Algorithm 2, and as the source of object masks (Sections 3.1, 3.3).

It reads the official checkpoints of SAM (Kirillov et al. 2023: vit_b, vit_l, vit_h) and MobileSAM (Zhang et al. 2023).
"""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8, UInt16
from safetensors import SafetensorError
from safetensors.torch import load_file
from segment_anything import sam_model_registry
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.utils.amg import batched_mask_to_box, calculate_stability_score
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import nms

from partition.assignment import assign_elements
from partition.config import MaskChoice, PartitionConfig, Precision
from partition.masks import MaskFilter
from partition.segmenters.checkpoints import from_transformers
from partition.segmenters.mobile_sam import TinyViT
from partition.segmenters.sam_points import decode_points

Kind = Literal["vit_b", "vit_l", "vit_h", "mobile-sam"]

_VIT_WIDTHS: dict[int, Kind] = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_CLASSIFIER = ("image_encoder.norm_head.", "image_encoder.head.")
"""TinyViT's classifier, which MobileSAM's checkpoint still contains; no mask depends on it."""


class SamSegmenter:
    """Algorithm 2 with SAM's scores: one image embedding, then one positive point per query."""

    def __init__(self, model: Sam, config: PartitionConfig, precision: Precision | None = None):
        """`precision` of matrix products is by default float32 on a CPU and bfloat16 on a GPU."""
        on_cpu = model.device.type == "cpu"
        self.model = model
        self.config = config
        self.precision = getattr(torch, precision or ("float32" if on_cpu else "bfloat16"))
        # On a CPU the features of a few points, 25 MB each, fit into its cache; a GPU is faster with many at once.
        self.points_at_once = 2 if on_cpu else 64

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> Int[np.ndarray, "H W"]:
        """Return each pixel's element, in [0, N)."""
        return next(self.segment(image[None]))[0]

    def segment(
        self, images: UInt8[np.ndarray, "B H W 3"], keep: MaskFilter | None = None
    ) -> Iterator[tuple[UInt16[np.ndarray, "H W"], Bool[np.ndarray, "M H W"]]]:
        """Yield for every image each pixel's element, and the object masks that SAM finds from the same points.

        The objects are those of SAM's automatic mask generator for one crop, largest first; they may overlap. If `keep`
        is None, there are none.
        """
        size = images.shape[1:3]
        for embedding in self.embed(images):
            objects = None if keep is None else ObjectMasks(size, keep)
            assignment = assign_elements(partial(self.scores, embedding, objects=objects), size, self.config)
            masks = objects.distinct() if objects else torch.zeros((0, *size), dtype=torch.bool)
            yield assignment.cpu().numpy().astype(np.uint16), masks.cpu().numpy()

    @torch.inference_mode()
    def embed(self, images: UInt8[np.ndarray, "B H W 3"]) -> Sequence[Any]:
        """Return the embedding, (1 256 64 64), of each square image, resized to SAM's 1024 px, for `decode`."""
        pixels = torch.tensor(images, device=self.model.device).permute(0, 3, 1, 2).float()
        side = self.model.image_encoder.img_size
        pixels = self.model.preprocess(F.interpolate(pixels, (side, side), mode="bilinear", antialias=True))
        with self._mixed_precision():
            return self.model.image_encoder(pixels).float().split(1)

    @torch.inference_mode()
    def scores(
        self,
        embedding: Any,
        points: Float[Tensor, "N 2"],
        objects: "ObjectMasks | None" = None,
    ) -> Float[Tensor, "N 256 256"]:
        """Return the affinity s(m, n) in [0, 1] of each query point, (x, y) in unit coordinates, with every pixel.

        Args:
            objects: also collects SAM's masks, if given.
        """
        found = []
        with self._mixed_precision():
            for logits, predicted_iou in self.decode(embedding, points):
                logits, predicted_iou = logits.float(), predicted_iou.float()
                found.append(affinity(logits, predicted_iou, self.config.mask))
                if objects is not None:
                    objects.add(logits[:, -3:].flatten(0, 1), predicted_iou[:, -3:].flatten())
        return torch.cat(found)

    def decode(
        self, embedding: Any, points: Float[Tensor, "N 2"]
    ) -> Iterator[tuple[Float[Tensor, "n K h w"], Float[Tensor, "n K"]]]:
        """Yield logits of the masks of a few points at a time, and SAM's prediction of their IoU.

        The last three masks are the candidates for an ambiguous point; the first, if there are four, is the single one.
        """
        return decode_points(self.model, embedding, points, self.points_at_once)

    def _mixed_precision(self) -> torch.autocast:
        return torch.autocast(self.model.device.type, self.precision, enabled=self.precision != torch.float32)


class ObjectMasks:
    """Collects SAM's masks of objects, selected as in SAM's automatic mask generator."""

    def __init__(self, size: tuple[int, int], keep: MaskFilter):
        self.size = size
        self.keep = keep
        self._found: list[tuple[Tensor, Tensor]] = []

    def add(self, logits: Float[Tensor, "k h w"], predicted_iou: Float[Tensor, " k"]) -> None:
        """Add candidates: the logits of masks, and SAM's prediction of their IoU with an object."""
        trusted = predicted_iou >= self.keep.min_iou
        logits, predicted_iou = logits[trusted], predicted_iou[trusted]
        stable = calculate_stability_score(logits, 0.0, 1.0) >= self.keep.min_stability
        masks = F.interpolate(logits[stable][:, None], self.size, mode="bilinear", align_corners=False)[:, 0] > 0
        share = masks.float().mean((1, 2))
        fits = (share >= self.keep.min_area) & (share <= self.keep.max_area) & (share > 0)
        self._found.append((masks[fits], predicted_iou[stable][fits]))

    def distinct(self) -> Bool[Tensor, "M H W"]:
        """Return the masks, largest first, without those whose box nearly equals that of a mask that SAM trusts
        more."""
        masks, predicted_iou = map(torch.cat, zip(*self._found, strict=True))
        masks = masks[nms(batched_mask_to_box(masks).float(), predicted_iou, SAME_BOX)]
        return masks[masks.sum((1, 2)).argsort(descending=True, stable=True)]


SAME_BOX = 0.7
"""IoU of boxes above which two masks are one object, as in SAM's automatic mask generator."""


def affinity(
    logits: Float[Tensor, "n K h w"], predicted_iou: Float[Tensor, "n K"], choice: MaskChoice
) -> Float[Tensor, "n h w"]:
    """Return s in [0, 1] of each query from SAM's masks: the single one, then three candidates; see `MaskChoice`.

    All choices but "single" need only the candidates.
    """
    single, candidates = logits[:, 0], logits[:, -3:]
    match choice:
        case "mean":
            return candidates.sigmoid().mean(dim=1)
        case "single":
            return single.sigmoid()
        case "best":
            index = predicted_iou[:, -3:].argmax(dim=1)
        case "smallest":  # of the candidates that have a pixel
            area = (candidates > 0).sum((2, 3))
            index = torch.where(area > 0, area, single[0].numel() + 1).argmin(dim=1)
    return candidates[torch.arange(len(logits), device=logits.device), index].sigmoid()


def use_device(name: str) -> torch.device:
    """Return the device `cpu`, `cuda` or `cuda:N`. Raises ValueError if PyTorch has no such device."""
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"PyTorch finds no device {name!r} here: {error}") from error
    return torch.device(name)


def load_sam(checkpoint: Path, kind: Kind | None = None) -> tuple[Sam, Kind]:
    """Read a checkpoint of SAM or MobileSAM, in the official layout or transformers'; detect its kind unless given.

    Raises ValueError naming the file if it is not a checkpoint, or listing all missing, unexpected or misshapen
    tensors.
    """
    try:
        if checkpoint.suffix == ".safetensors":
            weights = load_file(checkpoint)
        else:
            weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"{checkpoint}: not a PyTorch checkpoint, or damaged: {error}") from error
    if not (isinstance(weights, Mapping) and all(isinstance(value, Tensor) for value in weights.values())):
        raise ValueError(f"{checkpoint}: expected a mapping from names to tensors, as in SAM's official checkpoints")
    if any(name.startswith("vision_encoder.") for name in weights):
        weights = from_transformers(weights)
    kind = kind or detect_kind(weights, str(checkpoint))
    model = build_mobile_sam() if kind == "mobile-sam" else sam_model_registry[kind]()
    if kind == "mobile-sam":
        weights = {name: value for name, value in weights.items() if not name.startswith(_CLASSIFIER)}
    _check_tensors(weights, model.state_dict(), f"{checkpoint}: not a checkpoint of {kind}")
    model.load_state_dict(weights)
    return model.eval(), kind


def detect_kind(weights: Mapping[str, Tensor], where: str) -> Kind:
    """Return the official network of a checkpoint. Raises ValueError naming `where` if there is none."""
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


def build_mobile_sam() -> Sam:
    """Build TinyViT with SAM's prompt encoder and mask decoder, which have the same sizes in all SAM checkpoints."""
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
