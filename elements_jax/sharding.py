"""How arrays lie on the devices: by rule from name and shape; models know nothing of it."""

import math
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

Tree = Any

SMALL = 2**16
"""Leaves with fewer numbers than this are held whole by every device: splitting them would cost more than it saves."""


def make_mesh(data: int, fsdp: int) -> Mesh:
    """A mesh ("data", "fsdp") over all devices; one size may be -1, which takes the rest."""
    devices = jax.device_count()
    if data == -1:
        data = devices // fsdp
    elif fsdp == -1:
        fsdp = devices // data
    if data * fsdp != devices or data < 1:
        raise ValueError(f"a mesh of data_parallel={data} x fsdp={fsdp} does not fit {devices} devices")
    return jax.make_mesh((data, fsdp), ("data", "fsdp"), (AxisType.Auto,) * 2)


def over_batch(mesh: Mesh) -> NamedSharding:
    """Examples split over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def spec(name: str, shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """Split the largest axis that `fsdp` divides; small leaves stay whole.

    Raises ValueError naming a leaf that should be split and cannot.
    """
    if fsdp == 1 or math.prod(shape) < SMALL:
        return PartitionSpec()
    axes = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if not axes:
        raise ValueError(f"{name} {list(shape)}: no axis is divisible by fsdp={fsdp}")
    best = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*("fsdp" if axis == best else None for axis in range(len(shape))))


def shardings(tree: Tree, mesh: Mesh | AbstractMesh) -> Tree:
    """A sharding for every leaf of a tree of arrays or their shapes: parameters, moments and averages alike.

    Raises one ValueError that lists every leaf no rule covers.
    """
    problems = []

    def of_leaf(path, leaf):
        try:
            return NamedSharding(mesh, spec(jax.tree_util.keystr(path), leaf.shape, mesh.shape["fsdp"]))
        except ValueError as error:
            problems.append(str(error))

    found = jax.tree_util.tree_map_with_path(of_leaf, tree)
    if problems:
        raise ValueError("no sharding for:\n  " + "\n  ".join(problems))
    return found
