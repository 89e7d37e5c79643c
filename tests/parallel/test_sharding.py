from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, NamedSharding
from jax.sharding import PartitionSpec as P

from elements_jax.parallel import sharding
from elements_jax.parallel.sharding import (
    batch_sharding,
    local_rows,
    make_mesh,
    partition_spec,
    place_on_mesh,
    replicated,
    shardings,
)


@pytest.mark.parametrize(
    ("shape", "fsdp", "expected"),
    [
        ((), 4, P()),
        ((320,), 4, P()),  # small
        ((255, 257), 4, P()),  # small, and divisible nowhere
        ((320, 1280), 4, P(None, "fsdp")),
        ((3, 3, 640, 320), 8, P(None, None, "fsdp", None)),
        ((1281, 640), 8, P(None, "fsdp")),  # the largest axis does not divide
        ((512, 512), 2, P("fsdp", None)),
        ((320, 1280), 1, P()),
    ],
)
def test_the_largest_divisible_axis_is_split(shape, fsdp, expected):
    assert partition_spec("w", shape, fsdp) == expected


def test_names_every_leaf_that_cannot_be_sharded():
    mesh = AbstractMesh((1, 8), ("data", "fsdp"))
    tree = {"good": jnp.zeros((512, 512)), "odd": {"a": jnp.zeros((511, 513)), "b": jnp.zeros((999, 101))}}
    with pytest.raises(ValueError, match="fsdp=8") as error:
        shardings(tree, mesh)
    assert "['odd']['a'] [511, 513]" in str(error.value)
    assert "['odd']['b'] [999, 101]" in str(error.value)
    assert "good" not in str(error.value)
    del tree["odd"]
    assert shardings(tree, mesh) == {"good": NamedSharding(mesh, P("fsdp", None))}


def test_a_mesh_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="data_parallel=3 x fsdp=5 does not fit 1 devices"):
        make_mesh(3, 5)
    assert make_mesh(-1, 1).shape == make_mesh(1, -1).shape == {"data": 1, "fsdp": 1}


def test_a_host_reads_the_rows_of_its_devices(monkeypatch):
    batch = batch_sharding(make_mesh(1, 1))
    assert local_rows(batch, 3).tolist() == [0, 1, 2]

    def every_other_of_six(self, shape):
        return {device: (slice(device * shape[0] // 6, (device + 1) * shape[0] // 6),) for device in (4, 0, 2)}

    monkeypatch.setattr(NamedSharding, "addressable_devices_indices_map", every_other_of_six)
    assert local_rows(batch, 12).tolist() == [0, 1, 4, 5, 8, 9]


def test_arrays_are_laid_out_as_asked():
    mesh = make_mesh(1, 1)
    tree = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": jnp.ones(3)}
    laid_out = place_on_mesh(tree, replicated(mesh))
    assert {leaf.sharding for leaf in laid_out.values()} == {replicated(mesh)}
    jax.tree.map(np.testing.assert_array_equal, laid_out, tree)


@pytest.mark.parametrize("bundle", [1, 2**23])
def test_gather_is_complete_and_scatter_is_the_mean(bundle, monkeypatch):
    monkeypatch.setattr(sharding, "BUNDLE_BYTES", bundle)
    mesh = make_mesh(1, 1)
    rng = np.random.default_rng(0)
    tree = {name: rng.random(shape, np.float32) for name, shape in (("a", (4, 6)), ("b", (4, 6)), ("c", (3,)))}
    layout = {"a": P(None, "fsdp"), "b": P("fsdp", None), "c": P()}

    @partial(jax.shard_map, mesh=mesh, in_specs=(layout,), out_specs=layout, check_vma=False)
    def there_and_back(tree):
        whole = sharding.all_gather_params(tree, layout)
        return sharding.reduce_scatter_grads(jax.tree.map(lambda leaf: (2 * leaf).astype(jnp.bfloat16), whole), layout)

    found = there_and_back(tree)
    for name, leaf in tree.items():
        assert found[name].dtype == jnp.float32
        np.testing.assert_array_equal(found[name], (2 * leaf).astype(jnp.bfloat16).astype(np.float32))
