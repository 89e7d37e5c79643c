"""PyTorch parameters <-> ours: Stable Diffusion's networks as diffusers and transformers name and lay them out.

One table a network says how our names become PyTorch's; the same table, read over the names that a network has, serves
both directions. Layouts follow from a parameter's kind:

    convolution  kernel (height, width, in, out)  <->  weight (out, in, height, width)
    linear       kernel (in, out)                 <->  weight (out, in)
    norm, embedding    scale, embedding           <->  weight
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from elements_jax.functional import Params


@dataclass(frozen=True)
class Table:
    """How the parameters of one network are called in PyTorch."""

    names: tuple[tuple[str, str], ...]  # regular expressions over our names, and what they become, in order
    aliases: tuple[tuple[str, str], ...] = ()  # what older checkpoints say, and what is said now
    buffers: tuple[str, ...] = ()  # tensors that older checkpoints hold beside the parameters
    ours_alone: str = "$^"  # matches parameters of ours that Stable Diffusion lacks; by default none


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
    ours_alone=r"\.(element_attention|norm_elements)\.",
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
        *_KINDS,
    ),
    aliases=((r"^text_model\.", ""),),  # said until transformers 5
    buffers=("embeddings.position_ids",),
)


def from_torch(
    table: Table, tensors: Mapping[str, np.ndarray], shapes: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, jax.Array]:
    """Our parameters out of a PyTorch checkpoint's tensors, in float32.

    Args:
        shapes: names and shapes of the network's parameters (`Functional.shapes()`).

    Where the checkpoint has none of the attention to elements, as Stable Diffusion's, neither has the result:
    `{**unet.init(key), **from_torch(UNET, tensors, unet.shapes())}` starts it afresh.

    Raises one ValueError that lists every tensor that is missing, unknown, given twice or of another shape.
    """
    problems: list[str] = []
    found: dict[str, str] = {}  # PyTorch's present name of a tensor -> the checkpoint's name
    for name in tensors:
        present = _substitute(table.aliases, name)
        if present in found:
            problems.append(f"given twice: {found[present]} and {name}")
        elif present not in table.buffers:
            found[present] = name

    expected = torch_shapes(table, shapes)
    is_new = {torch_name(table, name): re.search(table.ours_alone, name) is not None for name in shapes}
    base_alone = not any(is_new[name] for name in found.keys() & expected.keys())
    params: Params = {}
    for ours in shapes:
        theirs = torch_name(table, ours)
        if theirs in found:
            tensor = tensors[found[theirs]]
            if tensor.shape == expected[theirs]:
                axes = np.argsort(_torch_axes(ours, tensor.ndim))
                params[ours] = jnp.asarray(np.ascontiguousarray(tensor.transpose(axes), np.float32))
            else:
                problems.append(f"expected shape {expected[theirs]}, found {tensor.shape}: {found[theirs]}")
        elif not (base_alone and is_new[theirs]):
            problems.append(f"missing: {theirs}")
    problems += [f"unknown: {found[name]}" for name in found.keys() - expected.keys()]
    if problems:
        raise ValueError("the checkpoint does not fit the network:\n  " + "\n  ".join(sorted(problems)))
    return params


def to_torch(table: Table, params: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
    """PyTorch's tensors of our parameters, under the names that `load_state_dict` takes.

    Those of the attention to elements, which diffusers does not know, keep our words.
    """
    return {
        torch_name(table, name): np.ascontiguousarray(np.asarray(value).transpose(_torch_axes(name, value.ndim)))
        for name, value in params.items()
    }


def torch_shapes(table: Table, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a PyTorch checkpoint of this network holds."""
    return {
        torch_name(table, name): tuple(spec.shape[axis] for axis in _torch_axes(name, spec.ndim))
        for name, spec in shapes.items()
    }


def torch_name(table: Table, name: str) -> str:
    """What PyTorch calls our parameter `name`."""
    return _substitute(table.names, name)


def _torch_axes(name: str, ndim: int) -> tuple[int, ...]:
    """The permutation from our layout to PyTorch's."""
    if not name.endswith(".kernel"):
        return tuple(range(ndim))
    return {2: (1, 0), 4: (3, 2, 0, 1)}[ndim]


def _substitute(rules: tuple[tuple[str, str], ...], name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
