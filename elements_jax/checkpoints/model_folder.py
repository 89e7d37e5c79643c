"""The model folder: Stable Diffusion as diffusers lays it out, and `elements/` next to it.

    model_index.json  scheduler/  tokenizer/         as diffusers and transformers write and read them
    vae/  text_encoder/  unet/                       config.json and parameters, of AutoencoderKL, CLIPTextModel and
                                                     UNet2DConditionModel
    elements/config.json                             the whole configuration (`ModelConfig`), which precedes the others
    elements/attention.safetensors                   what Algorithm 1 adds to the UNet: of each transformer block B (for
                                                     example `down_blocks.0.attentions.0.transformer_blocks.0`) the
                                                     tensors B.norm_elements.{weight,bias},
                                                     B.element_attention.{to_q,to_k,to_v}.weight and
                                                     B.element_attention.to_out.0.{weight,bias}, in PyTorch's layouts:
                                                     a LayerNorm and diffusers' `Attention` over the element tokens
    elements/encoder.safetensors, decoder.safetensors   stage 1: our names, PyTorch's layouts
    elements/NETWORK.manifest.json                   checksums of a network's files (`manifest.py`)

Training fills it part by part. A folder without `elements/` is Stable Diffusion itself, and so is the original single
file; both can be read, and become the paper's model by training.
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
CLIP_TOKENIZER = "openai/clip-vit-large-patch14"  # on the hub: the tokenizer of every Stable Diffusion 1

_TABLES: dict[str, Table] = {
    "vae": torch_names.VAE,
    "text_encoder": torch_names.TEXT,
    "unet": torch_names.UNET,
    "encoder": torch_names.OWN,
    "decoder": torch_names.OWN,
}
_FILES = {  # folder, and name without its ending
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
    """The configuration of a model folder or of a Stable Diffusion's.

    Raises FileNotFoundError or ValueError naming the file and the setting.
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
    except (LookupError, TypeError, AttributeError) as error:  # of a value of another kind
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
    """Whether a model folder has parameters of a network, be it in part: loading tells then what is missing."""
    where, stem = _FILES[name]
    return any((folder / where).glob(f"{stem}*.safetensors*"))


def remove_network(folder: Path, name: str) -> None:
    """Remove the parameters of a network from a model folder, where it has them."""
    where, stem = _FILES[name]
    for path in (folder / where).glob(f"{stem}*.safetensors*"):
        path.unlink()
    manifest_path(folder, name).unlink(missing_ok=True)


def load_present(folder: Path, networks: Networks, *names: str) -> dict[str, Params]:
    """Parameters of those of the named networks that a model folder has; the UNet may be Stable Diffusion's."""
    return load_networks(folder, networks, [name for name in names if has_network(folder, name)], attention=False)


def load_networks(
    folder: Path, networks: Networks, names: Sequence[str], *, attention: bool = True
) -> dict[str, Params]:
    """Parameters of the named networks, by the names of `Networks`.

    Args:
        attention: whether the UNet must have its attention to elements; otherwise it may be Stable Diffusion's.

    Raises one FileNotFoundError that lists what is missing and what makes it, or one ValueError that names the files
    and every tensor that is missing, unknown, or of another shape.
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
            raise ValueError(f"{folder}: unet/ and {ATTENTION} are not of the same save: write the model again")
        found["unet"].append(folder / ATTENTION)
    for name in found:
        check_manifest(folder, name, networks.config.vae.scaling_factor)
    return _read({name: (_TABLES[name], TensorFiles(*paths)) for name, paths in found.items()}, networks, str(folder))


def load_original(path: Path, networks: Networks) -> dict[str, Params]:
    """Parameters of Stable Diffusion's three networks out of its original single safetensors file.

    Where the file has averaged weights next to the others (`model_ema.*`), they are left, as diffusers does.

    Raises as `load_networks`.
    """
    parts = {name: (table, TensorFiles(path, prefix=prefix)) for name, (prefix, table) in torch_names.ORIGINAL.items()}
    return _read(parts, networks, str(path))


def save_network(folder: Path, name: str, params: Mapping[str, jax.Array | np.ndarray]) -> None:
    """Write the parameters of one network. Raises as `save_networks`."""
    save_networks(folder, {name: params})


def save_networks(
    folder: Path,
    networks: Mapping[str, Mapping[str, jax.Array | np.ndarray]],
    made_by: str = "",
    scaling_factor: float | None = None,
) -> None:
    """Write the parameters of networks that belong together.

    Each path then has a complete file or the one before, and `load_networks` refuses a mixture of both.

    Args:
        made_by, scaling_factor: as in `model_manifest.write_manifest`.

    Raises ValueError naming a parameter that is not finite, before anything is written; OSError naming a file.
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
        for path in files:  # a killed process may have left as much as the parameters take
            for left_over in path.parent.glob(f".{path.name}.*{UNFINISHED}"):
                left_over.unlink(missing_ok=True)


def _files(
    folder: Path, name: str, params: Mapping[str, jax.Array | np.ndarray]
) -> dict[Path, tuple[dict[str, np.ndarray], tuple[str, str]]]:
    """Tensors and metadata of a network's files. The last is the one that `has_network` looks for."""
    where, stem = _FILES[name]
    tensors = torch_names.to_torch(_TABLES[name], params)
    added = {
        theirs: tensors.pop(theirs) for theirs in list(tensors) if re.search(_TABLES[name].extra_parameters, theirs)
    }
    files = {folder / ATTENTION: (added, ("unet", _fingerprint(tensors)))} if added else {}
    return files | {folder / where / f"{stem}.safetensors": (tensors, ("format", "pt"))}  # transformers requires it


def read_model(
    source: str | Path, tokenizer: str | Path = CLIP_TOKENIZER
) -> tuple[ModelConfig, dict[str, Params], PromptTokenizer | None]:
    """Configuration, parameters and tokenizer of a model folder, of a Stable Diffusion, or of a hub's repository.

    Args:
        source: a folder, Stable Diffusion 1's original single safetensors file, "tiny", or the name of a repository on
            the Hugging Face hub.
        tokenizer: for a Stable Diffusion that has none, as a single file: folder or repository of CLIP's vocabulary.

    A Stable Diffusion gives its own three networks, the UNet without attention to elements. A model folder may be
    without stage 1's decoder, which stage 2 has no need of; or it may be of stage 1 alone, and then has no tokenizer.

    Raises as `read_config` and `load_networks`.
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
    if has_network(path, "encoder") and not has_network(path, "decoder"):  # of a stage 2 that trained the encoder
        names.remove("decoder")
    params = load_networks(path, Networks(config), names, attention=ours)
    words = path / "tokenizer"
    if not ours and not words.is_dir():
        words = _clip_vocabulary(tokenizer)
    return config, params, PromptTokenizer(words, config.text)


WEIGHTS = TINY.parent
"""Models that come with this package."""


def local_model(source: str | Path) -> Path:
    """Where a model is: a path, or the name of one that comes with this package, unless a folder here has that name.

    For a URL it is a copy in the cache, without the runs that trained it.
    """
    shipped = WEIGHTS / str(source)
    if shipped.parent == WEIGHTS and shipped.is_dir() and not Path(source).exists():
        return shipped
    return local_copy(as_path(source), leave_out="runs")


def _clip_vocabulary(source: str | Path) -> Path:
    """The folder of CLIP's vocabulary: `source` itself, or a download of the repository of this name."""
    folder = Path(source)
    return folder if folder.is_dir() else _download(str(source), ["vocab.json", "merges.txt"])


_PUBLISHED = ["model_index.json", "scheduler/*", "tokenizer/*", "elements/*"] + [
    f"{folder}/{file}"
    for folder, stem in sorted({_FILES[name] for name in ("vae", "text_encoder", "unet")})
    for file in ("config.json", f"{stem}.safetensors*", f"{stem}-*-of-*.safetensors")
]
"""What is downloaded of a repository: not its copies in half precision, of other frameworks, or of a single file."""


def _fingerprint(unet: Mapping[str, np.ndarray]) -> str:
    """Of one tensor, since training changes all: a process killed between two files leaves them of different saves."""
    return f"{zlib.crc32(np.ascontiguousarray(unet['conv_out.weight']).data):08x}" if "conv_out.weight" in unet else ""


def _download(repository: str, files: list[str]) -> Path:
    # Imported here: it takes long, and a folder needs none of it.
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=files))
    except Exception as error:  # of the network, the hub and the cache, which share no class
        raise FileNotFoundError(
            f"{repository} is not a folder or file here, and the Hugging Face hub did not give it: {error}"
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
