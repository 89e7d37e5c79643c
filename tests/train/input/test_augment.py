"""Mirrored and cropped examples."""

from contextlib import closing

import numpy as np
import pytest

from train.config import AutoencoderTrainConfig, DiffusionTrainConfig
from train.input.augment import Augmentation
from train.input.data import dataset

SIDE = 32
SHARED = {"steps": 1, "batch_size": 2, "learning_rate": 1.0}


def gradient() -> dict[str, np.ndarray]:
    """Return an example whose image encodes each pixel's place, which determines its label and mask."""
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.stack([4 * x + 60, 4 * y + 60, 0 * x], axis=-1).astype(np.uint8)
    return {
        "image": image,
        "label_map": (y // 8 * 4 + x // 8).astype(np.uint16),
        "object_mask": (x < 12) & (y > 20),
        "index": np.int32(3),
    }


def test_half_of_the_examples_are_mirrored_completely():
    example, mirrored = gradient(), 0
    for seed in range(400):
        changed = Augmentation(flip=True)(example, np.random.default_rng(seed))
        turn = changed["image"][0, 0, 0] > changed["image"][0, -1, 0]
        mirrored += turn
        for name in ("image", "label_map", "object_mask"):
            np.testing.assert_array_equal(changed[name], example[name][:, ::-1] if turn else example[name])
        assert changed["index"] == 3
    assert abs(mirrored - 200) < 4 * 10  # four standard deviations


@pytest.mark.parametrize("flip", [True, False])
def test_a_crop_shows_the_same_place_in_image_labels_and_mask(flip):
    example, scales = gradient(), []
    for seed in range(50):
        changed = Augmentation(flip, 0.5)(example, np.random.default_rng(seed))
        assert {name: (array.shape, array.dtype) for name, array in changed.items()} == {
            name: (array.shape, array.dtype) for name, array in example.items()
        }
        x, y = ((changed["image"][..., channel] - 60.0) / 4 for channel in (0, 1))  # each pixel's place in the original
        scales.append((x.max() - x.min()) / (SIDE - 1))
        away = (np.abs((x + 0.5) % 8 - 4) < 3) & (np.abs((y + 0.5) % 8 - 4) < 3)  # from the borders of labels
        labels = (y + 0.5).astype(int) // 8 * 4 + (x + 0.5).astype(int) // 8
        np.testing.assert_array_equal(changed["label_map"][away], labels[away])
        clear = (np.abs(x - 11.5) > 1) & (np.abs(y - 20.5) > 1)
        np.testing.assert_array_equal(changed["object_mask"][clear], ((x < 11.5) & (y > 20.5))[clear])
    assert 0.45 < min(scales) < 0.6
    assert 0.9 < max(scales) <= 1.0


def test_augmentation_depends_only_on_seed_and_position(records):
    options = {"batch_size": 4, "seed": 5, "shuffle": True, "tokenize": None, "augmentation": Augmentation(True, 0.8)}
    with (
        closing(dataset(records, "train", **options)) as whole,
        closing(dataset(records, "train", **options, start=4, rows=np.array([1, 3]), in_memory=True)) as part,
        closing(dataset(records, "train", **options | {"augmentation": None})) as plain,
    ):
        expected, same = [next(whole) for _ in range(8)], 0
        for batch in expected:
            same += sum(map(np.array_equal, batch["image"], next(plain)["image"]))
        assert same < 2  # of 32
        for batch in expected[1:]:
            found = next(part)
            for name, array in batch.items():
                np.testing.assert_array_equal(found[name], array[[1, 3]])


def test_cached_latents_are_of_images_as_they_are():
    for change in ({"flip": True}, {"crop": 0.9}):
        with pytest.raises(ValueError, match="cached must not be combined with flip or crop"):
            DiffusionTrainConfig(**SHARED, cached=True, **change)
    with pytest.raises(ValueError, match=r"crop must be above 0 and at most 1, got 1.5"):
        AutoencoderTrainConfig(**SHARED, crop=1.5)


def test_the_largest_crop_is_the_image():
    example = gradient()
    changed = Augmentation(crop=1.0)(example, np.random.default_rng(0))
    for name, array in example.items():
        np.testing.assert_array_equal(changed[name], array)
