"""Helpers for tests of all sources."""

import io
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path

from partition.sources.sample import Failure, Ignored, Sample, Shard


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_bytes(name.encode())


def read(shards: Sequence[Shard]) -> list[Sample | Failure]:
    return [each for each in _all(shards) if not isinstance(each, Ignored)]


def ignored(shards: Sequence[Shard]) -> list[Ignored]:
    return [each for each in _all(shards) if isinstance(each, Ignored)]


def _all(shards: Sequence[Shard]) -> list[Sample | Failure | Ignored]:
    return [each for shard in pickle.loads(pickle.dumps(shards)) for each in shard.samples()]


def ids(found: Sequence[Sample | Failure]) -> list[str]:
    return [sample.source_id for sample in found]


def write_tar(path: Path, *members: tuple[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
