"""Model configuration: frozen dataclasses, one per network. The presets `tiny` and `sd15` are instances in `configs/`.

Defaults are the paper's (Stable Diffusion 1.5 at 512 px, 256 elements); section and equation numbers refer to the
paper. Meshes, optimisers and data belong to `train.config`.
"""

import dataclasses
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from elements_jax.bounds import FieldError, require_above_zero, require_within
from elements_jax.data.atomic import new_file

DType = Literal["float32", "bfloat16"]
Remat = Literal["none", "elementwise", "blocks"]
"""What the backward pass recomputes instead of storing it (`jax.checkpoint`): nothing; the cheap operations between
convolutions and matrix products; or complete blocks."""


WIDTH = (1, 1 << 17)
DEPTH = (1, 1000)
"""Bounds of the channels and layers of networks: far above any in use, and below absurd values in damaged files."""


def _require_levels(config: Any, name: str) -> None:
    if not 1 <= len(getattr(config, name)) <= 10:
        raise FieldError(config, (name,), f"must have 1 to 10 levels, got {len(getattr(config, name))}")


def _require_divides(config: Any, name: str, whole: str) -> None:
    """Check that a number divides another, or each of several others."""
    divisor, value = getattr(config, name), getattr(config, whole)
    if any(number % divisor for number in (value if isinstance(value, tuple) else (value,))):
        raise FieldError(config, (name,), f"must divide {whole} = {value}, got {divisor}")


@dataclass(frozen=True)
class ElementsConfig:
    """The representation: how an image is segmented and what an element contains (Section 3.1)."""

    image_size: int = 512  # H = W in pixels (Section 3.1)
    grid: int = 16  # query points per side; N = grid**2 elements (Section 3.1)
    patch_size: int = 32  # P: every element's patch is resized to P x P (Appendix C.1)
    content_channels: int = 32  # D: numbers in an appearance code (Appendix C.1)
    frequencies: int = 10  # octaves of the positional embedding [settled]

    def __post_init__(self) -> None:
        require_within(self, image_size=(1, 16384), patch_size=(1, 1024), content_channels=WIDTH, frequencies=(0, 64))
        require_within(self, grid=(1, min(self.image_size, 255)))  # a label is below 65535

    @property
    def num_elements(self) -> int:
        return self.grid**2

    @property
    def token_channels(self) -> int:
        """Width of an element token: content, then sine and cosine of each of (x, y, w, h) at each frequency."""
        return self.content_channels + 4 * 2 * self.frequencies


@dataclass(frozen=True)
class EncoderConfig:
    """Content encoder: SD's convolutional encoder with fewer residual blocks (Section 3.2, Appendix C.1)."""

    base_channels: int = 128  # as SD's VAE [settled]
    multipliers: tuple[int, ...] = (1, 2, 4, 4)  # channels per level over base; one stride-2 convolution per level
    norm_groups: int = 32  # as SD's VAE

    def __post_init__(self) -> None:
        require_within(self, base_channels=WIDTH, multipliers=(1, 1024), norm_groups=WIDTH)
        _require_levels(self, "multipliers")
        _require_divides(self, "norm_groups", "base_channels")


@dataclass(frozen=True)
class DecoderConfig:
    """Lightweight transformer decoder of stage 1 (Section 3.2, Appendix C.1)."""

    blocks: int = 4  # each one cross-attention, then two self-attention layers (Appendix C.1)
    channels: int = 512  # Appendix C.1
    self_heads: int = 16  # Appendix C.1
    cross_heads: int = 1  # Appendix C.1
    mlp_ratio: int = 4  # as MAE's decoder [settled]
    query_grid: int = 32  # queries per side (Appendix C.1)
    nearest: int = 0  # elements that each query sees with its place in them, before the first block; none in the paper

    def __post_init__(self) -> None:
        require_within(self, blocks=DEPTH, channels=WIDTH, mlp_ratio=(1, 1024), query_grid=(1, 4096))
        require_within(self, nearest=(0, 64))
        require_within(self, self_heads=(1, self.channels), cross_heads=(1, self.channels))
        for heads in ("self_heads", "cross_heads"):
            _require_divides(self, heads, "channels")


@dataclass(frozen=True)
class VAEConfig:
    """Stable Diffusion's KL autoencoder; the names follow diffusers' `AutoencoderKL`."""

    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    latent_channels: int = 4
    norm_groups: int = 32
    scaling_factor: float = 0.18215  # latents are multiplied by it before diffusion
    middle_attention: bool = True  # without it the network is convolutional: its cost grows with the image's area

    def __post_init__(self) -> None:
        require_within(self, block_out_channels=WIDTH, layers_per_block=DEPTH, latent_channels=WIDTH, norm_groups=WIDTH)
        require_above_zero(self, "scaling_factor")
        _require_levels(self, "block_out_channels")
        _require_divides(self, "norm_groups", "block_out_channels")


@dataclass(frozen=True)
class TextConfig:
    """CLIP's text transformer (ViT-L/14); the names follow transformers' `CLIPTextConfig`."""

    vocab_size: int = 49408
    max_length: int = 77  # L: tokens of a prompt, padded
    hidden_size: int = 768
    intermediate_size: int = 3072
    layers: int = 12
    heads: int = 12

    def __post_init__(self) -> None:
        require_within(self, vocab_size=(1, 1 << 24), max_length=(1, 1 << 16), hidden_size=WIDTH, layers=DEPTH)
        require_within(self, intermediate_size=WIDTH, heads=(1, self.hidden_size))
        _require_divides(self, "heads", "hidden_size")


@dataclass(frozen=True)
class UNetConfig:
    """Stable Diffusion's UNet with element cross-attention (Section 3.3, Algorithm 1)."""

    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention_levels: tuple[bool, ...] = (True, True, True, False)  # levels that hold transformer blocks
    layers_per_block: int = 2
    heads: int = 8  # diffusers' `attention_head_dim=8` means eight heads in SD 1.5
    norm_groups: int = 32
    position_frequencies: int = 0  # octaves of the pixel coordinates concatenated with the latent; SD has none
    zero_init_elements: bool = False  # start element attention's output projection at zero: then step 0 is stock SD
    beside_latent: int = 0  # extra input channels: SD Inpainting has 5, a mask and a masked latent; a draft's latent

    def __post_init__(self) -> None:
        require_within(self, block_out_channels=WIDTH, layers_per_block=DEPTH, heads=WIDTH, norm_groups=WIDTH)
        require_within(self, position_frequencies=(0, 64), beside_latent=(0, 1024))
        _require_levels(self, "block_out_channels")
        if len(self.attention_levels) != len(self.block_out_channels):
            expected = f"must have a value for each of block_out_channels, got {self.attention_levels}"
            raise FieldError(self, ("attention_levels",), expected)
        for divisor in ("norm_groups", "heads"):
            _require_divides(self, divisor, "block_out_channels")


@dataclass(frozen=True)
class DiffusionConfig:
    """Noise schedule and sampling (Section 3.3, Appendix C.2)."""

    train_timesteps: int = 1000  # T of SD 1.5
    beta_start: float = 0.00085  # SD's scaled-linear schedule
    beta_end: float = 0.012
    prediction: Literal["epsilon", "v"] = "epsilon"  # what the UNet predicts (Equation 4); v: Salimans & Ho 2022
    guidance: float = 3.0  # w (Section 4.1)
    sample_steps: int = 50  # DDIM (Section 4.1)
    draft_error: float = 0.0  # above 0: only what the light decoder's image lacks is diffused, divided by this number

    def __post_init__(self) -> None:
        require_within(self, train_timesteps=(1, 1_000_000), guidance=(-100, 100), draft_error=(0, 1000))
        require_within(self, sample_steps=(1, min(self.train_timesteps, 1000)), beta_start=(0, 1))
        require_within(self, beta_end=(self.beta_start, 1))

    @property
    def has_draft(self) -> bool:
        """Whether the diffusion decoder starts from the light decoder's image."""
        return self.draft_error > 0


@dataclass(frozen=True)
class ModelConfig:
    """Everything that determines the shapes and the arithmetic of a model."""

    elements: ElementsConfig = field(default_factory=ElementsConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    text: TextConfig = field(default_factory=TextConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    dtype: DType = "float32"  # of the arithmetic inside the networks; parameters, norms and softmax stay float32

    def __post_init__(self) -> None:
        size, levels = self.elements.image_size, len(self.vae.block_out_channels) + len(self.unet.block_out_channels)
        if size % 2 ** (levels - 2):
            expected = f"must be a multiple of {2 ** (levels - 2)}, by which VAE and UNet shrink images, got {size}"
            raise FieldError(self.elements, ("image_size",), expected)
        if size % self.decoder.query_grid:
            expected = f"must divide the image size {size}, got {self.decoder.query_grid}"
            raise FieldError(self.decoder, ("query_grid",), expected)
        if self.decoder.nearest > self.elements.num_elements:
            expected = f"must be at most the {self.elements.num_elements} elements, got {self.decoder.nearest}"
            raise FieldError(self.decoder, ("nearest",), expected)
        if self.diffusion.has_draft and self.unet.beside_latent != self.vae.latent_channels:
            expected = f"must be the {self.vae.latent_channels} channels of a draft, got {self.unet.beside_latent}"
            raise FieldError(self.unet, ("beside_latent",), expected)
        if self.elements.patch_size % 2 ** len(self.encoder.multipliers):
            expected = (
                f"must be a multiple of {2 ** len(self.encoder.multipliers)}, by which the encoder shrinks patches"
            )
            raise FieldError(self.elements, ("patch_size",), f"{expected}, got {self.elements.patch_size}")

    @property
    def latent_size(self) -> int:
        """Size of the latent image: the VAE halves the image between its levels."""
        return self.elements.image_size // 2 ** (len(self.vae.block_out_channels) - 1)

    def save(self, path: Path) -> None:
        """Write the configuration as JSON."""
        with new_file(path) as file:
            file.write(json.dumps(dataclasses.asdict(self), indent=2).encode() + b"\n")

    def checked(self) -> "ModelConfig":
        """Validate this configuration like one read from a file, and return it. Raises ValueError naming the field."""
        return _from_json(ModelConfig, dataclasses.asdict(self), where="")

    @classmethod
    def load(cls, path: Path) -> "ModelConfig":
        """Read a file written by `save`. Raises ValueError that names the file and the invalid field."""
        try:
            return _from_json(cls, json.loads(path.read_text()), where="")
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a model configuration: {error}") from error


FIELD_DEFAULTS: dict[str, dict[str, Any]] = {
    "decoder": {"nearest": 0},
    "diffusion": {"draft_error": 0.0},
    "unet": {"beside_latent": 0},
    "vae": {"middle_attention": True},
}
"""Defaults for fields that are missing from older files."""


def _from_json(kind: Any, value: Any, where: str) -> Any:
    """Rebuild the dataclass `kind` from plain JSON values, strictly: no field may be missing or unknown."""
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        value = tuple(value) if isinstance(value, list) else value
        try:
            return TypeAdapter(kind).validate_python(value, strict=True)
        except ValidationError as error:
            [first, *_] = error.errors(include_url=False)
            raise ValueError(f"{where}: {first['msg']}, got {first['input']!r}") from error
    hints = typing.get_type_hints(kind)
    if isinstance(value, dict):
        value = FIELD_DEFAULTS.get(where, {}) | value
    if not isinstance(value, dict) or set(value) != set(hints):
        odd = sorted(set(value) ^ set(hints)) if isinstance(value, dict) else value
        raise ValueError(f"{where or 'top level'} must have the fields {sorted(hints)}; differing: {odd}")
    fields = {name: _from_json(hint, value[name], f"{where}.{name}".lstrip(".")) for name, hint in hints.items()}
    try:
        return kind(**fields)
    except ValueError as error:
        raise ValueError(f"{where}.{error}") from error
