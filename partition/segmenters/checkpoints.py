"""Find SAM's weights by file, folder, URL or name of a published checkpoint, and read transformers' layout."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from elements_jax.data.object_store import AnyPath, local_copy

if TYPE_CHECKING:
    from torch import Tensor


class Published(NamedTuple):
    """A checkpoint on the Hugging Face hub."""

    repository: str
    file: str
    sha256: str
    """Hash of the file that its authors published."""


PUBLISHED = {
    "mobile-sam": Published(
        "dhkim2810/MobileSAM",
        "mobile_sam.pt",
        "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
    ),
    "vit_b": Published(
        "ybelkada/segment-anything",
        "checkpoints/sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": Published(
        "ybelkada/segment-anything",
        "checkpoints/sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": Published(
        "ybelkada/segment-anything",
        "checkpoints/sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}

_OF_SAM2 = ("config.json", "model.safetensors")
_IN_FOLDER = ("model.safetensors", "pytorch_model.bin")
_RENAMED = [
    # From transformers' names to segment-anything's, applied in order.
    (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
    (r"^vision_encoder\.", "image_encoder."),
    (r"^image_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
    (r"\.neck\.conv1\.", ".neck.0."),
    (r"\.neck\.layer_norm1\.", ".neck.1."),
    (r"\.neck\.conv2\.", ".neck.2."),
    (r"\.neck\.layer_norm2\.", ".neck.3."),
    (r"\.shared_embedding\.positional_embedding$", ".pe_layer.positional_encoding_gaussian_matrix"),
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (r"\.point_embed\.", ".point_embeddings."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.0\.", r"\1.layers.1."),
    (r"\.proj_in\.", ".layers.0."),
    (r"\.proj_out\.", ".layers.2."),
    (r"\.layer_norm(\d|_final_attn)\.", r".norm\1."),
]


def find_checkpoint(checkpoint: AnyPath) -> Path:
    """Return a checkpoint's file, from a file, a folder as transformers writes it, a URL, or a name of `PUBLISHED`.

    Raises ValueError naming the option if there is no file, or a download has another hash than the published file.
    """
    if (name := str(checkpoint)) in PUBLISHED and not checkpoint.exists():
        return _download(name)
    found = local_copy(checkpoint)
    if found.is_dir():
        found = next((found / name for name in _IN_FOLDER if (found / name).is_file()), found)
    if not found.is_file():
        raise ValueError(f"--checkpoint: no such file: {checkpoint}; and it is not one of {', '.join(PUBLISHED)}")
    return found


def find_sam2(checkpoint: AnyPath) -> Path:
    """Return the file of SAM 2's weights, next to its config.json, from a folder, a URL or a repository on the hub.

    Raises ValueError naming the option if there is no such file.
    """
    folder = local_copy(checkpoint)
    if not folder.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(checkpoint)):
        folder = _download_sam2(str(checkpoint))
    if not all((folder / name).is_file() for name in _OF_SAM2):
        raise ValueError(
            f"--checkpoint: {checkpoint} is neither a folder with {' and '.join(_OF_SAM2)}, as transformers writes "
            "SAM 2, nor the name of a repository on the Hugging Face hub"
        )
    return folder / _OF_SAM2[1]


def from_transformers(weights: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return the tensors of transformers' `SamModel` under segment-anything's names."""
    renamed = {}
    for name, value in weights.items():
        if name == "shared_image_embedding.positional_embedding":
            continue  # the prompt encoder has the same tensor
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def _download_sam2(repository: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=list(_OF_SAM2)))
    except Exception as error:  # errors of network, hub and cache share no class
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--checkpoint {repository} cannot be downloaded: {reason}") from error


def _download(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    published = PUBLISHED[name]
    try:
        path = Path(hf_hub_download(published.repository, published.file))
    except Exception as error:  # errors of network, hub and cache share no class
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--checkpoint {name}: {published.repository} cannot be downloaded: {reason}") from error
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != published.sha256:
        raise ValueError(
            f"--checkpoint {name}: {path} is not the published file: its SHA-256 is {found}, not {published.sha256}; "
            "remove it to download it again"
        )
    return path
