import errno
import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from elements_jax.checkpoints.tensor_files import (
    PickledWeights,
    TensorFiles,
    find_tensors,
    read_metadata,
    save_tensors,
)

PT = ("format", "pt")
TENSORS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.zeros(3, np.float32)}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_tensors_come_back_as_they_were(dtype, tmp_path):
    path = tmp_path / "new" / "net.safetensors"
    tensors = {name: value.astype(dtype) for name, value in TENSORS.items()}
    save_tensors({path: (TENSORS, PT)})
    save_tensors({path: (tensors, PT)})
    assert read_metadata(path, "format") == "pt"
    assert read_metadata(path, "other") is None
    loaded = TensorFiles(path)
    assert loaded.keys() == tensors.keys()
    for name, value in tensors.items():
        assert loaded[name].dtype == dtype
        np.testing.assert_array_equal(loaded[name], value)
    assert [file.name for file in path.parent.iterdir()] == ["net.safetensors"]


def test_a_prefix_selects_and_goes(tmp_path):
    save_file({"vae.a": TENSORS["a.bias"], "vae2.a": TENSORS["a.weight"]}, tmp_path / "all.safetensors")
    tensors = TensorFiles(tmp_path / "all.safetensors", prefix="vae.")
    assert list(tensors) == ["a"]
    np.testing.assert_array_equal(tensors["a"], TENSORS["a.bias"])


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "net.safetensors"
    save_tensors({path: (TENSORS, PT)})
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"net\.safetensors: not a safetensors file, or damaged"):
        TensorFiles(path)


def test_an_interrupted_save_leaves_the_files_before(tmp_path, monkeypatch):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_tensors({first: (TENSORS, PT), second: (TENSORS, PT)})
    before = first.read_bytes(), second.read_bytes()

    def fail(tensors, unfinished, metadata):
        unfinished.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr("elements_jax.checkpoints.tensor_files.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_tensors({first: ({}, PT), second: ({}, PT)})
    assert (first.read_bytes(), second.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("variant", ["", ".fp16"])
def test_the_parts_of_a_network_are_found_by_their_index(variant, tmp_path):
    index = tmp_path / f"net.safetensors.index{variant}.json"
    parts = [f"net{variant}-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict(zip(TENSORS, parts, strict=True))}))
    with pytest.raises(FileNotFoundError, match=rf"lists files that are missing: {parts[0]}, {parts[1]}"):
        find_tensors(tmp_path, "net")
    for name, part in zip(TENSORS, parts, strict=True):
        save_file({name: TENSORS[name]}, tmp_path / part)
    assert find_tensors(tmp_path, "net") == [tmp_path / part for part in parts]
    assert TensorFiles(*find_tensors(tmp_path, "net")).keys() == TENSORS.keys()

    (tmp_path / f"net{variant}.safetensors").touch()
    assert find_tensors(tmp_path, "net") == [tmp_path / f"net{variant}.safetensors"]
    index.write_text("[]")
    (tmp_path / f"net{variant}.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lists no files of parameters"):
        find_tensors(tmp_path, "net")


def test_a_folder_without_parameters_is_named(tmp_path):
    (tmp_path / "other.bin").touch()
    with pytest.raises(FileNotFoundError, match=r"holds no net\.safetensors"):
        find_tensors(tmp_path, "net")


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("diffusion_pytorch_model", "diffusion_pytorch_model.bin"),
        ("diffusion_pytorch_model", "diffusion_pytorch_model.fp16.bin"),
        ("diffusion_pytorch_model", "diffusion_pytorch_model-00001-of-00002.bin"),
        ("model", "pytorch_model.bin"),
    ],
)
def test_pickled_parameters_name_the_converter(tmp_path, stem, name):
    (tmp_path / name).touch()
    with pytest.raises(PickledWeights, match=rf"holds {name}, which can run code.*save_pretrained\('CONVERTED'\)"):
        find_tensors(tmp_path, stem)


def test_files_get_the_usual_permissions(tmp_path):
    (tmp_path / "other").touch()
    save_tensors({tmp_path / "a.safetensors": ({"w": np.zeros(2, np.float32)}, ("format", "pt"))})
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
