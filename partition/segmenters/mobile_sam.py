"""MobileSAM's image encoder: TinyViT-5M at 1024 px, in the layout of its official checkpoint.

Architecture: Wu et al., "TinyViT: Fast Pretraining Distillation for Small Vision Transformers", ECCV 2022; as SAM's
encoder: Zhang et al., "Faster Segment Anything: Towards Lightweight SAM for Mobile Applications", 2023. A convolutional
stage, then three stages of windowed attention, then the neck of SAM's own encoder. Module names are the checkpoint's.
Features are (B, C, H, W) in convolutions and (B, H, W, C) in attention.
"""

import torch
from jaxtyping import Float
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNorm(nn.Sequential):
    """A convolution without bias, then batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        self.add_module("c", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(outputs))


class PatchEmbed(nn.Module):
    """Two stride-2 convolutions: 1024 px become 256 x 256 features."""

    def __init__(self, channels: int):
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, channels // 2, 3, 2), nn.GELU(), ConvNorm(channels // 2, channels, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)


class MBConv(nn.Module):
    """Inverted residual: widen, depthwise 3 x 3, narrow; the last activation comes after the sum."""

    def __init__(self, channels: int, expansion: int = 4):
        super().__init__()
        hidden = expansion * channels
        self.conv1 = ConvNorm(channels, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class PatchMerging(nn.Module):
    """Maps to the next stage's channels, at half the resolution (or the same, with stride 1)."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs)
        self.conv2 = ConvNorm(outputs, outputs, 3, stride, groups=outputs)
        self.conv3 = ConvNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, with a learned bias for each distance |dy|, |dx| and head.

    The published code caches the biases when it switches to inference, so it ignores weights loaded later. This code
    gathers them on every call.
    """

    distance: Tensor
    """Index of the bias of each pair of tokens: (window**2, window**2)."""

    def __init__(self, channels: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window**2))
        y, x = torch.arange(window**2) // window, torch.arange(window**2) % window
        distance = (y[:, None] - y).abs() * window + (x[:, None] - x).abs()
        self.register_buffer("distance", distance, persistent=False)

    def forward(self, x_WxTxC: Tensor) -> Tensor:
        # The checkpoint interleaves by head: a head's query, key and value, then the next head's.
        qkv = self.qkv(self.norm(x_WxTxC)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k, v = qkv.chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=self.attention_biases[:, self.distance])
        return self.proj(attended.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, channels: int, expansion: int = 4):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, expansion * channels)
        self.fc2 = nn.Linear(expansion * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class TinyViTBlock(nn.Module):
    """Windowed attention, a depthwise convolution that lets windows exchange information, an MLP."""

    def __init__(self, channels: int, heads: int, window: int):
        super().__init__()
        self.window = window
        self.attn = WindowAttention(channels, heads, window)
        self.local_conv = ConvNorm(channels, channels, 3, groups=channels)
        self.mlp = MLP(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._windowed_attention(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.local_conv(x).permute(0, 2, 3, 1)
        return (x + self.mlp(x)).permute(0, 3, 1, 2)

    def _windowed_attention(self, x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        """Attend within windows of the image, zero-padded at the right and bottom; the padding takes part, as
        published."""
        batch, height, width, channels = x.shape
        x = F.pad(x, (0, 0, 0, -width % self.window, 0, -height % self.window))
        rows, columns = x.shape[1] // self.window, x.shape[2] // self.window
        windows = x.view(batch, rows, self.window, columns, self.window, channels).transpose(2, 3)
        attended = self.attn(windows.reshape(-1, self.window**2, channels))
        x = attended.view(batch, rows, columns, self.window, self.window, channels).transpose(2, 3).reshape(x.shape)
        return x[:, :height, :width]


class Stage(nn.Module):
    """Blocks at one resolution, then the step to the next stage."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """Replaces `segment_anything`'s `ImageEncoderViT`.

    It has no `norm_head` and `head`: those of the checkpoint are the classifier of TinyViT's pretraining.
    """

    img_size = 1024
    """Side of the input in pixels; `segment_anything` reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(64)
        self.layers = nn.ModuleList(
            [
                Stage([MBConv(64) for _ in range(2)], PatchMerging(64, 128, stride=2)),  # 256 -> 128
                Stage([TinyViTBlock(128, heads=4, window=7) for _ in range(2)], PatchMerging(128, 160, stride=2)),
                # MobileSAM stays at 64 x 64 here, the size of SAM's embedding.
                Stage([TinyViTBlock(160, heads=5, window=14) for _ in range(6)], PatchMerging(160, 320, stride=1)),
                Stage([TinyViTBlock(320, heads=10, window=7) for _ in range(2)], None),
            ]
        )
        self.neck = nn.Sequential(
            nn.Conv2d(320, 256, 1, bias=False),
            LayerNorm2d(256),
            nn.Conv2d(256, 256, 3, padding=1, bias=False),
            LayerNorm2d(256),
        )

    def forward(self, image: Float[Tensor, "B 3 1024 1024"]) -> Float[Tensor, "B 256 64 64"]:
        """Return SAM's image embedding of normalised pixels."""
        x = self.patch_embed(image)
        for layer in self.layers:
            x = layer(x)
        return self.neck(x)
