"""Shards in tar files in WebDataset's layout, which img2dataset writes."""

import gzip
import stat
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

from elements_jax.data.atomic import LARGEST_FILE
from elements_jax.data.object_store import AnyPath, local_file
from partition.sources.sample import SUFFIXES, Failure, Ignored, Sample, as_source_id, assemble

TARS = (".tar", ".tar.gz", ".tgz")
_AT_ONCE = 1 << 24
"""Bytes of a member to read at a time: a damaged header may claim any size."""


@dataclass(frozen=True)
class TarShard:
    """A tar file in WebDataset's layout: the members of a sample share their path up to the first dot, its key.

    They follow each other. A sample is a Failure if it is not one image with at most one .txt and one .json, or if its
    key occurred before. Members with other extensions are ignored, and so are links, except hard links to an earlier
    file: tar writes a file with two names in this way. A compressed archive (.tar.gz, .tgz) is read as well; it has no
    random access, so it is always read from its start, and all its links are ignored.
    """

    path: AnyPath
    name: str
    """Path below the source's folder. A source id is this path without its suffix, a slash, and the key."""
    bytes: int
    count: None = None
    largest_file: int = LARGEST_FILE
    """Bytes of the largest member to read."""

    def samples(self) -> Iterator[Sample | Failure | Ignored]:
        """Yield the samples; of a truncated or damaged archive, those before the damage, and then a Failure.

        Raises OSError if an object store does not return the archive, whose contents are then unknown.
        """
        with local_file(self.path) as path:
            yield from self._samples(path)

    def _samples(self, path: Path) -> Iterator[Sample | Failure | Ignored]:
        prefix = as_source_id(without_suffix(self.name))
        done: set[str] = set()
        ignored: list[Ignored] = []
        key = ""  # the key of the current sample
        try:
            with (
                _open(path) as file,
                tarfile.open(fileobj=file, mode="r:", errors="backslashreplace") as tar,
            ):
                members = _members(tar, prefix, ignored, follow_links=path.suffix.lower() == ".tar")
                for key, group in groupby(members, key=lambda member: _key_and_extension(member.name)[0]):
                    files, too_large = [], ""
                    for member in group:
                        name = member.name.rsplit("/")[-1]
                        if member.size > self.largest_file:
                            have, limit = member.size / 2**20, self.largest_file / 2**20
                            too_large = f"{name}: {have:.0f} MiB; the limit is {limit:.0f} MiB (--largest-file)"
                        else:
                            files.append((name, _read(tar, member)))
                    # By now the next sample's first header or the archive's end was read, so this sample is complete.
                    source_id = f"{prefix}/{key}"
                    try:
                        if too_large:
                            raise ValueError(too_large)
                        if key in done:
                            names = ", ".join(name for name, _ in files)
                            raise ValueError(f"{names}: its other files are not next to it (tar sorts by --sort=name)")
                        yield assemble(source_id, files)
                    except ValueError as error:
                        yield Failure(source_id, str(error))
                    done.add(key)
                    key = ""
                    yield from ignored
                    ignored.clear()
        # Errors of damaged headers and damaged compression.
        except (OSError, EOFError, OverflowError, ValueError, tarfile.TarError, zlib.error) as error:
            if key:
                yield Failure(f"{prefix}/{key}", f"{self.name} is cut short or damaged within this sample's files")
            yield Failure(self.name, f"cut short or damaged after {len(done)} samples were read: {error}")
        yield from ignored


def is_tar(name: str) -> bool:
    """Return whether a file name is that of a tar file."""
    return name.lower().endswith(TARS)


def without_suffix(name: str) -> str:
    """Return the name of a tar file without .tar, .tar.gz or .tgz."""
    suffix = next(suffix for suffix in (".tar.gz", ".tgz", ".tar") if name.lower().endswith(suffix))
    return name[: -len(suffix)]


def _open(path: Path) -> Any:
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(f"{path}: not a regular file")
    return _Bounded(path.open("rb") if path.suffix.lower() == ".tar" else gzip.open(path))  # type: ignore[arg-type]


class _Bounded:
    """A file that limits how many bytes a damaged header can make `tarfile` read at a time."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def __enter__(self) -> "_Bounded":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """Read at most `_AT_ONCE` bytes. Raises tarfile.ReadError for more."""
        if not 0 <= size <= _AT_ONCE:
            raise tarfile.ReadError(f"at byte {self.tell()} a header claims {size} bytes")
        return self._file.read(size)


def _key_and_extension(name: str) -> tuple[str, str]:
    """Split a member's path at the first dot of its last part, as WebDataset does; the extension is in lower case.

    Parts that lead out of the archive are removed, as in tar itself.
    """
    *folders, last = [part for part in name.split("/") if part not in ("", ".", "..")] or [""]
    stem, dot, extension = last.partition(".")
    return "/".join([*folders, stem]), dot + extension.lower()


def _members(
    tar: tarfile.TarFile, prefix: str, ignored: list[Ignored], follow_links: bool
) -> Iterator[tarfile.TarInfo]:
    """Yield the members of samples, and add other files to `ignored`; skip hidden files and folders.

    Raises tarfile.ReadError if the archive does not end with an end mark. `tarfile` itself takes an unreadable header,
    or the end of the file, for the end of the archive.
    """
    places: dict[str, tuple[int, int]] = {}  # position and size of the files so far
    while member := tar.next():
        tar.members.clear()  # type: ignore[attr-defined]  # it would keep all members
        key, extension = _key_and_extension(member.name)
        hidden = key.endswith("/") or not key
        if hidden or member.isdir():
            continue
        if follow_links and member.islnk() and member.linkname in places:
            member.offset_data, member.size = places[member.linkname]
        elif member.isfile():
            places[member.name] = member.offset_data, member.size
        else:
            ignored.append(
                Ignored(f"{prefix}/{key}{extension}", "a link" if member.islnk() or member.issym() else "a device")
            )
            continue
        if extension in (*SUFFIXES, ".txt", ".json"):
            yield member
        else:
            ignored.append(Ignored(f"{prefix}/{key}{extension}", extension or "no suffix"))
    # The end is two blocks of zeros, padded to complete records; a hole or a second archive is longer.
    blocks, record = 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE
    file: Any = tar.fileobj
    file.seek(tar.offset)
    end = file.read(blocks + record)
    if any(end) or not blocks <= len(end) < blocks + record:
        raise tarfile.ReadError(f"at byte {tar.offset} there is neither a file nor the end mark of an archive")


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    """Return the bytes of a member. Raises tarfile.ReadError if some are missing."""
    file: Any = tar.fileobj
    if member.size < 0:
        raise tarfile.ReadError(f"{member.name} has a size below zero")
    file.seek(member.offset_data)
    parts, missing = [], member.size
    while missing and (part := file.read(min(missing, _AT_ONCE))):
        parts.append(part)
        missing -= len(part)
    if missing:
        raise tarfile.ReadError(f"the archive ends at byte {file.tell()}, within {member.name}")
    return b"".join(parts)
