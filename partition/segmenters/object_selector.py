"""SAM's mask of one object, from points that people click on it and next to it (Kirillov et al. 2023, Section 2)."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from partition.segmenters.sam import SamSegmenter

REMEMBERED = 4
"""Images whose embeddings, 4 MB each, are cached: embedding takes most of the time, and people click repeatedly."""


class ObjectSelector:
    """Finds objects with the SAM of a segmenter. May be called from several threads."""

    def __init__(self, segmenter: SamSegmenter):
        self._segmenter = segmenter
        self._embed = lru_cache(REMEMBERED)(self._embed_bytes)

    @torch.inference_mode()
    def __call__(
        self,
        image: UInt8[np.ndarray, "H W 3"],
        positive: Float[np.ndarray, "P 2"],
        negative: Float[np.ndarray, "Q 2"],
        box: Float[np.ndarray, "4"] | None = None,
    ) -> Bool[np.ndarray, "H W"]:
        """Return the mask of the object in a square image that contains all positive points and no negative one.

        Points are (x, y) in units of the image's side; there is at least one, or a box around the object (left, top,
        right, bottom). For a single point SAM returns three masks (an object, a part and a smaller part), and the one
        that SAM trusts most is used; for several points, or a box, SAM returns one mask.
        """
        model = self._segmenter.model
        points = np.concatenate([positive, negative]).astype(np.float32)
        labels = np.repeat([1, 0], [len(positive), len(negative)])
        side = model.image_encoder.img_size
        # The prompt encoder counts in pixels and itself adds the half to their centres.
        pixels = torch.tensor(points, device=model.device)[None] * side - 0.5
        boxes = None if box is None else torch.tensor(np.float32(box), device=model.device)[None] * side - 0.5
        prompts, dense = model.prompt_encoder(
            (pixels, torch.tensor(labels, device=model.device)[None]) if len(points) else None, boxes=boxes, masks=None
        )
        logits, predicted_iou = model.mask_decoder(
            image_embeddings=self._embed(image.tobytes(), image.shape),
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=prompts,
            dense_prompt_embeddings=dense,
            multimask_output=len(points) == 1 and box is None,
        )
        best = logits[:, predicted_iou[0].argmax()][:, None]
        mask = F.interpolate(best, image.shape[:2], mode="bilinear", align_corners=False)[0, 0] > 0
        return mask.cpu().numpy()

    def _embed_bytes(self, pixels: bytes, shape: tuple[int, int, int]) -> Float[Tensor, "1 256 64 64"]:
        return self._segmenter.embed(np.frombuffer(pixels, np.uint8).reshape(1, *shape))[0]
