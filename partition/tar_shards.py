"""Shards that are tar files in WebDataset's layout, which img2dataset writes."""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from partition.samples import SUFFIXES, Failure, Sample, as_source_id, assemble

TAR = ".tar"


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
        prefix = as_source_id(self.name[: -len(TAR)])
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
                        yield assemble(source_id, files)
                    except ValueError as error:
                        yield Failure(source_id, str(error))
                    done.add(key)
                    key = ""
        except (OSError, OverflowError, ValueError, tarfile.TarError) as error:  # of all that damaged headers may claim
            if key:
                yield Failure(f"{prefix}/{key}", f"{self.name} is cut short or damaged within this sample's files")
            yield Failure(self.name, f"cut short or damaged after {len(done)} samples were read: {error}")


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
