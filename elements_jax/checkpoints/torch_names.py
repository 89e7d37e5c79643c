"""PyTorch parameters <-> ours, for Stable Diffusion's networks in the names and layouts of diffusers and transformers.

One table per network maps our names to PyTorch's; applied to all names of a network, it serves both directions.
`ORIGINAL` reads Stable Diffusion's first checkpoints, which use other names for the same parameters. A parameter's kind
determines its layout:

    convolution  kernel (height, width, in, out)  <->  weight (out, in, height, width)
    linear       kernel (in, out)                 <->  weight (out, in)
    norm, embedding    scale, embedding           <->  weight
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from elements_jax.models.functional import Params

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A regular expression and its replacement."""


@dataclass(frozen=True)
class Table:
    """The PyTorch names of one network's parameters."""

    names: tuple[Rule, ...]  # applied to our names, in order
    aliases: tuple[Rule, ...] = ()  # applied to the names in other checkpoints, in order
    buffers: tuple[str, ...] = ()  # tensors of older checkpoints that are not parameters
    extra_parameters: str = "$^"  # matches our parameters that Stable Diffusion lacks; by default none


_KINDS = ((r"\.(kernel|scale|embedding)$", ".weight"),)
_SAMPLERS = (
    (r"(down_blocks\.\d+)\.resample\.", r"\1.downsamplers.0."),
    (r"(up_blocks\.\d+)\.resample\.", r"\1.upsamplers.0."),
)

UNET = Table(  # diffusers' UNet2DConditionModel
    names=(
        *_SAMPLERS,
        (r"\.block\.", ".transformer_blocks.0."),
        (r"\.norm_self\.", ".norm1."),
        (r"\.norm_text\.", ".norm2."),
        (r"\.norm_feedforward\.", ".norm3."),
        (r"\.self_attention\.", ".attn1."),
        (r"\.text_attention\.", ".attn2."),
        (r"\.to_out\.", ".to_out.0."),
        (r"\.feedforward\.proj_in\.", ".ff.net.0.proj."),
        (r"\.feedforward\.proj_out\.", ".ff.net.2."),
        *_KINDS,
    ),
    extra_parameters=r"\.(element_attention|norm_elements)\.",
)

VAE = Table(  # diffusers' AutoencoderKL
    names=(
        *_SAMPLERS,
        (r"\.attention\.to_out\.", ".to_out.0."),
        (r"\.attention\.", "."),
        *_KINDS,
    ),
    aliases=(
        (r"\.query\.", ".to_q."),
        (r"\.key\.", ".to_k."),
        (r"\.value\.", ".to_v."),
        (r"\.proj_attn\.", ".to_out.0."),
    ),
)

TEXT = Table(  # transformers' CLIPTextModel
    names=(
        (r"^(token|position)_embedding\.", r"embeddings.\1_embedding."),
        (r"^layers\.", "encoder.layers."),
        (r"^", "text_model."),
        *_KINDS,
    ),
    aliases=((r"^(?!text_model\.)", "text_model."),),  # transformers 5 omits the prefix and reads both
    buffers=("text_model.embeddings.position_ids",),
)

OWN = Table(names=_KINDS)  # networks that Stable Diffusion lacks: our names, PyTorch's layouts


def _in_levels(blocks: str, first: int, part: str) -> Callable[[re.Match[str]], str]:
    """Rename blocks numbered consecutively from `first`, three per level; resampling layers have no number."""

    def rename(match: re.Match[str]) -> str:
        level, layer = divmod(int(match[1]) - first, 3)
        return f"{blocks}.{level}.{part.format(layer=layer)}."

    return rename


_down, _up = partial(_in_levels, "down_blocks", 1), partial(_in_levels, "up_blocks", 0)  # input block 0 is conv_in

ORIGINAL = {  # Stable Diffusion 1's single file: the prefix and table of each network
    "unet": (
        "model.diffusion_model.",
        replace(
            UNET,
            aliases=(
                (r"^time_embed\.0\.", "time_embedding.linear_1."),
                (r"^time_embed\.2\.", "time_embedding.linear_2."),
                (r"^input_blocks\.0\.0\.", "conv_in."),
                (r"^out\.0\.", "conv_norm_out."),
                (r"^out\.2\.", "conv_out."),
                (r"^input_blocks\.(\d+)\.0\.op\.", _down("downsamplers.0.conv")),
                (r"^input_blocks\.(\d+)\.0\.", _down("resnets.{layer}")),
                (r"^input_blocks\.(\d+)\.1\.", _down("attentions.{layer}")),
                (r"^middle_block\.0\.", "mid_block.resnets.0."),
                (r"^middle_block\.1\.", "mid_block.attentions.0."),
                (r"^middle_block\.2\.", "mid_block.resnets.1."),
                (r"^output_blocks\.(\d+)\.[12]\.conv\.", _up("upsamplers.0.conv")),
                (r"^output_blocks\.(\d+)\.0\.", _up("resnets.{layer}")),
                (r"^output_blocks\.(\d+)\.1\.", _up("attentions.{layer}")),
                (r"\.in_layers\.0\.", ".norm1."),
                (r"\.in_layers\.2\.", ".conv1."),
                (r"\.emb_layers\.1\.", ".time_emb_proj."),
                (r"\.out_layers\.0\.", ".norm2."),
                (r"\.out_layers\.3\.", ".conv2."),
                (r"\.skip_connection\.", ".conv_shortcut."),
            ),
        ),
    ),
    "vae": (
        "first_stage_model.",
        replace(
            VAE,
            aliases=(
                (r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets."),
                (r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
                # The decoder counts its levels from the finest.
                (r"\.up\.(\d+)\.block\.", lambda match: f".up_blocks.{3 - int(match[1])}.resnets."),
                (r"\.up\.(\d+)\.upsample\.", lambda match: f".up_blocks.{3 - int(match[1])}.upsamplers.0."),
                (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
                (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
                (r"\.mid\.attn_1\.norm\.", ".mid_block.attentions.0.group_norm."),
                (r"\.mid\.attn_1\.proj_out\.", ".mid_block.attentions.0.to_out.0."),
                (r"\.mid\.attn_1\.([qkv])\.", r".mid_block.attentions.0.to_\1."),
                (r"\.norm_out\.", ".conv_norm_out."),
                (r"\.nin_shortcut\.", ".conv_shortcut."),
            ),
        ),
    ),
    "text_encoder": ("cond_stage_model.transformer.", TEXT),
}


def from_torch(
    table: Table, tensors: Mapping[str, np.ndarray], shapes: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, jax.Array]:
    """Convert a PyTorch checkpoint's tensors to our parameters, in float32.

    Args:
        shapes: names and shapes of the network's parameters (`Functional.shapes()`).

    A checkpoint without element attention, such as Stable Diffusion's, gives a result without it.
    `unet.init_missing(from_torch(UNET, tensors, unet.shapes()), key)` initializes what is missing.

    Raises one ValueError that lists every tensor that is missing, unknown, given twice, not finite, or of the wrong
    shape or type.
    """
    problems: list[str] = []
    found: dict[str, str] = {}  # PyTorch's current name of a tensor -> its name in the checkpoint
    for name in tensors:
        present = _substitute(table.aliases, name)
        if present in found:
            problems.append(f"given twice: {found[present]} and {name}")
        elif present not in table.buffers:
            found[present] = name

    expected = torch_shapes(table, shapes)
    is_new = {torch_name(table, name): re.search(table.extra_parameters, name) is not None for name in shapes}
    base_alone = not any(is_new[name] for name in found.keys() & expected.keys())
    params: Params = {}
    for ours in shapes:
        theirs = torch_name(table, ours)
        if theirs in found:
            tensor = tensors[found[theirs]]
            if tensor.shape == (*expected[theirs], 1, 1):  # older checkpoints use 1 x 1 convolutions for attention
                tensor = tensor[..., 0, 0]
            if not jnp.issubdtype(tensor.dtype, jnp.floating):
                problems.append(f"expected real numbers, found {tensor.dtype}: {found[theirs]}")
            elif not np.isfinite(tensor).all():
                problems.append(f"not finite: {found[theirs]}")
            elif tensor.shape == expected[theirs]:
                axes = np.argsort(_torch_axes(ours, tensor.ndim))
                params[ours] = jax.device_put(tensor.astype(np.float32, copy=False).transpose(axes))
            else:
                problems.append(f"expected shape {expected[theirs]}, found {tensor.shape}: {found[theirs]}")
        elif not (base_alone and is_new[theirs]):
            problems.append(f"missing: {theirs}")
    problems += [f"unknown: {found[name]}" for name in found.keys() - expected.keys()]
    if problems:
        raise ValueError("the checkpoint does not fit the network:\n  " + "\n  ".join(sorted(problems)))
    return params


def to_torch(table: Table, params: Mapping[str, jax.Array | np.ndarray]) -> dict[str, np.ndarray]:
    """Convert our parameters to PyTorch's tensors, under the names that `load_state_dict` expects.

    Element attention, which diffusers does not have, keeps our names.
    """
    return {
        torch_name(table, name): np.ascontiguousarray(np.asarray(value).transpose(_torch_axes(name, value.ndim)))
        for name, value in params.items()
    }


def torch_shapes(table: Table, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors in a PyTorch checkpoint of this network."""
    return {
        torch_name(table, name): tuple(spec.shape[axis] for axis in _torch_axes(name, spec.ndim))
        for name, spec in shapes.items()
    }


def torch_name(table: Table, name: str) -> str:
    """Return PyTorch's name for our parameter `name`."""
    return _substitute(table.names, name)


def _torch_axes(name: str, ndim: int) -> tuple[int, ...]:
    """Return the permutation from our layout to PyTorch's."""
    if not name.endswith(".kernel"):
        return tuple(range(ndim))
    return {2: (1, 0), 4: (3, 2, 0, 1)}[ndim]


def _substitute(rules: tuple[Rule, ...], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
