"""Records as tar files in WebDataset's layout, for programs that read those: written completely or not at all.

The members of a record equal its parts in a TFRecord, byte for byte. Their names start with a common key:

    KEY.jpg or KEY.png   the image                 KEY.label_map.png      a 16-bit PNG
    KEY.txt              the caption               KEY.object_mask.0.png  the first object mask, a 1-bit PNG
    KEY.json             {"source_id": ..., "settings": ...}

A tar file has no checksum of its data, so an MD5 file is written next to it, in the format of `md5sum`.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from elements_jax.data.atomic import new_file
from elements_jax.data.object_store import AnyPath
from elements_jax.data.record import Example
from elements_jax.data.tfrecord import DATASET


def tar_path(directory: AnyPath, split: str, shard: int, shards: int) -> AnyPath:
    """Return the path of shard number `shard` of `shards` of a split."""
    return directory / f"{DATASET}-{split}-{shard:05d}-of-{shards:05d}.tar"


@contextmanager
def new_tar(path: AnyPath) -> Iterator[Callable[[bytes], object]]:
    """Write a tar file, completely or not at all. Yields the function that appends a serialised `tf.train.Example`.

    Equal records give equal bytes.
    """
    with new_file(path) as file:
        hashed: Any = _Hashed(file)  # implements what a stream needs of a file
        with tarfile.open(fileobj=hashed, mode="w|") as tar:
            records = 0

            def append(data: bytes) -> None:
                nonlocal records
                for field, content in _fields(data):
                    # A source_id may be long, and may contain dots, at the first of which readers end the key.
                    member = tarfile.TarInfo(f"{path.stem}-{records:06d}.{field}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                records += 1

            yield append
    with new_file(path.with_name(f"{path.name}.md5")) as file:
        file.write(f"{hashed.md5.hexdigest()}  {path.name}\n".encode())


class _Hashed:
    """A file to write, with the MD5 of the written bytes."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.md5 = hashlib.md5(usedforsecurity=False)

    def write(self, data: bytes) -> int:
        self.md5.update(data)
        return self._file.write(data)


def _fields(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the members of a record: the suffix after the key, and the contents."""
    features = Example.FromString(data).features.feature
    image, label_map, caption, source_id, settings = (
        features[name].bytes_list.value[0] for name in ("image", "label_map", "caption", "source_id", "settings")
    )
    yield "png" if image.startswith(b"\x89PNG") else "jpg", image
    yield "label_map.png", label_map
    for number, mask in enumerate(features["object_masks"].bytes_list.value):
        yield f"object_mask.{number}.png", mask
    yield "txt", caption
    yield "json", json.dumps({"source_id": source_id.decode(), "settings": json.loads(settings)}).encode()
