"""The model folder: Stable Diffusion in diffusers' layout, plus `elements/`.

    model_index.json  scheduler/  tokenizer/         as diffusers and transformers write and read them
    vae/  text_encoder/  unet/                       config.json and parameters, of AutoencoderKL, CLIPTextModel and
                                                     UNet2DConditionModel
    elements/config.json                             the complete configuration (`ModelConfig`); it has precedence
    elements/attention.safetensors                   what Algorithm 1 adds to the UNet: per transformer block B (for
                                                     example `down_blocks.0.attentions.0.transformer_blocks.0`) the
                                                     tensors B.norm_elements.{weight,bias},
                                                     B.element_attention.{to_q,to_k,to_v}.weight and
                                                     B.element_attention.to_out.0.{weight,bias}, in PyTorch's layouts:
                                                     a LayerNorm and diffusers' `Attention` over the element tokens
    elements/encoder.safetensors, decoder.safetensors   stage 1: our names, PyTorch's layouts
    elements/NETWORK.manifest.json                   checksums of a network's files (`manifest.py`)

Training fills the folder part by part. A folder without `elements/` and the original single file are plain Stable
Diffusion; both can be read, and training turns them into the paper's model.
"""

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from elements_jax import TINY
from elements_jax.checkpoints import torch_names
from elements_jax.checkpoints.diffusers_config import from_diffusers, to_diffusers
from elements_jax.checkpoints.manifest import check_manifest, manifest_path, write_manifest
from elements_jax.checkpoints.tensor_files import (
    PickledWeights,
    TensorFiles,
    find_tensors,
    read_metadata,
    save_tensors,
)
from elements_jax.checkpoints.tokenizer import PromptTokenizer
from elements_jax.checkpoints.torch_names import Table
from elements_jax.config import ModelConfig, UNetConfig
from elements_jax.data.atomic import checksum, new_file
from elements_jax.data.object_store import UNFINISHED, as_path, local_copy
from elements_jax.models.functional import Params
from elements_jax.models.networks import Networks

CONFIG = Path("elements", "config.json")
ATTENTION = Path("elements", "attention.safetensors")
CLIP_TOKENIZER = "openai/clip-vit-large-patch14"  # hub repository with the tokenizer of every Stable Diffusion 1

_TABLES: dict[str, Table] = {
    "vae": torch_names.VAE,
    "text_encoder": torch_names.TEXT,
    "unet": torch_names.UNET,
    "encoder": torch_names.OWN,
    "decoder": torch_names.OWN,
}
_FILES = {  # folder, and file name without suffix
    "vae": ("vae", "diffusion_pytorch_model"),
    "text_encoder": ("text_encoder", "model"),
    "unet": ("unet", "diffusion_pytorch_model"),
    "encoder": ("elements", "encoder"),
    "decoder": ("elements", "decoder"),
}
_MADE_BY = {
    "vae": "`elements train vae`, or --init with a Stable Diffusion",
    "text_encoder": "`elements train diffusion` with text_from_scratch, or --init with a Stable Diffusion",
    "unet": "`elements train diffusion`",
    "encoder": "`elements train autoencoder`",
    "decoder": "`elements train autoencoder`",
}


def read_config(folder: Path) -> ModelConfig:
    """Read the configuration of a model folder or of a Stable Diffusion.

    Raises FileNotFoundError, or ValueError that names the file and the setting.
    """
    if (folder / CONFIG).is_file():
        return ModelConfig.load(folder / CONFIG)
    paths = list(to_diffusers(ModelConfig()))
    if missing := [path for path in paths if not (folder / path).is_file()]:
        raise FileNotFoundError(
            f"{folder} is neither a model folder, which has {CONFIG} (`elements train` makes one), nor a Stable "
            f"Diffusion in diffusers' layout: it has no {', '.join(missing)}"
        )
    files = {}
    for path in paths:
        try:
            files[path] = json.loads((folder / path).read_text())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{folder / path} is not JSON: {error}") from error
    try:
        return from_diffusers(files).checked()
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    except (LookupError, TypeError, AttributeError) as error:  # a value has the wrong type
        raise ValueError(f"{folder}: not the configuration of a Stable Diffusion: {error!r}") from error


def write_config(folder: Path, config: ModelConfig) -> None:
    """Write the configuration, for us and for diffusers."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
    }
    for path, content in {"model_index.json": index, **to_diffusers(config)}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with new_file(folder / path) as file:
            file.write(json.dumps(content, indent=2).encode() + b"\n")
    (folder / CONFIG).parent.mkdir(exist_ok=True)
    config.save(folder / CONFIG)


def has_network(folder: Path, name: str) -> bool:
    """Tell whether a folder has parameters of a network, even if incomplete: loading then lists what is missing."""
    where, stem = _FILES[name]
    return any((folder / where).glob(f"{stem}*.safetensors*"))


def remove_network(folder: Path, name: str) -> None:
    """Remove the parameters of a network from a model folder, if present."""
    where, stem = _FILES[name]
    for path in (folder / where).glob(f"{stem}*.safetensors*"):
        path.unlink()
    manifest_path(folder, name).unlink(missing_ok=True)


def load_present(folder: Path, networks: Networks, *names: str) -> dict[str, Params]:
    """Load the parameters of those named networks that the folder has. The UNet may be Stable Diffusion's."""
    return load_networks(folder, networks, [name for name in names if has_network(folder, name)], attention=False)


def load_networks(
    folder: Path, networks: Networks, names: Sequence[str], *, attention: bool = True
) -> dict[str, Params]:
    """Load the parameters of the named networks, using the names of `Networks`.

    Args:
        attention: whether the UNet must have element attention; if not, it may be Stable Diffusion's.

    Raises one FileNotFoundError that lists the missing networks and the commands that make them, or one ValueError
    that names the files and every tensor that is missing, unknown or misshapen.
    """
    found, missing = {}, []
    for name in names:
        try:
            found[name] = find_tensors(folder / _FILES[name][0], _FILES[name][1])
        except PickledWeights as error:
            missing.append(str(error))
        except FileNotFoundError as error:
            missing.append(f"{error} (made by {_MADE_BY[name]})")
    if "unet" in names and attention and not (folder / ATTENTION).is_file():
        missing.append(f"{folder} holds no {ATTENTION} (made by {_MADE_BY['unet']})")
    if missing:
        raise FileNotFoundError("\n  ".join(["the model is not complete:", *missing]))
    if "unet" in found and (folder / ATTENTION).is_file():
        if read_metadata(folder / ATTENTION, "unet") != _fingerprint(TensorFiles(*found["unet"])):
            raise ValueError(f"{folder}: unet/ and {ATTENTION} come from different saves: write the model again")
        found["unet"].append(folder / ATTENTION)
    for name in found:
        check_manifest(folder, name, networks.config.vae.scaling_factor)
    return _read({name: (_TABLES[name], TensorFiles(*paths)) for name, paths in found.items()}, networks, str(folder))


def load_original(path: Path, networks: Networks) -> dict[str, Params]:
    """Load the parameters of Stable Diffusion's three networks from its original single safetensors file.

    Averaged weights (`model_ema.*`) in the file are ignored, as in diffusers.

    Raises the errors of `load_networks`.
    """
    parts = {name: (table, TensorFiles(path, prefix=prefix)) for name, (prefix, table) in torch_names.ORIGINAL.items()}
    return _read(parts, networks, str(path))


def save_network(folder: Path, name: str, params: Mapping[str, jax.Array | np.ndarray]) -> None:
    """Write the parameters of one network. Raises the errors of `save_networks`."""
    save_networks(folder, {name: params})


def save_networks(
    folder: Path,
    networks: Mapping[str, Mapping[str, jax.Array | np.ndarray]],
    made_by: str = "",
    scaling_factor: float | None = None,
) -> None:
    """Write the parameters of networks that belong together.

    After an interruption each path holds either the old or the new complete file, and `load_networks` refuses a mix of
    the two.

    Args:
        made_by, scaling_factor: see `manifest.write_manifest`.

    Raises ValueError that names a non-finite parameter, before anything is written, or OSError that names a file.
    """
    for name, params in networks.items():
        if odd := [each for each, value in params.items() if not np.isfinite(np.asarray(value)).all()]:
            raise ValueError(f"{folder}: not saved: {len(odd)} parameters of {name} are not finite, such as {odd[0]}")
    parts = {name: _files(folder, name, params) for name, params in networks.items()}
    checksums = save_tensors({path: content for files in parts.values() for path, content in files.items()})
    for name, files in parts.items():
        words = (folder / "tokenizer").glob("*") if name == "text_encoder" else ()
        of_network = {path: checksums[path] for path in files} | {path: checksum(path) for path in sorted(words)}
        write_manifest(folder, name, of_network, made_by, scaling_factor if name == "vae" else None)
        for path in files:  # a killed process may have left temporary files as large as the parameters
            for left_over in path.parent.glob(f".{path.name}.*{UNFINISHED}"):
                left_over.unlink(missing_ok=True)


def _files(
    folder: Path, name: str, params: Mapping[str, jax.Array | np.ndarray]
) -> dict[Path, tuple[dict[str, np.ndarray], tuple[str, str]]]:
    """Return the tensors and metadata of a network's files. `has_network` looks for the last of them."""
    where, stem = _FILES[name]
    tensors = torch_names.to_torch(_TABLES[name], params)
    added = {
        theirs: tensors.pop(theirs) for theirs in list(tensors) if re.search(_TABLES[name].extra_parameters, theirs)
    }
    files = {folder / ATTENTION: (added, ("unet", _fingerprint(tensors)))} if added else {}
    return files | {folder / where / f"{stem}.safetensors": (tensors, ("format", "pt"))}  # required by transformers


def read_model(
    source: str | Path, tokenizer: str | Path = CLIP_TOKENIZER
) -> tuple[ModelConfig, dict[str, Params], PromptTokenizer | None]:
    """Read configuration, parameters and tokenizer from a model folder, a Stable Diffusion or a hub repository.

    Args:
        source: a folder, Stable Diffusion 1's original single safetensors file, "photo", "tiny", or the name of a
            repository on the Hugging Face hub.
        tokenizer: folder or repository of CLIP's vocabulary, for a Stable Diffusion without one, such as a single file.

    A Stable Diffusion provides three networks, with a UNet without element attention. A model folder may lack stage 1's
    decoder, which stage 2 does not need; or it may hold only stage 1, and then has no tokenizer.

    Raises the errors of `read_config` and `load_networks`.
    """
    path = local_model(source)
    if path.is_file():
        config = ModelConfig(unet=UNetConfig(zero_init_elements=True))
        return config, load_original(path, Networks(config)), PromptTokenizer(_clip_vocabulary(tokenizer), config.text)

    if not path.is_dir():
        path = _download(str(source), _PUBLISHED)
    config = read_config(path)
    ours = (path / CONFIG).is_file()
    if has_network(path, "decoder") and not has_network(path, "unet"):
        return config, load_networks(path, Networks(config), ["encoder", "decoder"]), None
    names = ["vae", "text_encoder", "unet"] + ["encoder", "decoder"] * ours
    if has_network(path, "encoder") and not has_network(path, "decoder"):  # from a stage 2 that trained it
        names.remove("decoder")
    params = load_networks(path, Networks(config), names, attention=ours)
    words = path / "tokenizer"
    if not ours and not words.is_dir():
        words = _clip_vocabulary(tokenizer)
    return config, params, PromptTokenizer(words, config.text)


WEIGHTS = TINY.parent
"""Models bundled with this package."""


def local_model(source: str | Path) -> Path:
    """Locate a model: a path, or the name of a bundled model unless a folder of that name exists here.

    A URL is copied to the cache, without the training runs.
    """
    shipped = WEIGHTS / str(source)
    if shipped.parent == WEIGHTS and shipped.is_dir() and not Path(source).exists():
        return shipped
    return local_copy(as_path(source), leave_out="runs")


def _clip_vocabulary(source: str | Path) -> Path:
    """Return the folder of CLIP's vocabulary: `source` itself, or a download of the repository of that name."""
    folder = Path(source)
    return folder if folder.is_dir() else _download(str(source), ["vocab.json", "merges.txt"])


_PUBLISHED = ["model_index.json", "scheduler/*", "tokenizer/*", "elements/*"] + [
    f"{folder}/{file}"
    for folder, stem in sorted({_FILES[name] for name in ("vae", "text_encoder", "unet")})
    for file in ("config.json", f"{stem}.safetensors*", f"{stem}-*-of-*.safetensors")
]
"""Files to download: no copies in half precision, for other frameworks, or in a single file."""


def _fingerprint(unet: Mapping[str, np.ndarray]) -> str:
    """Fingerprint one tensor, as training changes all of them: a process killed between two files mixes two saves."""
    return f"{zlib.crc32(np.ascontiguousarray(unet['conv_out.weight']).data):08x}" if "conv_out.weight" in unet else ""


def _download(repository: str, files: list[str]) -> Path:
    # Imported here: it is slow, and folders do not need it.
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=files))
    except Exception as error:  # errors of the network, the hub and the cache share no class
        reason = str(error).partition("\n")[0]
        raise FileNotFoundError(
            f"{repository}: no such file or folder, and not to be had from the Hugging Face hub: {reason}"
        ) from error


def _read(
    parts: Mapping[str, tuple[Table, TensorFiles]], networks: Networks, source: str
) -> dict[str, dict[str, jax.Array]]:
    params, problems = {}, []
    for name, (table, tensors) in parts.items():
        try:
            params[name] = torch_names.from_torch(table, tensors, getattr(networks, name).shapes())
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ValueError("\n".join([f"{source} does not fit the model:", *problems]))
    return params
