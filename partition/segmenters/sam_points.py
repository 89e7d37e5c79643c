"""SAM's mask decoder (Kirillov et al. 2023) for many points of one image: the same numbers, faster.

Every point is its own prompt, and SAM decodes it with seven tokens that exchange information with the image's 4096
features, twice. Three exact changes make it fast:

- Until the image has read the first point, its features are the same for all points: they are projected once.
- A token side projection is moved across the product with the image: softmax(q (f W)^T) = softmax((q W^T) f^T). So the
7 x 8 rows of a point, one per token and head, meet the 256 channels of the features directly, and the features, which
are 73 times as many, are never projected.
- Both transposed convolutions of the upscaling have stride 2 and kernel 2, so each feature separately becomes 4, then
16 pixels: they are matrix products on channels-last features, and only the finished mask is reordered.

Shapes: n points, T = 7 tokens of a point, P = 64 x 64 features, C = 256 channels, h = 8 heads of c = 16 channels,
K = 4 masks.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from segment_anything.modeling import Sam
from segment_anything.modeling.transformer import Attention
from torch import Tensor
from torch.nn import functional as F


def decode_points(
    model: Sam, embedding: Float[Tensor, "1 256 64 64"], points: Float[Tensor, "N 2"], chunk: int
) -> Iterator[tuple[Float[Tensor, "n 4 256 256"], Float[Tensor, "n 4"]]]:
    """Yield logits of the masks of every point and SAM's prediction of their IoU, `chunk` points at a time.

    The first mask is SAM's single one, the other three its candidates for an ambiguous point.

    Args:
        embedding: the image encoder's output.
        points: (x, y) in unit coordinates.
        chunk: points whose features are in memory at once: about 25 MB each in float32.
    """
    decoder, transformer = model.mask_decoder, model.mask_decoder.transformer
    first, second = transformer.layers
    # The prompt encoder counts in pixels and itself adds the half to their centres.
    pixels = points.to(embedding)[:, None] * model.image_encoder.img_size - 0.5
    positive = torch.ones(pixels.shape[:2], device=embedding.device)
    prompts_nxTxC, dense = model.prompt_encoder((pixels, positive), boxes=None, masks=None)
    learned = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    names_nxTxC = torch.cat([learned.expand(len(points), -1, -1), prompts_nxTxC], dim=1)  # the tokens' own embeddings
    places_PxC = model.prompt_encoder.get_dense_pe().flatten(2)[0].T
    image_PxC = (embedding + dense[:1]).flatten(2)[0].T.contiguous()
    placed_PxC = image_PxC + places_PxC

    tokens = first.norm1(first.self_attn(names_nxTxC, names_nxTxC, names_nxTxC))
    queries = (tokens + names_nxTxC).flatten(0, 1)[None]  # for this image all points are one long prompt
    read = first.cross_attn_token_to_image(queries, placed_PxC[None], image_PxC[None])
    tokens = first.norm2(tokens + read.view_as(tokens))
    tokens = first.norm3(tokens + first.mlp(tokens))

    for names, t in zip(names_nxTxC.split(chunk), tokens.split(chunk), strict=True):
        image, placed = (x.expand(len(t), -1, -1) for x in (image_PxC, placed_PxC))
        image = first.norm4(image_reads_tokens(first.cross_attn_image_to_token, image, placed, t + names, t))
        placed = image + places_PxC
        t = second.norm1(t + second.self_attn(t + names, t + names, t))
        t = second.norm2(t + tokens_read_image(second.cross_attn_token_to_image, t + names, placed, image))
        t = second.norm3(t + second.mlp(t))
        image = second.norm4(image_reads_tokens(second.cross_attn_image_to_token, image, placed, t + names, t))
        placed = image + places_PxC
        t = t + tokens_read_image(transformer.final_attn_token_to_image, t + names, placed, image)
        t = transformer.norm_final_attn(t)
        heads = enumerate(decoder.output_hypernetworks_mlps, start=1)
        weights_nxKxc = torch.stack([head(t[:, k]) for k, head in heads], dim=1)
        yield _upscale(decoder.output_upscaling, image, weights_nxKxc), decoder.iou_prediction_head(t[:, 0])


def tokens_read_image(
    attention: Attention,
    queries: Float[Tensor, "n T C"],
    keys: Float[Tensor, "n P C"],
    values: Float[Tensor, "n P C"],
) -> Float[Tensor, "n T C"]:
    """Compute `attention(queries, keys, values)` without projecting keys and values."""
    heads = attention.num_heads
    q_nxTxhxc = attention.q_proj(queries).unflatten(-1, (heads, -1))
    key_hxcxC, value_hxcxC = (layer.weight.unflatten(0, (heads, -1)) for layer in (attention.k_proj, attention.v_proj))
    scale = q_nxTxhxc.shape[-1] ** -0.5
    rows = torch.einsum("nthc,hcd->nhtd", q_nxTxhxc * scale, key_hxcxC).flatten(1, 2)
    # The keys' bias adds the same to all scores of a row, so the softmax does not change.
    weights = (rows @ keys.mT).softmax(dim=-1)
    read_nxhxTxC = (weights @ values).unflatten(1, (heads, -1))
    out = torch.einsum("nhtd,hcd->nthc", read_nxhxTxC, value_hxcxC).flatten(2) + attention.v_proj.bias
    return attention.out_proj(out)


def image_reads_tokens(
    attention: Attention,
    image: Float[Tensor, "n P C"],
    queries: Float[Tensor, "n P C"],
    keys: Float[Tensor, "n T C"],
    values: Float[Tensor, "n T C"],
) -> Float[Tensor, "n P C"]:
    """Compute `image + attention(queries, keys, values)` without projecting queries or outputs."""
    heads = attention.num_heads
    k_nxTxhxc, v_nxTxhxc = (
        layer(x).unflatten(-1, (heads, -1)) for layer, x in ((attention.k_proj, keys), (attention.v_proj, values))
    )
    k_nxTxhxc = k_nxTxhxc * k_nxTxhxc.shape[-1] ** -0.5
    query_hxcxC = attention.q_proj.weight.unflatten(0, (heads, -1))
    columns = torch.einsum("nthc,hcd->ndth", k_nxTxhxc, query_hxcxC).flatten(2)
    bias = torch.einsum("nthc,hc->nth", k_nxTxhxc, attention.q_proj.bias.unflatten(0, (heads, -1))).flatten(1)
    scores = torch.baddbmm(bias[:, None], queries, columns).unflatten(-1, (-1, heads))
    out_Cxhxc = attention.out_proj.weight.unflatten(1, (heads, -1))
    # The weights of each head sum to 1, so the output's bias can be divided among the heads.
    rows = torch.einsum("nthc,dhc->nthd", v_nxTxhxc, out_Cxhxc).flatten(1, 2) + attention.out_proj.bias / heads
    return torch.baddbmm(image, scores.softmax(dim=-2).flatten(2), rows)


def _upscale(layers: Any, image: Float[Tensor, "n P C"], weights: Float[Tensor, "n K c"]) -> Float[Tensor, "n K H W"]:
    """Compute the decoder's upscaling and the product with the weights of each mask."""
    double, norm, activation, again, _ = layers
    side = round(image.shape[1] ** 0.5)

    def each_becomes_four(x: Tensor, conv: Any) -> Tensor:
        """Map (..., C) to (..., 4, c)."""
        return F.linear(x, conv.weight.permute(2, 3, 1, 0).flatten(0, 2), conv.bias.repeat(4)).unflatten(-1, (4, -1))

    x = each_becomes_four(image, double)
    x = activation(F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps))
    x = activation(each_becomes_four(x, again)).flatten(1, 3)
    masks = (weights @ x.mT).view(*weights.shape[:2], side, side, 2, 2, 2, 2)
    return masks.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(*weights.shape[:2], 4 * side, 4 * side)
