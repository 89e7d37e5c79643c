"""SAM 2's image model (Ravi et al. 2024) as the segmenter of Algorithm 2, from transformers' `Sam2Model`.

Prompts, candidate masks and their predicted IoU are like SAM's. The image encoder differs, and the decoder also reads
features of two higher resolutions.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from partition.config import PartitionConfig, Precision
from partition.segmenters.sam import SamSegmenter

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of SAM 2's training pixels, in [0, 1]."""


class Sam2Segmenter(SamSegmenter):
    """Algorithm 2 with SAM 2's scores."""

    def __init__(self, model: Any, config: PartitionConfig, precision: Precision | None = None):
        """`precision` is as in `SamSegmenter`. Raises ValueError if `config` selects a mask that SAM 2 lacks."""
        if config.mask == "single":
            raise ValueError("--mask single: SAM 2 gives three candidate masks; choose mean, best or smallest")
        super().__init__(model, config, precision)

    @torch.inference_mode()
    def embed(self, images: UInt8[np.ndarray, "B H W 3"]) -> list[list[Tensor]]:
        """Return SAM 2's features of each square image, at three resolutions, finest first."""
        pixels = torch.tensor(images, device=self.model.device).permute(0, 3, 1, 2).float() / 255
        side = self.model.prompt_encoder.input_image_size
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (_MEAN, _STD))
        with self._mixed_precision():
            levels = self.model.get_image_embeddings((pixels - mean) / std)
        return [list(features) for features in zip(*(level.float().split(1) for level in levels), strict=True)]

    def decode(
        self, embedding: list[Tensor], points: Float[Tensor, "N 2"]
    ) -> Iterator[tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3"]]]:
        """Decode as `SamSegmenter.decode` does, but only the three candidates."""
        side = self.model.prompt_encoder.input_image_size
        # The prompt encoder counts in pixels and itself adds the half to their centres.
        pixels = points.to(embedding[-1]) * side - 0.5
        for some in pixels.split(self.points_at_once):
            found = self.model(image_embeddings=embedding, input_points=some[None, :, None])
            yield found.pred_masks[0], found.iou_scores[0]


def load_sam2(folder: Path) -> Any:
    """Read a `Sam2Model` from a folder that transformers wrote, also if it was published with its video tracker.

    Raises ValueError naming the folder if it is not a SAM 2, or tensors are missing or misshapen.
    """
    from transformers import Sam2Model

    config = folder / "config.json"
    try:
        kind = json.loads(config.read_bytes()).get("model_type")
        if kind not in ("sam2", "sam2_video"):
            raise ValueError(f"expected a model of SAM 2, got {kind}")
        loaded: Any = Sam2Model.from_pretrained(folder, output_loading_info=True)
        model, report = loaded
        if missing := sorted(report["missing_keys"]):
            raise ValueError(f"missing: {', '.join(missing)}")
    except (OSError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder}: not a SAM 2 as transformers writes it: {' '.join(str(error).split())}") from error
    return model.eval()
