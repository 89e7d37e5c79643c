"""The losses of Table 2's baselines: discriminator and weights against PyTorch, and which terms train which player."""

import dataclasses
import itertools
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elements_jax.checkpoints import torch_names
from elements_jax.checkpoints.model_folder import has_network, load_networks, read_config
from elements_jax.cli import train as cli
from elements_jax.models.functional import Functional
from elements_jax.models.networks import Networks
from train.config import VAETrainConfig
from train.input.data import dataset
from train.stage import example_keys, to_float
from train.stages import perceptual
from train.stages.discriminator import PatchDiscriminator, hinge
from train.stages.vae import VAEStage
from train.stages.vae_adversarial import AdversarialVAEStage, adaptive_weight

torch = pytest.importorskip("torch")
nn = torch.nn

SHARED = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "warmup": 1, "sample_count": 2}
ADVERSARIAL = VAETrainConfig(
    **SHARED, adversarial_weight=0.5, adversarial_start=7, discriminator_channels=4, discriminator_levels=2
)


class TorchDiscriminator(nn.Module):
    """PatchGAN as in pix2pix and LDM, with instance norm."""

    def __init__(self, channels: int, levels: int):
        super().__init__()
        widths = [channels * min(2**level, 8) for level in range(levels + 1)]
        self.conv_in = nn.Conv2d(3, channels, 4, 2, 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 4, 1 if after is widths[-1] else 2, 1, bias=False)
            for before, after in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.InstanceNorm2d(width, affine=True) for width in widths[1:])
        self.conv_out = nn.Conv2d(widths[-1], 1, 4, 1, 1)

    def forward(self, x):
        x = nn.functional.leaky_relu(self.conv_in(x), 0.2)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nn.functional.leaky_relu(norm(conv(x)), 0.2)
        return self.conv_out(x)[:, 0]


def discriminator(channels: int, levels: int) -> Functional[PatchDiscriminator]:
    return Functional(lambda rngs: PatchDiscriminator(channels, levels, jnp.dtype("float32"), rngs=rngs))


def nchw(array):
    return torch.from_numpy(np.asarray(array).transpose(0, 3, 1, 2).copy())


def test_the_discriminator_is_pix2pix_s():
    rng = np.random.default_rng(0)
    ours, theirs = discriminator(8, 2), TorchDiscriminator(8, 2)
    params = {name: 0.3 * rng.standard_normal(leaf.shape, np.float32) for name, leaf in ours.shapes().items()}
    tensors = torch_names.to_torch(torch_names.OWN, params)
    theirs.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    image = rng.uniform(-1, 1, (2, 24, 32, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(nchw(image))
    found = jax.jit(ours)(params, jnp.asarray(image))
    assert found.shape == (2, 4, 6)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    sizes = [leaf.size for leaf in discriminator(64, 3).shapes().values()]
    assert sum(sizes) == sum(tensor.numel() for tensor in TorchDiscriminator(64, 3).parameters()) == 2_765_633


def test_the_discriminators_loss_is_the_hinge():
    real, made = np.float32([[[-0.5, 0.5], [2, 3]]]), np.float32([[[-3, -0.5], [0, 1]]])
    expected = 0.5 * (np.mean([1.5, 0.5, 0, 0]) + np.mean([0, 0.5, 1, 2]))
    assert float(hinge(jnp.asarray(real), jnp.asarray(made))) == pytest.approx(expected)


@pytest.mark.parametrize("strength", [1.0, 1e-6])
def test_the_adaptive_weight_is_ldms_of_each_picture(strength):
    rng = np.random.default_rng(1)
    features = rng.standard_normal((3, 6, 5, 4), np.float32)
    kernel = 0.3 * rng.standard_normal((3, 3, 4, 3), np.float32)
    truth = rng.uniform(-1, 1, (3, 6, 5, 3)).astype(np.float32)
    scale = strength * np.float32([1, 2, 3])  # of each image's adversarial loss

    last, expected = nn.Parameter(torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())), []
    for b in range(3):  # calculate_adaptive_weight on a batch of one, for losses that LDM sums over the image
        made = nn.functional.conv2d(nchw(features[b : b + 1]), last, padding=1)
        error = (made - nchw(truth[b : b + 1])).abs().sum()
        adversarial = -(float(scale[b]) * torch.tanh(made)).mean()
        of_error, of_adversarial = (
            torch.autograd.grad(loss, last, retain_graph=True)[0] for loss in (error, adversarial)
        )
        weight = torch.clamp(torch.norm(of_error) / (torch.norm(of_adversarial) + 1e-4), 0.0, 1e4)
        expected.append(float(weight) / truth[b].size)  # for the mean over the image
    assert (np.float32(expected) == np.float32(1e4 / truth[0].size)).all() == (strength < 1)

    picture = jax.lax.conv_general_dilated(features, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    found = jax.jit(adaptive_weight, static_argnums=(2, 3))(
        jnp.asarray(features),
        picture,
        lambda picture: jnp.abs(picture - truth).mean((1, 2, 3)),
        lambda picture: -scale * jnp.tanh(picture).mean((1, 2, 3)),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.fixture(scope="module")
def batch(records):
    with closing(dataset(records, "train", batch_size=4, seed=0, shuffle=False, tokenize=None)) as batches:
        return jax.tree.map(jnp.asarray, next(batches))


@pytest.fixture(scope="module")
def stage(small, tmp_path_factory):
    return AdversarialVAEStage(small, ADVERSARIAL, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def params(stage):
    return stage.init(jax.random.key(0), {})


def gradient(stage):
    def compute(params, batch, step):
        keys = example_keys(jax.random.key(1), 0, batch["index"])
        return jax.value_and_grad(stage.loss, has_aux=True)(params, stage.frozen, batch, keys, jnp.int32(step))

    return jax.jit(compute)


def same(one, other, **tolerance):
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], err_msg=name, **({"rtol": 1e-3, "atol": 1e-6} | tolerance))


def test_each_player_learns_only_from_its_own_terms(small, stage, params, batch, tmp_path):
    compute = gradient(stage)
    (before_loss, _), before = compute(params, batch, 6)
    (loss, figures), both = compute(params, batch, 7)

    # Before the start there is only the VAE's own loss.
    (own_loss, _), own = gradient(VAEStage(small, ADVERSARIAL, tmp_path / "own"))(params["vae"], batch, 7)
    np.testing.assert_allclose(before_loss, own_loss, rtol=1e-6)
    same(before["vae"], own)
    assert all((leaf == 0).all() for leaf in before["discriminator"].values())
    np.testing.assert_allclose(loss, own_loss + 0.5 * figures["generator"] + figures["discriminator"], rtol=1e-5)

    # If the generator's term has no weight, the VAE learns only from its own loss; the discriminator does not change.
    without = AdversarialVAEStage(small, dataclasses.replace(ADVERSARIAL, adversarial_weight=0.0), tmp_path / "without")
    _, lonely = gradient(without)(params, batch, 7)
    same(lonely["vae"], own)
    same(lonely["discriminator"], both["discriminator"])
    kernel = "decoder.conv_out.kernel"
    added = both["vae"][kernel] - own[kernel]
    assert float(jnp.abs(added).max()) > 0.01 * float(jnp.abs(own[kernel]).max())

    # The discriminator's gradient is that of the hinge loss on fixed images.
    keys = example_keys(jax.random.key(1), 0, batch["index"])
    made = jax.jit(stage.reconstruct)(params["vae"], stage.frozen, batch, keys).image
    image = to_float(batch["image"])

    def of_pictures(theirs):
        return hinge(stage.discriminator(theirs, image), stage.discriminator(theirs, made))

    same(jax.jit(jax.grad(of_pictures))(params["discriminator"]), both["discriminator"])


def test_the_loss_is_a_mean_over_examples(stage, params, batch):
    """So it depends neither on the mesh nor on the parts of a batch."""

    def loss(batch):
        return stage.loss(params, stage.frozen, batch, example_keys(jax.random.key(1), 0, batch["index"]), jnp.int32(7))

    halves = [jax.tree.map(lambda leaf, half=half: leaf[half], batch) for half in (slice(0, 2), slice(2, 4))]
    loss = jax.jit(loss)
    parts, whole = [loss(half)[0] for half in halves], loss(batch)[0]
    assert abs(parts[0] - parts[1]) > 1e-4
    np.testing.assert_allclose(whole, np.mean(parts), rtol=1e-5)


class FakeLPIPS:
    """A distance that checks its inputs: images in [0, 1], and its parameters."""

    def __init__(self, net, dtype):
        assert (net, dtype) == ("vgg", jnp.float32)
        self.params = {"scale": jnp.float32(3)}

    @staticmethod
    def network(params, image, truth):
        return params["scale"] * ((image - truth) ** 2).mean((1, 2, 3)) + truth.min((1, 2, 3))


def test_the_distance_is_the_mean_error_and_lpips(small, tmp_path, monkeypatch):
    monkeypatch.setattr(perceptual, "LPIPS", FakeLPIPS)
    rng = np.random.default_rng(0)
    image, made = (rng.uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32) for _ in range(2))
    for changes, expected in (
        ({"reconstruction": "l1"}, np.abs(made - image).mean((1, 2, 3))),
        ({"reconstruction": "l2"}, ((made - image) ** 2).mean((1, 2, 3))),
        (
            {"reconstruction": "l1", "perceptual_weight": 2.0},
            np.abs(made - image).mean((1, 2, 3))
            + 2 * (3 * ((made - image) ** 2).mean((1, 2, 3)) / 4 + (image.min((1, 2, 3)) + 1) / 2),
        ),
    ):
        stage = VAEStage(small, VAETrainConfig(**SHARED, **changes), tmp_path)
        keys = jax.random.split(jax.random.key(0), 2)
        distance = stage.distance(stage.frozen, jnp.asarray(made), jnp.asarray(image), keys)
        np.testing.assert_allclose(distance, expected, rtol=1e-5)
        assert set(stage.frozen) == ({"lpips"} if "perceptual_weight" in changes else set())


def test_a_plain_autoencoder_draws_nothing(small, batch, tmp_path):
    stage = VAEStage(small, VAETrainConfig(**SHARED, kl_weight=0.0), tmp_path)
    params = stage.init(jax.random.key(0), {})
    loss = jax.jit(stage.loss)
    results = [
        loss(params, {}, batch, example_keys(jax.random.key(seed), 0, batch["index"]), jnp.int32(0)) for seed in (1, 2)
    ]
    assert float(results[0][0]) == float(results[1][0])
    assert results[0][1].keys() == {"distance", "psnr"}


@pytest.mark.slow
def test_a_trained_baseline_is_a_model_folder_with_only_a_vae(small, records, tmp_path, monkeypatch):
    monkeypatch.setattr(perceptual, "LPIPS", FakeLPIPS)
    train = dataclasses.replace(ADVERSARIAL, perceptual_weight=1.0, adversarial_start=1)
    assert cli.run("vae", cli.Job(data=(records,), model=tmp_path, train=train, config=small)) == 2
    names = ("vae", "text_encoder", "unet", "encoder", "decoder")
    assert [name for name in names if has_network(tmp_path, name)] == ["vae"]
    config = read_config(tmp_path)
    loaded = load_networks(tmp_path, Networks(config), ["vae"])["vae"]
    assert config.vae.scaling_factor != small.vae.scaling_factor
    assert loaded.keys() == Networks(config).vae.shapes().keys()
