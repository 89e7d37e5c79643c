"""Metadata of the records for `tfds.builder_from_directory(folder)`. Needs neither TensorFlow nor tfds.

Two files: `features.json`, how TensorFlow Datasets decodes each field of `elements_jax.data.record`, and
`dataset_info.json`, the splits and the number of examples in each shard.
"""

import json
from collections.abc import Mapping
from typing import Any

from elements_jax.data.atomic import new_file
from elements_jax.data.object_store import AnyPath
from elements_jax.data.tfrecord import DATASET, TFRecordSource, find_shards

VERSION = "1.0.0"
"""Version of the fields' meaning: the major number grows when old readers would misread new records."""

METADATA = ("features.json", "dataset_info.json")
"""The names of the files."""
_FEATURES = "tensorflow_datasets.core.features"
_DESCRIPTION = "Images divided into elements (label maps), with captions and object masks, for Editable Image Elements."


def write_metadata(
    directory: AnyPath,
    cached: Mapping[str, tuple[int, ...]] | None = None,
    lengths: Mapping[str, Mapping[int, int]] | None = None,
) -> None:
    """Write `features.json` and `dataset_info.json` for the shards in `directory`, of all splits.

    Args:
        cached: shapes of the features added by `elements cache`, by name.
        lengths: the number of records in each shard of each split; by default they are counted in the files.

    Raises ValueError if there are no shards, one is missing, or one is damaged.
    """
    splits = find_shards(directory)
    if not splits:
        raise ValueError(f"{directory}: no shards of records to describe")
    info = {
        "name": DATASET,
        "version": VERSION,
        "description": _DESCRIPTION,
        "fileFormat": "tfrecord",
        "splits": [_split(name, shards, (lengths or {}).get(name)) for name, shards in splits.items()],
    }
    features = {
        "image": _image(channels=3, dtype="uint8"),
        "label_map": _image(channels=1, dtype="uint16", encodingFormat="png"),
        "caption": _text(),
        "object_masks": _sequence(_image(channels=1, dtype="uint8", encodingFormat="png")),
        "source_id": _text(),
        "settings": _text(),
        **{name: _numbers(shape) for name, shape in (cached or {}).items()},
    }
    root = {
        "type": f"{_FEATURES}.features_dict.FeaturesDict",
        "content": {"features": features},
        "proto_cls": "tensorflow_datasets.FeaturesDict",
    }
    for name, content in zip(METADATA, (root, info), strict=True):
        with new_file(directory / name) as file:
            file.write(json.dumps(content, indent=2).encode() + b"\n")


# 64-bit integers are strings in protobuf's JSON; a length of -1 is unknown.


def _split(name: str, shards: list[AnyPath], lengths: Mapping[int, int] | None) -> dict[str, Any]:
    if lengths is None:
        counted = [len(TFRecordSource([shard])) for shard in shards]
    else:
        counted = [lengths.get(number, 0) for number in range(len(shards))]
    return {
        "name": name,
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "shardLengths": list(map(str, counted)),
        "numBytes": str(sum(shard.stat().st_size for shard in shards)),
    }


def _image(channels: int, **fields: str) -> dict[str, Any]:
    shape = {"dimensions": ["-1", "-1", str(channels)]}
    return {"pythonClassName": f"{_FEATURES}.image_feature.Image", "image": {"shape": shape, **fields}}


def _text() -> dict[str, Any]:
    return {"pythonClassName": f"{_FEATURES}.text_feature.Text", "text": {}}


def _numbers(shape: tuple[int, ...]) -> dict[str, Any]:
    tensor = {"shape": {"dimensions": [str(side) for side in shape]}, "dtype": "float16", "encoding": "bytes"}
    return {"pythonClassName": f"{_FEATURES}.tensor_feature.Tensor", "tensor": tensor}


def _sequence(feature: dict[str, Any]) -> dict[str, Any]:
    kind = f"{_FEATURES}.sequence_feature.Sequence"
    return {"pythonClassName": kind, "sequence": {"feature": feature, "length": "-1"}}
