"""MSE, PSNR and SSIM against scikit-image and plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from elements_jax.metrics.image_quality import C1, C2, masked_psnr, masked_ssim, mse, psnr, ssim

TOLERANCE = 1e-5  # float32 against scikit-image's float64
WHOLE, MASKED = jax.jit(ssim), jax.jit(masked_ssim)


@pytest.fixture(scope="module")
def pair() -> tuple[jax.Array, jax.Array]:
    """Four pairs, from noise to nearly the same, with flat areas."""
    rng = np.random.default_rng(0)
    truth = rng.random((4, 40, 28, 3)).astype(np.float32)
    truth[:, 10:25, 5:20] = [0.2, 0.7, 1.0]
    noise = rng.normal(size=truth.shape) * np.array([1, 0.2, 0.05, 0.005])[:, None, None, None]
    return jnp.float32(np.clip(truth + noise, 0, 1)), jnp.asarray(truth)


def skimage_ssim(a: np.ndarray, b: np.ndarray) -> float:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    return structural_similarity(a, b, channel_axis=-1, **options)


def test_agree_with_scikit_image(pair):
    image, truth = pair
    for ours, theirs in (
        (mse, mean_squared_error),
        (psnr, lambda a, b: peak_signal_noise_ratio(b, a, data_range=1)),
        (ssim, skimage_ssim),
    ):
        expected = [theirs(np.float64(a), np.float64(b)) for a, b in zip(image, truth, strict=True)]
        np.testing.assert_allclose(jax.jit(ours)(image, truth), expected, rtol=TOLERANCE, atol=TOLERANCE)


def test_equal_pictures_have_finite_figures(pair):
    _, truth = pair
    np.testing.assert_array_equal(mse(truth, truth), 0)
    np.testing.assert_allclose(psnr(truth, truth), 100)
    np.testing.assert_allclose(ssim(truth, truth), 1, atol=1e-6)


def test_under_a_mask_the_other_pixels_do_not_count(pair):
    image, truth = pair
    mask = jnp.zeros(image.shape[:3], bool).at[:, 3:17, 8:20].set(True)
    masked = {name: metric(image, truth, mask) for name, metric in (("psnr", masked_psnr), ("ssim", masked_ssim))}
    error = (np.float64(image - truth)[:, 3:17, 8:20] ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(masked["psnr"], -10 * np.log10(error), rtol=TOLERANCE)
    elsewhere = jnp.where(mask[..., None], image, 1 - image)
    for name, metric in (("psnr", masked_psnr), ("ssim", masked_ssim)):
        np.testing.assert_array_equal(metric(elsewhere, truth, mask), masked[name])


def test_masked_ssim_uses_only_windows_inside_the_mask(pair):
    image, truth = (np.float64(array[1]) for array in pair)
    mask = np.zeros(image.shape[:2], bool)
    mask[5:12, 0:9] = mask[30:36, 20:28] = True
    mask[7, 4] = False
    values = []
    for y, x in np.argwhere(mask):
        around = np.argwhere(mask)
        around = around[np.abs(around - [y, x]).max(axis=1) <= 5]
        weight = np.exp(-((around - [y, x]) ** 2).sum(axis=1) / (2 * 1.5**2))
        weight /= weight.sum()
        a, b = (picture[around[:, 0], around[:, 1]] for picture in (image, truth))
        mean_a, mean_b = weight @ a, weight @ b
        variances = weight @ (a - mean_a) ** 2 + weight @ (b - mean_b) ** 2
        covariance = weight @ ((a - mean_a) * (b - mean_b))
        luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
        values.append(luminance * (2 * covariance + C2) / (variances + C2))
    found = masked_ssim(jnp.float32(image)[None], jnp.float32(truth)[None], jnp.asarray(mask)[None])
    np.testing.assert_allclose(found, [np.mean(values)], atol=TOLERANCE)


def test_an_empty_mask_gives_no_number(pair):
    image, truth = pair
    nothing = jnp.zeros(image.shape[:3], bool)
    assert np.isnan(masked_psnr(image, truth, nothing)).all()
    assert np.isnan(masked_ssim(image, truth, nothing)).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1))
def test_ssim_is_symmetric_and_bounded(seed, noise):
    rng = np.random.default_rng(seed)
    a, other = jnp.float32(rng.random((2, 1, 16, 16, 3)))
    b = (1 - noise) * a + noise * other
    mask = jnp.asarray(rng.random((1, 16, 16)) < 0.3)
    for metric, rest in ((WHOLE, ()), (MASKED, (mask,))):
        found, mirrored = metric(a, b, *rest), metric(b, a, *rest)
        np.testing.assert_allclose(found, mirrored, atol=1e-6)
        assert -1 - 1e-5 <= float(found[0]) <= 1 + 1e-5


def test_pictures_smaller_than_a_window_are_refused():
    small = jnp.zeros((1, 10, 16, 3))
    with pytest.raises(ValueError, match=r"SSIM needs images of at least 11 px per side, got \(10, 16\)"):
        ssim(small, small)
