"""Sharding rules: parameter name and shape -> PartitionSpec. Models are independent of them."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

Tree = Any
T = TypeVar("T")

MIN_SHARDED_SIZE = 2**16
"""Leaves with fewer numbers are replicated on every device: splitting them would cost more than it saves."""


BUNDLE_BYTES = 2**23
"""Approximate bytes per device and message: enough to make its latency negligible, and few enough to overlap with
computation."""


def make_mesh(data: int, fsdp: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Make a mesh ("data", "fsdp") over all devices, or the given ones; one size may be -1 for the rest."""
    count = jax.device_count() if devices is None else len(devices)
    if data == -1:
        data = count // fsdp
    elif fsdp == -1:
        fsdp = count // data
    if data * fsdp != count or data < 1:
        raise ValueError(f"a mesh of data_parallel={data} x fsdp={fsdp} does not fit {count} devices")
    # Neighbours on the chips' torus if possible; two rows of a 4 x 4 slice make an fsdp of 8.
    placed = mesh_utils.create_device_mesh((data, fsdp), devices, allow_split_physical_axes=True)
    return Mesh(placed, ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding that splits examples over all devices."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding that replicates on every device."""
    return NamedSharding(mesh, PartitionSpec())


def local_rows(batch: NamedSharding, size: int) -> np.ndarray:
    """Return the rows of a batch of `size` on this host's devices, in the order in which it passes them to JAX."""
    own = np.zeros(size, bool)
    for rows in batch.addressable_devices_indices_map((size,)).values():
        own[rows] = True
    return np.flatnonzero(own)


def place_on_mesh(tree: Tree, layout: Tree) -> Tree:
    """Shard arrays that every host holds completely; `layout` is a sharding or a tree of shardings.

    `jax.device_put` would first send all of them to every host, to check that they are equal.
    """

    def of_leaf(leaf: Any, sharding: NamedSharding) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(of_leaf, tree, jax.tree.broadcast(layout, tree))


def shard_over_batch(function: Callable[..., Tree], mesh: Mesh) -> Callable[..., Tree]:
    """Run `function(shared, batch, **static)` on a mesh: each device computes its part of the batch independently.

    The leaves of `batch` and of the result have a leading axis of examples, a multiple of the number of devices;
    `shared` is replicated. If sharding were left to the compiler, joint guidance would make devices wait for each other
    in every sampling step. Here each runs a single-device program: the bits do not depend on the number of devices, for
    equally many examples per device.
    """
    whole, divided = replicated(mesh).spec, batch_sharding(mesh).spec

    def split(shared: Tree, batch: Tree, **static: Any) -> Tree:
        # The check concerns values that differ between devices, which the samplers' loops would have to declare.
        part = jax.shard_map(
            partial(function, **static), mesh=mesh, in_specs=(whole, divided), out_specs=divided, check_vma=False
        )
        return part(shared, batch)

    return split


def pad_batch(items: Sequence[T], size: int) -> list[T]:
    """Pad to a full batch with copies of the last item, so that only one batch size is compiled."""
    return [*items, *[items[-1]] * (size - len(items))]


def all_gather_params(tree: Tree, partition_specs: Tree) -> Tree:
    """Inside `shard_map`, gather complete arrays from the devices' parts, split as `partition_specs` say."""

    def move(stack: jax.Array, axis: int) -> jax.Array:
        return lax.all_gather(stack, "fsdp", axis=axis, tiled=True)

    return _in_bundles(move, tree, partition_specs, parts=1)


def reduce_scatter_grads(tree: Tree, partition_specs: Tree) -> Tree:
    """Inside `shard_map`, return this device's part of the mean of all devices' complete arrays, summed in float32."""

    def move(stack: jax.Array, axis: int) -> jax.Array:
        return lax.psum_scatter(stack.astype(jnp.float32), "fsdp", scatter_dimension=axis, tiled=True)

    def mean(part: jax.Array, partition_spec: PartitionSpec) -> jax.Array:
        if _split_axis(partition_spec) is None:
            return lax.pmean(part.astype(jnp.float32), ("data", "fsdp"))
        return lax.pmean(part, "data") / lax.axis_size("fsdp")

    return jax.tree.map(mean, _in_bundles(move, tree, partition_specs, parts=lax.axis_size("fsdp")), partition_specs)


def _in_bundles(move: Callable[[jax.Array, int], jax.Array], tree: Tree, partition_specs: Tree, parts: int) -> Tree:
    """Apply `move(stack, axis)` to split arrays, stacked by equal shape and layout, each in as many `parts`.

    Stable Diffusion's UNet has 334 large parameters of 40 shapes; one message for each would be mostly latency.
    """
    leaves, structure = jax.tree.flatten(tree)
    alike: dict[tuple, list[int]] = {}
    for index, (leaf, partition_spec) in enumerate(zip(leaves, jax.tree.leaves(partition_specs), strict=True)):
        if (axis := _split_axis(partition_spec)) is not None:
            alike.setdefault((leaf.shape, leaf.dtype, axis), []).append(index)
    for (_, _, axis), indices in alike.items():
        size = max(1, BUNDLE_BYTES * parts // leaves[indices[0]].nbytes)
        for bundle in (indices[start : start + size] for start in range(0, len(indices), size)):
            moved = move(jnp.stack([leaves[index] for index in bundle]), axis + 1)
            for index, leaf in zip(bundle, moved, strict=True):
                leaves[index] = leaf
    return jax.tree.unflatten(structure, leaves)


def _split_axis(partition_spec: PartitionSpec) -> int | None:
    return next((axis for axis, name in enumerate(partition_spec) if name == "fsdp"), None)


def partition_spec(name: str, shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """Split the largest axis divisible by `fsdp`; small leaves are replicated.

    Raises ValueError that names a leaf that should be split but cannot.
    """
    if fsdp == 1 or math.prod(shape) < MIN_SHARDED_SIZE:
        return PartitionSpec()
    axes = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    if not axes:
        raise ValueError(f"{name} {list(shape)}: no axis is divisible by fsdp={fsdp}")
    best = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*("fsdp" if axis == best else None for axis in range(len(shape))))


def partition_specs(tree: Tree, mesh: Mesh | AbstractMesh) -> Tree:
    """Return the spec of every leaf of a tree of arrays or shapes: parameters, moments and averages alike.

    Raises one ValueError that lists every leaf without a rule.
    """
    problems = []

    def of_leaf(path, leaf):
        try:
            return partition_spec(jax.tree_util.keystr(path), leaf.shape, mesh.shape["fsdp"])
        except ValueError as error:
            problems.append(str(error))

    found = jax.tree_util.tree_map_with_path(of_leaf, tree)
    if problems:
        raise ValueError("no sharding for:\n  " + "\n  ".join(problems))
    return found


def shardings(tree: Tree, mesh: Mesh | AbstractMesh) -> Tree:
    """Return `partition_specs` as shardings on a mesh, with the same errors."""
    return jax.tree.map(lambda found: NamedSharding(mesh, found), partition_specs(tree, mesh))
