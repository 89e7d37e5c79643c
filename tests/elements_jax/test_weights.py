import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from elements_jax.weights import load_params, save_params

PARAMS = {"a.kernel": jnp.arange(6.0).reshape(2, 3), "a.bias": jnp.zeros(3), "b": jnp.float32(7)}
SHAPES = jax.eval_shape(lambda: PARAMS)


def test_parameters_come_back_as_they_were(tmp_path):
    path = tmp_path / "net.safetensors"
    save_params(path, PARAMS | {"a.kernel": PARAMS["a.kernel"] + 1})
    save_params(path, PARAMS)
    loaded = load_params(path, SHAPES)
    assert loaded.keys() == PARAMS.keys()
    for name, value in PARAMS.items():
        np.testing.assert_array_equal(loaded[name], value)
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]


def test_one_error_lists_all_that_does_not_fit(tmp_path):
    path = tmp_path / "net.safetensors"
    wrong = {"a.kernel": np.zeros((3, 2), np.float32), "b": np.array(7.0), "c": np.zeros(1, np.float32)}
    save_file(wrong, path)
    with pytest.raises(ValueError, match=r"net\.safetensors does not fit the model") as error:
        load_params(path, SHAPES)
    assert str(error.value).splitlines()[1:] == [
        "  missing: a.bias",
        "  unknown: c",
        "  expected float32[2, 3], found float32[3, 2]: a.kernel",
        "  expected float32[], found float64[]: b",
    ]


def test_a_file_that_is_missing_or_damaged_is_named(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(FileNotFoundError, match=r"net\.safetensors"):
        load_params(path, SHAPES)
    save_params(path, PARAMS)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"net\.safetensors: not a safetensors file, or damaged"):
        load_params(path, SHAPES)


def test_an_interrupted_save_leaves_the_file_before(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    save_params(path, PARAMS)
    before = path.read_bytes()

    def fail(tensors, unfinished):
        unfinished.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("elements_jax.weights.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_params(path, PARAMS)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
