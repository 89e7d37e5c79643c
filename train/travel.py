"""A run in one small file, to resume on another machine: `--train.travel` writes it, `--resume FILE` reads it.

Parameters and their averages are kept as float16, whose relative error is at most 2**-11; the optimiser's moments, if
they fit, as bfloat16 (2**-8), since squares of gradients are below float16's range. Everything else is exact: steps,
the place in the data, the settings. A run resumed from this file is not identical bit for bit; without moments, the
optimiser starts them from zero.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import jax
import ml_dtypes
import numpy as np
import optax

from elements_jax.checkpoints.tensor_files import TensorFiles, read_metadata, save_tensors
from elements_jax.parallel import hosts, sharding
from elements_jax.typing import Tree
from train.checkpoint import StreamPosition, named, require_same
from train.state import State

FILE = "travel.safetensors"  # in a run's folder
_MOMENTS = np.dtype(ml_dtypes.bfloat16)
_WITH_MOMENTS = (optax.ScaleByAdamState, optax.contrib.MuonState)


class Travel:
    """Writes the file of a run."""

    def __init__(self, run: Path, shapes: State, megabytes: float):
        """Print how large the file will be, and whether it holds the optimiser's moments.

        Args:
            shapes: shapes and dtypes of the state.
            megabytes: largest size of the file.

        Raises ValueError if even parameters and averages are larger.
        """
        self._path = run / FILE
        full, least = (_size(_packed_types(shapes, moments)) / 1e6 for moments in (True, False))
        if least > megabytes:
            raise ValueError(f"travel: parameters and averages take {least:.1f} MB, and {megabytes:g} MB are allowed")
        self._moments = full <= megabytes
        size, what = (full, "with") if self._moments else (least, "without")
        print(f"{self._path} will take {size:.1f} MB at every checkpoint, {what} the optimiser's moments", flush=True)

    def write(self, state: State, place: StreamPosition) -> None:
        """Replace the file; all hosts must call it.

        Raises ValueError naming a parameter that does not fit into float16.
        """
        types = _packed_types(state, self._moments)
        arrays = {name: leaf for name, leaf in named(hosts.fetch_to_host(state)).items() if name in types}
        if not hosts.is_main_process():
            return
        with np.errstate(over="ignore"):
            packed = {name: np.asarray(leaf).astype(types[name].dtype) for name, leaf in arrays.items()}
        if odd := [name for name, array in packed.items() if not np.isfinite(array.astype(np.float32)).all()]:
            raise ValueError(f"{self._path}: not finite in {packed[odd[0]].dtype}: {', '.join(odd[:5])}")
        place = place | {"checksum": _checksum(place, packed)}
        save_tensors({self._path: (packed, ("place", json.dumps(place)))})


def read(path: Path, like: State, stream: StreamPosition) -> tuple[State, StreamPosition]:
    """Read (state, place) from a file that `Travel` wrote; missing moments are zero.

    Args:
        like: shapes, dtypes and shardings of the state.
        stream: the run's place without its `examples`; the file must have the same records and seed.

    Raises ValueError if it is not such a file, damaged, or of another model, optimiser or data set.
    """
    stored, place = TensorFiles(path), json.loads(read_metadata(path, "place") or "null")
    if not isinstance(place, dict) or "examples" not in place:
        raise ValueError(f"{path}: expected a file that `elements train --train.travel` wrote")
    if place.pop("checksum", None) not in (None, _checksum(place, stored)):  # older files have none
        raise ValueError(f"{path} is damaged: its checksum is wrong; use an older one, or the run's checkpoints")
    shapes = {name: leaf.shape for name, leaf in named(like).items()}
    found = {name: stored[name].shape for name in stored}
    moments = _moments_of(like)
    fresh = {name: shapes[name] for name in moments} if moments.isdisjoint(found) else {}
    require_same(str(path), shapes, found | fresh, stream, place)

    def restored(name: str, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return stored[name].astype(leaf.dtype) if name in found else np.zeros(leaf.shape, leaf.dtype)

    leaves = [restored(name, leaf) for name, leaf in named(like).items()]
    state = jax.tree.unflatten(jax.tree.structure(like), leaves)
    return sharding.place_on_mesh(state, jax.tree.map(lambda leaf: leaf.sharding, like)), place


def _checksum(place: StreamPosition, arrays: Mapping[str, np.ndarray]) -> str:
    """Return the CRC-32C of the file's contents, as eight hexadecimal digits."""
    crc = google_crc32c.Checksum(json.dumps(place, sort_keys=True).encode())
    for name in sorted(arrays):
        crc.update(name.encode() + arrays[name].tobytes())
    return crc.digest().hex()


def _packed_types(state: State, moments: bool) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shape and dtype of every array in the file."""
    of_optimizer = _moments_of(state)

    def packed(name: str, leaf: Any) -> jax.ShapeDtypeStruct:
        if np.issubdtype(leaf.dtype, np.integer):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        if name in of_optimizer:
            return jax.ShapeDtypeStruct(leaf.shape, _MOMENTS)
        halved = name.startswith(("params/", "ema/"))
        return jax.ShapeDtypeStruct(leaf.shape, np.float16 if halved else leaf.dtype)

    return {name: packed(name, leaf) for name, leaf in named(state).items() if moments or name not in of_optimizer}


def _moments_of(state: State) -> set[str]:
    """Return the names of the optimiser's moments, including its own count of steps, by which it corrects them."""

    def marked(node: Any) -> Tree:
        marks = jax.tree.map(lambda _: isinstance(node, _WITH_MOMENTS), node)
        # Muon's coefficients are constants, so they always travel: zeros would stop it.
        return marks._replace(ns_coeffs=False) if isinstance(node, optax.contrib.MuonState) else marks

    marks = jax.tree.map(marked, state, is_leaf=lambda node: isinstance(node, _WITH_MOMENTS))
    return {name for name, mark in named(marks).items() if mark}


def _size(types: dict[str, jax.ShapeDtypeStruct]) -> int:
    return sum(leaf.size * np.dtype(leaf.dtype).itemsize for leaf in types.values())
