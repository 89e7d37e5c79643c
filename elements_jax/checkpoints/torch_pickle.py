"""Reads PyTorch's `.pth` files of tensors without PyTorch, and without running code from the pickle.

Such a file is a pickle that refers to storages, plus the storages: in a zip archive, or, in files older than PyTorch
1.6, one after another behind the pickle.
"""

import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from elements_jax.data.atomic import require_regular

_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def read_pth(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a state dict by name. Raises OSError, or ValueError if the file holds anything else."""
    require_regular(path, math.inf)
    with path.open("rb") as file:
        try:
            tensors = _read_zip(file) if zipfile.is_zipfile(file) else _read_old(file)
        except Exception as error:  # a damaged pickle can raise anything
            raise ValueError(f"{path}: not a PyTorch file of tensors, or damaged: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, np.ndarray) for value in tensors.values()):
        raise ValueError(f"{path}: expected tensors by name, as `torch.save(module.state_dict(), path)` writes them")
    return dict(tensors)


def _read_zip(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        pickled = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")

        def storage(dtype: np.dtype, key: str, count: int) -> np.ndarray:
            return np.frombuffer(archive.read(f"{folder}data/{key}"), dtype, count)

        with archive.open(pickled) as data:
            return _Unpickler(data, storage).load()


def _read_old(file: BinaryIO) -> Any:
    length = file.seek(0, 2)
    file.seek(0)
    storages: dict[str, np.ndarray] = {}

    def storage(dtype: np.dtype, key: str, count: int) -> np.ndarray:
        """Allocate a storage. It is filled later: the numbers follow the pickle."""
        if not 0 <= count * dtype.itemsize <= length:
            raise ValueError(f"{count} numbers do not fit in the file")
        return storages.setdefault(key, np.zeros(count, dtype))

    magic, _, system, tensors, keys = (_Unpickler(file, storage).load() for _ in range(5))
    if magic != _OLD_MAGIC or not system["little_endian"]:
        raise ValueError("unknown format")
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        target = storages[key]
        if count != target.size or len(data := file.read(target.nbytes)) != target.nbytes:
            raise ValueError("the file is cut short")
        target[:] = np.frombuffer(data, target.dtype)
    return tensors


class _Unpickler(pickle.Unpickler):
    """Accepts only tensors, their storages, and the dict that holds them."""

    def __init__(self, file: Any, storage: Callable[[np.dtype, str, int], np.ndarray]):
        super().__init__(file)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _DTYPES:
            return np.dtype(_DTYPES[name])
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, _, count, *view = pid
        if view and view[0] is not None:
            raise ValueError("views of storages are not supported")
        return self._storage(dtype, key, count)


def _tensor(storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> np.ndarray:
    """Return a view of a storage. Strides are checked, so that no file can make us read beyond its end."""
    if min((offset, *shape, *strides)) < 0 or len(shape) != len(strides):
        raise ValueError(f"not a tensor: shape {shape}, strides {strides}, offset {offset}")
    if 0 not in shape:
        last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
        if last >= storage.size:
            raise ValueError(f"a tensor of shape {shape} reaches beyond its {storage.size} numbers")
    steps = tuple(stride * storage.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
