"""FID's parts: Inception against pytorch-fid's, resizing against clean-fid's, the distance against both."""

import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import lpips
import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from cleanfid.resize import build_resizer
from pytorch_fid import inception as theirs
from pytorch_fid.fid_score import calculate_frechet_distance

from elements_jax.checkpoints.torch_pickle import read_pth
from elements_jax.metrics.fid import Moments, Statistics, extractor, frechet_distance, resized
from elements_jax.metrics.inception import FEATURES, inception, read_inception

TOLERANCE = 1e-5  # relative error of features in the 2-norm, float32


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """pytorch-fid's network with random weights and statistics that keep its features of order one."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(torchvision.models.Inception3, "load_state_dict", lambda *_, **__: None)
        network = theirs.fid_inception_v3()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_var", "bn.weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.3, generator=generator)
            elif tensor.ndim > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory) -> Path:
    """Its parameters, as in pytorch-fid's file."""
    path = tmp_path_factory.mktemp("inception") / "pt_inception.pth"
    torch.save(network.state_dict(), path)
    return path


def features_of(network: torch.nn.Module, pictures: np.ndarray, monkeypatch) -> np.ndarray:
    """Return pytorch-fid's features of images (B, 299, 299, 3) in [-1, 1]."""
    monkeypatch.setattr(theirs, "fid_inception_v3", lambda: network)
    module = theirs.InceptionV3(resize_input=False, normalize_input=False).eval()
    with torch.no_grad():
        return module(torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()))[0][:, :, 0, 0].numpy()


def test_inception_and_resizing_agree_with_clean_fid(network, weights, monkeypatch):
    """The reference is clean-fid's resizing in Pillow, TensorFlow's scaling of pixels, and pytorch-fid's network."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    pictures[0, :32] = 200
    resize = build_resizer("clean")
    large = np.stack([resize(picture) for picture in pictures])
    expected = features_of(network, ((large - 128) / 128).astype(np.float32), monkeypatch)
    found = jax.jit(lambda extract, image: extract(image))(extractor(weights), jnp.asarray(pictures))
    assert 0.01 < np.std(expected) < 100
    assert found.shape == (2, FEATURES)
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < TOLERANCE


@pytest.mark.parametrize("shape", [(64, 64), (512, 512), (299, 299), (700, 400)])
def test_resizing_is_pillows_without_rounding(shape):
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    picture[: shape[0] // 2] = np.where(np.arange(shape[1])[:, None] % 32 < 16, 0, 255)
    expected = build_resizer("clean")(picture)
    np.testing.assert_allclose(resized(jnp.asarray(picture)[None])[0], expected, rtol=0, atol=2e-4)  # of 255


def test_weights_are_read_from_every_form_of_their_file(network, weights, tmp_path):
    expected = read_inception(weights)
    torch.save(network.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "new.safetensors")
    assert expected.keys() == inception().shapes().keys()
    for name in ("old.pth", "new.safetensors"):
        found = read_inception(tmp_path / name)
        assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_weights_that_do_not_fit_are_named(network, tmp_path):
    tensors = network.state_dict()
    del tensors["Mixed_6b.branch7x7dbl_4.bn.running_var"]
    tensors["Mixed_7c.branch3x3_2a.conv.weight"] = torch.zeros(1, 2, 3)
    path = tmp_path / "odd.pth"
    torch.save(tensors, path)
    with pytest.raises(ValueError, match=r"odd\.pth: the checkpoint does not fit the network") as error:
        read_inception(path)
    assert "missing: Mixed_6b.branch7x7dbl_4.bn.running_var" in str(error.value)
    assert "found (1, 2, 3): Mixed_7c.branch3x3_2a.conv.weight" in str(error.value)


def test_tensors_are_read_as_pytorch_reads_them(tmp_path):
    own = Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth"  # written by PyTorch in 2018
    base = torch.arange(24).reshape(4, 6)
    tensors = {
        "view": base[1:, ::2],
        "t": base.T,
        "half": torch.rand(3).half(),
        "scalar": torch.tensor(3),
        "no": base[:0],
    }
    for name, old in (("new.pth", False), ("old.pth", True)):
        torch.save(tensors, tmp_path / name, _use_new_zipfile_serialization=not old)
    for path in (own, tmp_path / "new.pth", tmp_path / "old.pth"):
        expected = torch.load(path, weights_only=True, map_location="cpu")
        found = read_pth(path)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert found[name].dtype == tensor.numpy().dtype
            np.testing.assert_array_equal(found[name], tensor.numpy())


class Malicious:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_a_file_that_asks_for_anything_else_is_refused(tmp_path, capsys):
    path = tmp_path / "odd.pth"
    for content, message in (
        ({"a": Malicious()}, "asks for __builtin__.print"),
        ([torch.zeros(1)], "expected tensors by name"),
        ({"a": 1}, "expected tensors by name"),
    ):
        for zipped in (True, False):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(ValueError, match=message):
                read_pth(path)
    torch.save({"a": torch.zeros(100)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"odd\.pth: not a PyTorch file of tensors, or damaged: the file is cut short"):
        read_pth(path)
    for content in (b"", b"not at all", pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a PyTorch file of tensors, or damaged"):
            read_pth(path)
    assert capsys.readouterr().out == ""


def gathered(features: np.ndarray, batch: int) -> Statistics:
    moments = Moments()
    for start in range(0, len(features), batch):
        moments.add(features[start : start + batch])
    return moments.statistics()


def random_features(seed: int, count: int, dimensions: int = 12) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(count, dimensions)) @ rng.normal(size=(dimensions, dimensions)) + 100).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_statistics_do_not_depend_on_the_batches(batch):
    features = random_features(0, 50)
    found = gathered(features, batch)
    np.testing.assert_allclose(found.mean, features.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-10)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_distance_agrees_with_pytorch_fid():
    one, other = gathered(random_features(0, 60), 16), gathered(random_features(1, 80), 16)
    theirs = calculate_frechet_distance(one.mean, one.covariance, other.mean, other.covariance)
    np.testing.assert_allclose(frechet_distance(one, other), theirs, rtol=1e-9)
    np.testing.assert_allclose(frechet_distance(other, one), theirs, rtol=1e-9)


def test_distance_with_fewer_images_than_features():
    """Covariances are singular; in the space that all deviations span, the distance is the same."""
    a, b = random_features(0, 5, 40).astype(np.float64), random_features(1, 6, 40).astype(np.float64)
    basis = np.linalg.qr(np.concatenate([a, b]).T)[0]
    whole = frechet_distance(gathered(a, 8), gathered(b, 8))
    within = frechet_distance(gathered(a @ basis, 8), gathered(b @ basis, 8))
    np.testing.assert_allclose(whole, within, rtol=1e-6)
    assert abs(frechet_distance(gathered(a, 8), gathered(a, 8))) < 1e-4 * np.trace(gathered(a, 8).covariance)


def test_distance_between_diagonal_normals_matches_closed_form():
    one = Statistics(np.zeros(3), np.diag([1.0, 4.0, 9.0]), 10)
    other = Statistics(np.array([1.0, 2.0, 2.0]), np.diag([4.0, 4.0, 1.0]), 10)
    np.testing.assert_allclose(frechet_distance(one, other), 9 + 1 + 0 + 4, rtol=1e-12)


def test_statistics_are_saved_and_read_as_other_programs_do(tmp_path):
    path = tmp_path / "new" / "statistics.npz"
    moments = Moments()
    moments.add(random_features(0, 4, FEATURES))
    moments.statistics().save(path)
    found = Statistics.load(path)
    assert found.count == 4
    np.testing.assert_array_equal(found.covariance, moments.statistics().covariance)
    np.savez(path, mu=found.mean, sigma=found.covariance)  # pytorch-fid's layout
    assert Statistics.load(path).count is None
    np.savez(path, mu=np.zeros(3), sigma=np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"expected mu and sigma of 2048 features, got \(3,\)"):
        Statistics.load(path)
    for content in (b"", b"not at all", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="expected statistics for FID"):
            Statistics.load(path)
    with pytest.raises(ValueError, match="at least 2 images"):
        Moments().statistics()


def test_distance_of_equal_images_is_zero_and_never_negative():
    features = np.random.default_rng(0).standard_normal((40, 64))
    moments = Moments()
    moments.add(features)
    distance = frechet_distance(moments.statistics(), moments.statistics())
    assert 0 <= distance < 1e-6
    assert f"{distance:.2f}" == "0.00"
