"""Where images come from: photographs in folders and lists, WebDataset's tar files, TensorFlow data sets.

`plan` cuts a source into shards; a shard is read from its first image to its last. What cannot be read comes out as a
`Failure`, never as an exception: one bad file must not end a job of millions.
"""

import importlib.util
import json
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from google.protobuf import message

from elements_jax.records import TFRecordSource
from elements_jax.schema import Example

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
"""Of the files that are images. A caption ends in .txt, metadata in .json."""

_TAR = ".tar"


@dataclass(frozen=True)
class Sample:
    """An image of a source as it lies there, not yet decoded."""

    source_id: str
    """Unique in the source, and the same in every run: a path without what differs between machines."""
    encoded: bytes
    """The image file."""
    caption: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The JSON beside the image, such as img2dataset's; empty if there is none."""


@dataclass(frozen=True)
class Failure:
    """What could not be read, an image or the rest of a shard, and why."""

    source_id: str
    reason: str


class Shard(Protocol):
    """A part of a source that is read at one go. Small, and can be pickled."""

    @property
    def name(self) -> str:
        """Names the shard for people; another name means other images."""

    @property
    def count(self) -> int | None:
        """Number of its images; None where only reading it tells."""

    @property
    def bytes(self) -> int | None:
        """Size of its file; None where it is not one file."""

    def samples(self) -> Iterator[Sample | Failure]:
        """Its images in order, each with what lies beside it."""


def plan(source: str, shard_size: int, skip: Iterable[Path] = ()) -> list[Shard]:
    """The shards of a source, in order. The same source gives the same shards.

    Args:
      source: one of
        a folder: the photographs in it and below, or else the .tar files, each a shard;
        a .tar file (WebDataset's layout, which img2dataset writes);
        a .txt or .lst file: photographs or .tar files, a path a line, relative ones from the list's folder;
        tfds:NAME[/CONFIG][:SPLIT] or tfds:FOLDER[:SPLIT]: a data set that TensorFlow Datasets has prepared, split
        `train` by default.
      shard_size: at most so many images make a shard, where the source itself has none.
      skip: folders to pass over; hidden ones and those named `masks` are too.

    Raises:
      ValueError: if there is no such source, or no image in it, or a list has lines that cannot be meant.
    """
    if shard_size < 1:
        raise ValueError(f"a shard must have at least 1 image, got {shard_size}")
    path = Path(source)
    if source.startswith("tfds:"):
        return _tfds_shards(source, shard_size)
    if path.is_dir():
        return _folder_shards(path, shard_size, skip)
    if path.is_file() and path.suffix.lower() == _TAR:
        return [TarShard(path, path.name, path.stat().st_size)]
    if path.is_file() and path.suffix.lower() in (".txt", ".lst"):
        return _list_shards(path, shard_size)
    raise ValueError(
        f"{source}: no such folder, .tar file, or list of paths (.txt or .lst); a data set of TensorFlow Datasets is "
        "written tfds:NAME"
    )


def read_sample(path: Path, source_id: str) -> Sample:
    """The photograph at `path` with the caption (STEM.txt) and the metadata (STEM.json) beside it, if any.

    Raises OSError, or ValueError naming the file that is neither UTF-8 text nor a JSON object.
    """
    beside = [file for file in (path.with_suffix(".txt"), path.with_suffix(".json")) if file.is_file()]
    return _assemble(source_id, [(file.name, file.read_bytes()) for file in (path, *beside)])


@dataclass(frozen=True)
class PhotoShard:
    """Photographs, each a file."""

    name: str
    folder: Path
    photos: tuple[str, ...]
    """Paths below the folder, or absolute."""
    bytes: None = None

    @property
    def count(self) -> int:
        return len(self.photos)

    def samples(self) -> Iterator[Sample | Failure]:
        for photo in self.photos:
            source_id = _source_id(photo)
            try:
                yield read_sample(self.folder / photo, source_id)
            except (OSError, ValueError) as error:
                yield Failure(source_id, str(error))


@dataclass(frozen=True)
class TarShard:
    """A tar file in WebDataset's layout: the members of a sample share their path up to the first dot, its key.

    They follow each other. A sample is a Failure if it is not one image with at most one .txt and one .json, or if its
    key came before. Members of other extensions are passed over.
    """

    path: Path
    name: str
    """Its path below the source's folder, which makes the source ids: NAME without .tar, a slash, and the key."""
    bytes: int
    count: None = None

    def samples(self) -> Iterator[Sample | Failure]:
        """Of an archive that is cut or damaged, the samples before that, and then what is known of it as a Failure."""
        prefix = _source_id(self.name[: -len(_TAR)])
        done: set[str] = set()
        key = ""  # of the sample that is being read
        try:
            with self.path.open("rb") as file, tarfile.open(fileobj=file, mode="r:", errors="backslashreplace") as tar:
                for key, group in groupby(_members(tar), key=lambda member: _key_and_extension(member.name)[0]):
                    files = [(member.name.rsplit("/")[-1], _read(tar, member)) for member in group]
                    # By now the next sample's first header was read, or the end of the archive: this sample is whole.
                    source_id = f"{prefix}/{key}"
                    try:
                        if key in done:
                            names = ", ".join(name for name, _ in files)
                            raise ValueError(
                                f"{names}: its other files do not lie beside it (tar sorts by --sort=name)"
                            )
                        yield _assemble(source_id, files)
                    except ValueError as error:
                        yield Failure(source_id, str(error))
                    done.add(key)
                    key = ""
        except (OSError, OverflowError, ValueError, tarfile.TarError) as error:  # of all that damaged headers may claim
            if key:
                yield Failure(f"{prefix}/{key}", f"{self.name} is cut short or damaged within this sample's files")
            yield Failure(self.name, f"cut short or damaged after {len(done)} samples were read: {error}")


@dataclass(frozen=True)
class TfdsShard:
    """Some examples of a split of a TensorFlow data set, one after the other, read without TensorFlow."""

    name: str
    split: str
    """NAME/SPLIT, which makes the source ids with a slash and the example's number in the split."""
    first: int
    """That of the first example."""
    files: tuple[tuple[str, int, int], ...]
    """Paths, each with the first and the last (exclusive) of its examples."""
    caption: str
    """The feature that is the caption, or empty."""
    metadata: tuple[str, ...]
    """Features that are one number or text."""
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
        """Raises LookupError for a field that is missing."""
        features = Example.FromString(record).features.feature

        def value(name: str) -> Any:
            one = getattr(features[name], features[name].WhichOneof("kind") or "bytes_list").value[0]
            return one.decode("utf-8", "backslashreplace") if isinstance(one, bytes) else one

        metadata = {name: value(name) for name in self.metadata}
        caption = value(self.caption).strip() if self.caption else ""
        return Sample(source_id, features["image"].bytes_list.value[0], caption, metadata)


def _assemble(source_id: str, files: Sequence[tuple[str, bytes]]) -> Sample:
    """A sample from the names and contents of its files. Raises ValueError naming those that do not fit."""

    def ending_in(*suffixes: str) -> list[tuple[str, bytes]]:
        return [(name, content) for name, content in files if name.lower().endswith(suffixes)]

    images, texts, objects = ending_in(*SUFFIXES), ending_in(".txt"), ending_in(".json")
    if len(images) != 1 or len(texts) > 1 or len(objects) > 1:
        names = ", ".join(name for name, _ in files)
        raise ValueError(f"expected one image and at most one .txt and one .json, got {names}")
    metadata: dict[str, Any] = {}
    for name, content in objects:
        try:
            metadata = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}: not JSON: {error}") from error
        if not isinstance(metadata, dict):
            raise ValueError(f"{name}: expected a JSON object, got {type(metadata).__name__}")
    caption = metadata.get("caption")  # img2dataset's, which may be null
    for name, content in texts:
        try:
            caption = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}: not UTF-8 text: {error}") from error
    text = caption.strip() if isinstance(caption, str) else ""
    text = text.encode(errors="replace").decode()  # JSON may hold half a character, which no record can
    return Sample(source_id, images[0][1], text, metadata)


def _source_id(path: str) -> str:
    """A path as text: never absolute, and what is not UTF-8 in it escaped."""
    return path.lstrip("/").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _cut(count: int, shard_size: int) -> list[tuple[int, int]]:
    """First and last (exclusive) of each shard: as few shards as can be, as even as can be."""
    shards = -(-count // shard_size)
    edges = [count * shard // shards for shard in range(shards + 1)]
    return list(pairwise(edges))


def _photo_shards(folder: Path, photos: Sequence[str], shard_size: int) -> list[Shard]:
    shards: list[Shard] = []
    for first, last in _cut(len(photos), shard_size):
        part = tuple(photos[first:last])
        ids = [_source_id(photo) for photo in part]
        checksum = zlib.crc32("\n".join(ids).encode())  # of a photograph between the two that is not there any more
        shards.append(PhotoShard(f"{ids[0]} to {ids[-1]} ({checksum:08x})", folder, part))
    return shards


def _tar_shards(folder: Path, names: Iterable[str]) -> list[Shard]:
    return [TarShard(folder / name, _source_id(name), (folder / name).stat().st_size) for name in names]


def _raise(error: OSError) -> None:
    raise error  # a folder that may not be read would be passed over


def _folder_shards(folder: Path, shard_size: int, skip: Iterable[Path]) -> list[Shard]:
    skipped = {path.resolve() for path in skip}
    found: list[str] = []
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [
            name
            for name in folders
            if name != "masks" and not name.startswith(".") and Path(parent, name).resolve() not in skipped
        ]
        below = Path(parent).relative_to(folder)
        found += [
            (below / name).as_posix()
            for name in names
            if name.lower().endswith((*SUFFIXES, _TAR)) and not name.startswith(".")
        ]
    found.sort(key=lambda name: name.split("/"))
    tars = [name for name in found if name.lower().endswith(_TAR)]
    if not found:
        raise ValueError(
            f"{folder}: no photographs there, nor .tar files (looked for {' '.join(SUFFIXES)}, also below)"
        )
    if not tars:
        return _photo_shards(folder, found, shard_size)
    if len(tars) < len(found):
        photo = next(name for name in found if not name.lower().endswith(_TAR))
        raise ValueError(
            f"{folder}: both .tar files, such as {tars[0]}, and {len(found) - len(tars)} photographs, such as {photo}: "
            "take one folder for each kind, or a list of paths"
        )
    return _tar_shards(folder, tars)


def _list_shards(path: Path, shard_size: int) -> list[Shard]:
    folder = path.parent.absolute()
    lines: dict[str, int] = {}
    problems = []
    for number, text in enumerate(path.read_text("utf-8-sig", "surrogateescape").split("\n"), start=1):
        if not (line := text.strip()):
            continue
        whole = os.path.normpath(line if line.startswith("/") else f"{folder}/{line}")
        name = whole.removeprefix(f"{folder}/")
        if name in lines:
            problems.append(f"line {number}: {line} is line {lines[name]} already")
        elif not name.lower().endswith((*SUFFIXES, _TAR)):
            problems.append(f"line {number}: {line} is neither a photograph ({' '.join(SUFFIXES)}) nor a .tar file")
        elif name.lower().endswith(_TAR) and not Path(whole).is_file():
            problems.append(f"line {number}: no such file: {line}")
        lines.setdefault(name, number)
    tars = [name for name in lines if name.lower().endswith(_TAR)]
    if not lines:
        problems.append("no line")
    if tars and len(tars) < len(lines):
        photo = next(name for name in lines if not name.lower().endswith(_TAR))
        problems.append(f"lines {lines[tars[0]]} and {lines[photo]}: .tar files and photographs need a list each")
    if problems:
        more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise ValueError(f"{path}: not a list of paths:" + "".join(f"\n  {line}" for line in problems[:10] + more))
    return _tar_shards(folder, tars) if tars else _photo_shards(folder, list(lines), shard_size)


def _key_and_extension(name: str) -> tuple[str, str]:
    """A member's path up to the first dot of its last part, and the rest in lower case, as WebDataset divides it.

    Parts that would lead out of the archive are left out, as tar itself does.
    """
    *folders, last = [part for part in name.split("/") if part not in ("", ".", "..")] or [""]
    stem, dot, extension = last.partition(".")
    return "/".join([*folders, stem]), dot + extension.lower()


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of samples. Raises tarfile.ReadError where the archive does not end as one must.

    `tarfile` itself takes any header that it cannot read, and the end of the file, for the end of the archive.
    """
    while member := tar.next():
        tar.members.clear()  # type: ignore[attr-defined]  # it keeps all that it has seen
        key, extension = _key_and_extension(member.name)
        hidden = key.endswith("/") or not key
        if member.isfile() and not hidden and extension in (*SUFFIXES, ".txt", ".json"):
            yield member
    # The end is two blocks of zeros, and as many more as make whole records; a hole or a second archive is longer.
    blocks, record = 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE
    file: Any = tar.fileobj
    file.seek(tar.offset)
    end = file.read(blocks + record)
    if any(end) or not blocks <= len(end) < blocks + record:
        raise tarfile.ReadError(f"at byte {tar.offset} there is neither a file nor the end mark of an archive")


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    """The bytes of a member. Raises tarfile.ReadError if they are not all there."""
    file: Any = tar.fileobj
    size = os.fstat(file.fileno()).st_size
    if not 0 <= member.size <= size - member.offset_data:
        raise tarfile.ReadError(f"the archive ends at byte {size}, within {member.name}")
    file.seek(member.offset_data)
    return file.read(member.size)


_RECORD_FILES = ("tfrecord", "array_record")


def _tfds_shards(source: str, shard_size: int) -> list[Shard]:
    match = re.fullmatch(r"tfds:(.+?)(?::(\w+))?", source)  # a version, as in NAME:1.0.0, is no split
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
    whole = f"{builder.name}/{split}"
    shards: list[Shard] = []
    for first, last in _cut(info.splits[split].num_examples, shard_size):
        parts = info.splits[f"{split}[{first}:{last}]"].file_instructions
        files = tuple((part.filename, part.skip, part.skip + part.take) for part in parts)
        shards.append(TfdsShard(f"{whole}[{first}:{last}]", whole, first, files, caption, metadata))
    return shards


def _open_records(path: Path) -> Any:
    """The records of a file as a sequence of bytes. Raises OSError, or ValueError if the file is damaged."""
    if ".array_record" not in path.name:
        return TFRecordSource([path])
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    return ArrayRecordDataSource(str(path))
