"""Shards of data sets that TensorFlow Datasets has prepared; reading their records needs neither it nor TensorFlow."""

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import message

from elements_jax.data.record import Example
from elements_jax.data.tfrecord import TFRecordSource
from partition.sources.sample import Failure, Sample, Shard, even_ranges

_RECORD_FILES = ("tfrecord", "array_record")


def tfds_shards(source: str, shard_size: int) -> list[Shard]:
    """Return the shards of `tfds:NAME...`; see `sources.plan`. Raises ValueError if the data set is not prepared."""
    match = re.fullmatch(r"tfds:(.+?)(?::(\w+))?", source)  # a version, as in NAME:1.0.0, is not a split
    if not match:
        raise ValueError(f"{source}: expected tfds:NAME[/CONFIG][:SPLIT] or tfds:FOLDER[:SPLIT]")
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise ValueError(f"{source} needs TensorFlow Datasets: pip install 'elements-jax[tfds]'")
    import tensorflow_datasets as tfds

    data, split = match[1], match[2] or "train"
    if Path(data, "dataset_info.json").is_file():
        builder = tfds.builder_from_directory(data)
    else:
        try:
            builder = tfds.builder(data)
        except (ValueError, AttributeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]  # a list of all known data sets follows
            raise ValueError(f"{source}: neither a prepared folder nor a known data set: {reason}") from error
    info, features = builder.info, dict(builder.info.features.items())
    if not info.splits:
        raise ValueError(f"{source}: TensorFlow Datasets has not prepared it in {builder.data_dir}")
    if split not in info.splits:
        raise ValueError(f"{source}: there is no split {split!r}, but {', '.join(sorted(info.splits))}")
    if info.file_format.value not in _RECORD_FILES:
        raise ValueError(f"{source}: expected {' or '.join(_RECORD_FILES)} files, got {info.file_format.value}")
    image = features.get("image")
    # Floating-point images are stored as bytes that only TensorFlow Datasets understands.
    if not isinstance(image, tfds.features.Image) or np.dtype(image.np_dtype) not in (np.uint8, np.uint16):
        raise ValueError(f"{source}: expected a feature `image` of 8 or 16 bits, got {', '.join(features)}")
    caption = next((name for name in ("caption", "text") if isinstance(features.get(name), tfds.features.Text)), "")
    metadata = tuple(name for name, feature in features.items() if feature.shape == () and name != caption)
    prefix = f"{builder.name}/{split}"
    shards: list[Shard] = []
    for first, last in even_ranges(info.splits[split].num_examples, shard_size):
        parts = info.splits[f"{split}[{first}:{last}]"].file_instructions
        files = tuple((part.filename, part.skip, part.skip + part.take) for part in parts)
        shards.append(TfdsShard(f"{prefix}[{first}:{last}]", prefix, first, files, caption, metadata))
    return shards


@dataclass(frozen=True)
class TfdsShard:
    """Consecutive examples of a split of a TensorFlow data set, read without TensorFlow."""

    name: str
    split: str
    """NAME/SPLIT. A source id is this, a slash, and the example's number in the split."""
    first: int
    """Number of the first example."""
    files: tuple[tuple[str, int, int], ...]
    """Paths, each with the first and the last (exclusive) of its examples."""
    caption: str
    """The caption's feature, or empty."""
    metadata: tuple[str, ...]
    """Features with a single number or text."""
    bytes: None = None

    @property
    def count(self) -> int:
        return sum(stop - start for _, start, stop in self.files)

    def samples(self) -> Iterator[Sample | Failure]:
        number = self.first
        for path, start, stop in self.files:
            try:
                records = _open_records(Path(path))
            except (OSError, ValueError) as error:
                yield Failure(f"{self.name} {Path(path).name}", f"none of its {stop - start} examples read: {error}")
                number += stop - start
                continue
            for index in range(start, stop):
                source_id = f"{self.split}/{number:07d}"
                try:
                    yield self._sample(source_id, records[index])
                except (OSError, ValueError, LookupError, message.DecodeError) as error:
                    yield Failure(source_id, f"{path} example {index}: {error}")
                number += 1

    def _sample(self, source_id: str, record: Any) -> Sample:
        """Convert a record. Raises LookupError if a field is missing."""
        features = Example.FromString(record).features.feature

        def value(name: str) -> Any:
            one = getattr(features[name], features[name].WhichOneof("kind") or "bytes_list").value[0]
            return one.decode("utf-8", "backslashreplace") if isinstance(one, bytes) else one

        metadata = {name: value(name) for name in self.metadata}
        caption = value(self.caption).strip() if self.caption else ""
        return Sample(source_id, features["image"].bytes_list.value[0], caption, metadata)


def _open_records(path: Path) -> Any:
    """Open the records of a file as a sequence of bytes. Raises OSError, or ValueError if the file is damaged."""
    if ".array_record" not in path.name:
        return TFRecordSource([path])
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource(str(path))
