"""How arrays lie on the devices: by rule from name and shape; models know nothing of it."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

Tree = Any

SMALL = 2**16
"""Leaves with fewer numbers than this are held whole by every device: splitting them would cost more than it saves."""


def make_mesh(data: int, fsdp: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh ("data", "fsdp") over all devices, or over those given; one size may be -1, which takes the rest."""
    count = jax.device_count() if devices is None else len(devices)
    if data == -1:
        data = count // fsdp
    elif fsdp == -1:
        fsdp = count // data
    if data * fsdp != count or data < 1:
        raise ValueError(f"a mesh of data_parallel={data} x fsdp={fsdp} does not fit {count} devices")
    return jax.make_mesh((data, fsdp), ("data", "fsdp"), (AxisType.Auto,) * 2, devices=devices)


def over_batch(mesh: Mesh) -> NamedSharding:
    """Examples split over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(function: Callable[..., Tree], mesh: Mesh) -> Callable[..., Tree]:
    """`function(shared, batch, **static)`, of which every device of a mesh computes its part of the batch by itself.

    The leaves of `batch`, and of what is returned, have an axis of examples first, which the number of devices must
    divide; `shared` is whole on every device. Left to the compiler, joint guidance alone would make devices wait for
    each other in every step of sampling. Each runs the program of a single device here: the bits are the same on one
    device or many, if each has as many examples.
    """
    specs = replicated(mesh).spec, over_batch(mesh).spec

    def split(shared: Tree, batch: Tree, **static: Any) -> Tree:
        # The check is of what differs between devices, which the samplers' loops would have to declare.
        part = jax.shard_map(
            partial(function, **static), mesh=mesh, in_specs=specs, out_specs=specs[1], check_vma=False
        )
        return part(shared, batch)

    return split


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
