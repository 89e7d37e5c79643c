"""The records that `partition` writes, read back by TensorFlow Datasets."""

import json

import numpy as np
import pytest

from elements_jax.data.record import DROPPED, Record
from elements_jax.data.tfds_metadata import write_metadata
from elements_jax.data.tfrecord import shard_path, write_tfrecord

CACHED = {"latent_mean": (2, 3, 4), "latent_logvar": (2, 3, 4), "text": (5, 6)}


def _record(number: int, masks: int) -> Record:
    rng = np.random.default_rng(number)
    height, width = 20 + number, 24
    label_map = rng.integers(0, 300, (height, width)).astype(np.uint16)
    label_map[0, 0] = DROPPED
    return Record(
        image=rng.integers(0, 256, (height, width, 3)).astype(np.uint8),
        label_map=label_map,
        caption=f"a crêpe, number {number}",
        object_masks=rng.random((masks, height, width)) < 0.5,
        source_id=f"photos/{number}.png",
        settings={"num_elements": 300, "beta": 64.0},
        cached={name: rng.standard_normal(np.prod(shape)).astype(np.float16) for name, shape in CACHED.items()},
    )


SPLITS = {"train": [[_record(0, 2), _record(1, 0)], [_record(2, 1)]], "val": [[_record(3, 3)]]}
"""Records of each shard of each split."""


@pytest.fixture
def folder(tmp_path):
    for split, shards in SPLITS.items():
        for number, records in enumerate(shards):
            path = shard_path(tmp_path, split, number, len(shards))
            write_tfrecord(path, (record.to_example("png") for record in records))
    write_metadata(tmp_path, CACHED)
    return tmp_path


def test_tensorflow_datasets_reads_every_field_back(folder):
    pytest.importorskip("tensorflow")
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(folder)
    assert {name: split.shard_lengths for name, split in builder.info.splits.items()} == {"train": [2, 1], "val": [1]}
    for split, shards in SPLITS.items():
        read = list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)))
        written = [record for records in shards for record in records]
        assert len(read) == len(written)
        for example, record in zip(read, written, strict=True):
            np.testing.assert_array_equal(example["image"], record.image)
            np.testing.assert_array_equal(example["label_map"][..., 0], record.label_map)
            assert example["label_map"].dtype == np.uint16
            assert example["object_masks"].shape[0] == len(record.object_masks)
            if len(record.object_masks):
                np.testing.assert_array_equal(example["object_masks"][..., 0], 255 * record.object_masks)
            assert example["caption"].decode() == record.caption
            assert example["source_id"].decode() == record.source_id
            assert json.loads(example["settings"]) == record.settings
            for name, shape in CACHED.items():
                np.testing.assert_array_equal(example[name], record.cached[name].reshape(shape))
                assert example[name].dtype == np.float16


def test_features_match_tensorflow_datasets(folder):
    features = pytest.importorskip("tensorflow_datasets").features
    picture = {"encoding_format": "png"}
    expected = features.FeaturesDict(
        {
            "image": features.Image(shape=(None, None, 3)),
            "label_map": features.Image(shape=(None, None, 1), dtype=np.uint16, **picture),
            "caption": features.Text(),
            "object_masks": features.Sequence(features.Image(shape=(None, None, 1), dtype=np.uint8, **picture)),
            "source_id": features.Text(),
            "settings": features.Text(),
            **{
                name: features.Tensor(shape=shape, dtype=np.float16, encoding="bytes") for name, shape in CACHED.items()
            },
        }
    )
    assert json.loads((folder / "features.json").read_text()) == expected.to_json()


def test_uncached_records_have_no_cached_features(folder):
    write_metadata(folder)
    described = json.loads((folder / "features.json").read_text())["content"]["features"]
    assert set(described) == {"image", "label_map", "caption", "object_masks", "source_id", "settings"}


def test_a_folder_without_shards_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}: no shards"):
        write_metadata(tmp_path)


def test_a_missing_shard_is_named(folder):
    shard_path(folder, "train", 0, 2).unlink()
    with pytest.raises(ValueError, match=r"split 'train' must have 2 shards.*train.tfrecord-00000-of-00002"):
        write_metadata(folder)
