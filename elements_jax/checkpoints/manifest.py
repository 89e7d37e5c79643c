"""Manifests of a model folder: the checksums of each network's files, and the run that wrote them.

`elements/NETWORK.manifest.json` is written after the files that it lists:

    {"files": {"vae/diffusion_pytorch_model.safetensors": "1a2b3c4d"}, "made_by": "runs/vae, step 4000",
     "scaling_factor": 0.92}

Reading a network thus detects damaged files and interrupted saves. A folder without manifests, such as a Stable
Diffusion, is read without these checks.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elements_jax.data.atomic import checksum, new_file


def manifest_path(folder: Path, network: str) -> Path:
    """Return the path of a network's manifest."""
    return folder / "elements" / f"{network}.manifest.json"


def write_manifest(
    folder: Path, network: str, checksums: Mapping[Path, str], made_by: str, scaling_factor: float | None = None
) -> None:
    """Write the manifest of a network.

    Args:
        checksums: checksums of the network's files, by path.
        made_by: the run and step that produced the network; "" if there was none.
        scaling_factor: the factor measured for a VAE (`VAEConfig.scaling_factor`); None for other networks.
    """
    content: dict[str, Any] = {"files": {path.relative_to(folder).as_posix(): crc for path, crc in checksums.items()}}
    if made_by:
        content["made_by"] = made_by
    if scaling_factor is not None:
        content["scaling_factor"] = scaling_factor
    path = manifest_path(folder, network)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")


def check_manifest(folder: Path, network: str, scaling_factor: float) -> None:
    """Compare the files of a network with its manifest, if there is one.

    Args:
        scaling_factor: the one in the folder's configuration.

    Raises ValueError naming the first file that differs.
    """
    path = manifest_path(folder, network)
    if not path.is_file():
        return
    try:
        content = json.loads(path.read_bytes())
        files, measured = dict(content["files"]), content.get("scaling_factor", scaling_factor)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: expected the checksums of files: {error!r}") from error
    for name, expected in files.items():
        file = folder / name
        if file.is_file() and (found := checksum(file)) != expected:
            raise ValueError(
                f"{file} has the checksum {found}, and {path.name} expects {expected}: the file is damaged, another "
                f"program wrote it, or saving was interrupted. Run the training again; or remove {path} to use the file"
            )
    if measured != scaling_factor:
        raise ValueError(
            f"{folder}: the VAE was saved with scaling_factor {measured}, and its configuration has {scaling_factor}: "
            "saving was interrupted, or the configuration was edited. Run the training again"
        )
