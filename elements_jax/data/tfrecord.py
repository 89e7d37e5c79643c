"""TFRecord files without TensorFlow: written completely or not at all, read in any order.

A file is a sequence of records: a little-endian length (8 bytes), its checksum (4), the data, and its checksum (4). A
checksum is a CRC-32C, rotated and shifted. Shards of a split are named as TensorFlow Datasets names them.
"""

import math
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import SupportsIndex

import google_crc32c
import numpy as np

from elements_jax.data.atomic import new_file, require_regular
from elements_jax.data.object_store import AnyPath

DATASET = "elements"
"""The name of the dataset and the prefix of its files: `elements-train.tfrecord-00000-of-00004`."""
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


def shard_path(directory: AnyPath, split: str, shard: int, shards: int) -> AnyPath:
    """Return the path of shard number `shard` of `shards` of a split."""
    return directory / f"{DATASET}-{split}.tfrecord-{shard:05d}-of-{shards:05d}"


def find_shards(directory: AnyPath) -> dict[str, list[AnyPath]]:
    """Find the shards of each split, in order.

    Raises ValueError if a split lacks a shard, or has shards of two runs with different numbers of shards, or where
    there are only tar files.
    """
    pattern = re.compile(rf"{DATASET}-(\w+)\.tfrecord-\d{{5}}-of-(\d{{5}})")
    splits: dict[str, list[AnyPath]] = {}
    paths = sorted(directory.iterdir(), key=str)
    for path in paths:
        if match := pattern.fullmatch(path.name):
            splits.setdefault(match[1], []).append(path)
    if not splits and (
        tar := next((path for path in paths if re.fullmatch(rf"{DATASET}-\w+-.*\.tar", path.name)), None)
    ):
        raise ValueError(
            f"{tar}: records as WebDataset; only `elements partition --format tfrecord` writes what is read"
        )
    for split, found in splits.items():
        shards = int(found[-1].name.rsplit("-", 1)[1])
        if found != (expected := [shard_path(directory, split, i, shards) for i in range(shards)]):
            odd = sorted(path.name for path in set(found) ^ set(expected))
            raise ValueError(f"{directory}: split {split!r} must have {shards} shards; missing or left over: {odd}")
    return splits


def framed(data: bytes) -> bytes:
    """Frame a record as it is stored in a file."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _FOOTER.pack(_checksum(length)), data, _FOOTER.pack(_checksum(data))))


@contextmanager
def new_tfrecord(path: AnyPath) -> Iterator[Callable[[bytes], object]]:
    """Write a TFRecord file, completely or not at all. Yields the function that appends a record."""
    with new_file(path) as file:
        yield lambda data: file.write(framed(data))


def write_tfrecord(path: Path, examples: Iterable[bytes]) -> None:
    """Write a TFRecord file, completely or not at all."""
    with new_tfrecord(path) as append:
        for data in examples:
            append(data)


class TFRecordSource:
    """The records of several files as one sequence of bytes, read in any order and checked.

    Construction only reads the record headers. It keeps no file open, so threads may share it, and it can be pickled or
    forked into Grain's workers.
    """

    def __init__(self, paths: Sequence[Path]):
        """Index the files. Raises ValueError with the file and the offset if one is truncated or damaged."""
        self._paths = list(paths)
        starts, checksums = zip(*map(_record_starts, self._paths), strict=True) if self._paths else ((), ())
        self._starts = np.concatenate([np.zeros(0, np.int64), *starts])
        self._first = np.cumsum([0, *map(len, starts)])  # the number of each file's first record
        self.identity = f"{google_crc32c.value(b''.join(checksums)):08x}"
        """Identifies these records in this order: a checksum of their checksums."""

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: SupportsIndex) -> bytes:
        """Read a record. Raises ValueError with the file and the offset if its checksum does not match."""
        path, _ = self._locate(index)
        start = int(self._starts[index])
        with path.open("rb", buffering=0) as file:
            return _read_data(file.fileno(), path, start, _read_length(file.fileno(), path, start))

    def where(self, index: SupportsIndex) -> str:
        """Return a readable name of a record: its file and its number in it."""
        path, record = self._locate(index)
        return f"{path} record {record}"

    def _locate(self, index: SupportsIndex) -> tuple[Path, int]:
        if not 0 <= (number := index.__index__()) < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        shard = int(np.searchsorted(self._first, number, side="right")) - 1
        return self._paths[shard], number - int(self._first[shard])


def scan_tfrecord(path: Path) -> Iterator[bytes | ValueError]:
    """Yield every record of a file in order, or the error that describes its damage.

    A wrong checksum of data loses only that record. After a damaged length or a premature end the error is the last
    item, because later records cannot be found.
    """
    start = 0
    require_regular(path, math.inf)
    with path.open("rb", buffering=0) as file:
        while start < os.fstat(file.fileno()).st_size:
            found: bytes | ValueError
            try:
                length = _read_length(file.fileno(), path, start)
            except ValueError as error:
                yield error
                return
            try:
                found = _read_data(file.fileno(), path, start, length)
            except ValueError as error:
                found = error
            yield found
            start += _HEADER.size + length + _FOOTER.size


def _record_starts(path: Path) -> tuple[np.ndarray, bytes]:
    """Return the offsets of a file's records, and the concatenated checksums of their data."""
    starts, checksums, start = [], [], 0
    require_regular(path, math.inf)
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while start < size:
            starts.append(start)
            end = start + _HEADER.size + _read_length(file.fileno(), path, start)
            checksums.append(os.pread(file.fileno(), _FOOTER.size, end))
            start = end + _FOOTER.size
    if start > size:
        raise ValueError(f"{path}: the file ends at {size}, within the record at offset {starts[-1]}")
    return np.array(starts, np.int64), b"".join(checksums)


def _read_length(descriptor: int, path: Path, start: int) -> int:
    header = os.pread(descriptor, _HEADER.size, start)
    if len(header) != _HEADER.size:
        raise ValueError(f"{path}: the file ends within the record at offset {start}")
    length, checksum = _HEADER.unpack(header)
    if checksum != _checksum(header[:8]):
        raise ValueError(f"{path}: not a TFRecord, or damaged: the length at offset {start} has a wrong checksum")
    return length


def _read_data(descriptor: int, path: Path, start: int, length: int) -> bytes:
    body = os.pread(descriptor, length + _FOOTER.size, start + _HEADER.size)
    if len(body) != length + _FOOTER.size:
        raise ValueError(f"{path}: the file ends within the record at offset {start}")
    data = body[:length]
    if _FOOTER.unpack_from(body, length)[0] != _checksum(data):
        raise ValueError(f"{path}: the record at offset {start} is damaged: its checksum does not match its data")
    return data


def _checksum(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
