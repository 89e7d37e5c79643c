"""Safetensors files: read tensor by tensor, written completely or not at all."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from elements_jax.data.atomic import checksum, new_path


class TensorFiles(Mapping[str, np.ndarray]):
    """The tensors of some safetensors files by name, read from disk on access and not kept.

    Args:
        prefix: selects the names that start with it, and is removed from them.

    Raises ValueError for a file that is damaged or cut short.
    """

    def __init__(self, *paths: Path, prefix: str = ""):
        self._prefix = prefix
        self._path_of = {
            name.removeprefix(prefix): path for path in paths for name in _names(path) if name.startswith(prefix)
        }

    def __getitem__(self, name: str) -> np.ndarray:
        # Opened for each tensor: a file that stays mapped keeps everything read from it in memory.
        with _opened(self._path_of[name]) as file:
            return file.get_tensor(self._prefix + name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._path_of)

    def __len__(self) -> int:
        return len(self._path_of)


class PickledWeights(FileNotFoundError):
    """The parameters exist only as a PyTorch pickle, which can run code and is therefore not read."""


def find_tensors(folder: Path, stem: str) -> list[Path]:
    """Find the files that hold a network's parameters, under the names that diffusers and transformers use.

    These are `STEM.safetensors`, or its parts as `STEM.safetensors.index.json` lists them, in full precision or else
    as "fp16". Raises FileNotFoundError if there are none or a listed part is missing, and PickledWeights if there are
    only .bin files.
    """
    for whole, index in (
        (f"{stem}.safetensors", f"{stem}.safetensors.index.json"),
        (f"{stem}.fp16.safetensors", f"{stem}.safetensors.index.fp16.json"),
    ):
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            try:
                parts = sorted(set(json.loads((folder / index).read_text())["weight_map"].values()))
            except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{folder / index} lists no files of parameters: {error!r}") from error
            if missing := [part for part in parts if not (folder / part).is_file()]:
                raise FileNotFoundError(f"{folder / index} lists files that are missing: {', '.join(missing)}")
            return [folder / part for part in parts]
    if pickled := sorted(folder.glob(f"*{stem}*.bin")):
        raise PickledWeights(
            f"{folder} holds {pickled[0].name}, which can run code and is not read; to convert the model: python -c "
            "\"from diffusers import DiffusionPipeline as P; P.from_pretrained('MODEL').save_pretrained('CONVERTED')\""
        )
    raise FileNotFoundError(f"{folder} holds no {stem}.safetensors")


def save_tensors(files: Mapping[Path, tuple[Mapping[str, np.ndarray], tuple[str, str]]]) -> dict[Path, str]:
    """Write files, each with tensors and one metadata pair, and return their checksums.

    Each path always holds a complete file, old or new; the new ones are renamed into place in this order. Equal tensors
    give equal files. With several metadata pairs they would not, because safetensors does not keep the order of pairs.

    Raises OSError that names the path.
    """
    checksums = {}
    with ExitStack() as written:
        # All are complete before the first is renamed; callbacks run in reverse order.
        paths = {path: written.enter_context(new_path(path)) for path in reversed(list(files))}
        for path, (tensors, (key, value)) in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                paths[path].touch()
                mode = paths[path].stat().st_mode  # safetensors creates files that only the owner may read
                save_file(dict(tensors), paths[path], metadata={key: value})
                paths[path].chmod(mode)
            except SafetensorError as error:  # for example a full disk
                raise OSError(f"{path}: {error}") from error
            checksums[path] = checksum(paths[path])
    return checksums


def read_metadata(path: Path, key: str) -> str | None:
    """Read a file's metadata under this key; None if absent. Raises ValueError if the file is damaged."""
    with _opened(path) as file:
        return (file.metadata() or {}).get(key)


def _names(path: Path) -> list[str]:
    with _opened(path) as file:
        return list(file.keys())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file, or damaged: {error}") from error
