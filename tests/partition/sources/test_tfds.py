"""Data sets of TensorFlow Datasets are read in the same way, without it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from elements_jax.data.record import Record
from elements_jax.data.tfds_metadata import write_metadata
from elements_jax.data.tfrecord import write_tfrecord
from partition.sources.plan import plan_shards
from partition.sources.sample import Failure, Sample
from tests.helpers.sources import ids, read


def stored(folder: Path, captions: Sequence[str]) -> Iterator[Record]:
    image = np.zeros((8, 8, 3), np.uint8)
    label_map = np.zeros((8, 8), np.uint16)
    for number, caption in enumerate(captions):
        yield Record(image, label_map, caption, np.zeros((0, 8, 8), bool), f"{number}.png", {"num_elements": 4})


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """A folder that `tfds.builder_from_directory` reads: seven records in three files, and a test split."""
    for split, shard, shards, captions in (
        ("train", 0, 3, "abc"),
        ("train", 1, 3, ""),
        ("train", 2, 3, "defg"),
        ("test", 0, 1, "xy"),
    ):
        path = tmp_path / f"elements-{split}.tfrecord-{shard:05d}-of-{shards:05d}"
        write_tfrecord(path, (record.to_example("png") for record in stored(tmp_path, captions)))
    write_metadata(tmp_path)
    return tmp_path


class TestTfds:
    @pytest.mark.parametrize("size", [1, 2, 5, 100])
    def test_every_example_is_read_in_order_for_any_sharding(self, records: Path, size: int) -> None:
        pytest.importorskip("tensorflow_datasets")
        shards = plan_shards(f"tfds:{records}", size)
        assert [shard.count for shard in shards] == [len(read([shard])) for shard in shards]
        assert max(shard.count or 0 for shard in shards) <= size
        assert shards[0].name == f"elements/train[0:{shards[0].count}]"
        found = read(shards)
        assert ids(found) == [f"elements/train/{number:07d}" for number in range(7)]
        first = next(stored(records, "a"))
        for sample, caption in zip(found, "abcdefg", strict=True):
            assert isinstance(sample, Sample)
            assert sample.caption == caption
            assert sample.encoded.startswith(b"\x89PNG")
            assert sample.metadata.keys() == {"source_id", "settings"}
            assert json.loads(sample.metadata["settings"]) == first.settings

    def test_another_split(self, records: Path) -> None:
        pytest.importorskip("tensorflow_datasets")
        assert ids(read(plan_shards(f"tfds:{records}:test", 5))) == ["elements/test/0000000", "elements/test/0000001"]

    def test_order_and_bytes_match_tensorflow_datasets(self, records: Path) -> None:
        tfds = pytest.importorskip("tensorflow_datasets")
        pytest.importorskip("tensorflow")
        builder = tfds.builder_from_directory(records)
        order = tfds.ReadConfig(interleave_cycle_length=1)
        decoders = {"image": tfds.decode.SkipDecoding()}
        examples = list(tfds.as_numpy(builder.as_dataset("train", decoders=decoders, read_config=order)))
        found = read(plan_shards(f"tfds:{records}", 3))
        for sample, example in zip(found, examples, strict=True):
            assert isinstance(sample, Sample)
            assert sample.encoded == example["image"]
            assert sample.caption.encode() == example["caption"]

    def test_array_records_with_nested_features_and_numbers(self, tmp_path: Path) -> None:
        tfds = pytest.importorskip("tensorflow_datasets")
        from elements_jax.scenes import tfds_builder

        class Few(tfds_builder.Scenes):
            name = "few"
            MAX_EXAMPLES = 3

            def _split_generators(self, dl_manager: object) -> dict:
                return {"test": self._generate_examples(range(3))}

        builder = Few(config="64px", data_dir=tmp_path, file_format="array_record")
        builder.download_and_prepare()
        found = read(plan_shards(f"tfds:{builder.data_dir}:test", 2))
        expected = {example["seed"]: example for example in builder.as_data_source("test")}
        assert ids(found) == [f"few/test/{number:07d}" for number in range(3)]
        assert len(expected) == 3
        for sample in found:
            assert isinstance(sample, Sample)
            assert sample.caption == expected[sample.metadata["seed"]]["caption"].decode()
            decoded = tfds.features.Image().decode_example_np(sample.encoded)
            np.testing.assert_array_equal(decoded, expected[sample.metadata["seed"]]["image"])

    def test_damaged_records_and_damaged_files_fail_separately(self, records: Path) -> None:
        pytest.importorskip("tensorflow_datasets")
        shards = plan_shards(f"tfds:{records}", 100)
        for shard, position in ((0, 100), (2, 3)):  # within the first record's data, and within its length
            path = records / f"elements-train.tfrecord-{shard:05d}-of-00003"
            content = bytearray(path.read_bytes())
            content[position] ^= 255
            path.write_bytes(content)
        found = read(shards)
        assert ids(found) == [
            *(f"elements/train/{number:07d}" for number in range(3)),
            "elements/train[0:7] elements-train.tfrecord-00002-of-00003",
        ]
        reasons = [sample.reason if isinstance(sample, Failure) else "" for sample in found]
        assert "checksum does not match" in reasons[0]
        assert reasons[1:3] == ["", ""]
        assert reasons[3].startswith("none of its 4 examples read")

    def test_errors(self, records: Path) -> None:
        pytest.importorskip("tensorflow_datasets")
        for source, expected in {
            f"tfds:{records}:valid": "there is no split 'valid', but test, train",
            "tfds:no_such_data_set": "neither a prepared folder nor a known data set",
            "tfds:": "expected tfds:NAME",
        }.items():
            with pytest.raises(ValueError, match=expected):
                plan_shards(source, 5)

    def test_a_set_without_images_is_an_error(self, records: Path) -> None:
        pytest.importorskip("tensorflow_datasets")
        features = json.loads((records / "features.json").read_text())
        del features["content"]["features"]["image"]
        (records / "features.json").write_text(json.dumps(features))
        with pytest.raises(ValueError, match="expected a feature `image`"):
            plan_shards(f"tfds:{records}", 5)

    def test_missing_tensorflow_datasets_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r"pip install 'elements-jax\[tfds\]'"):
            plan_shards("tfds:mnist", 5)
