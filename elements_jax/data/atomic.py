"""Files and folders that are whole or not there."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from elements_jax.data.object_store import AnyPath, as_path, is_url, new_object, new_objects, unfinished_path

LARGEST_FILE = 512 << 20
"""Bytes of a photograph or script that are read, if nothing else is said."""
_AT_ONCE = 1 << 24  # bytes of a file that are read at a time


@contextmanager
def new_file(path: AnyPath) -> Iterator[BinaryIO]:
    """A file to write, which is put in the place of `path` once it is whole and on the disk, or else removed.

    Its own name is unlike any other's, so that several processes may write the same file, on several machines too.
    Raises OSError naming `path`.
    """
    if is_url(path):
        with new_object(path) as file:
            yield file
        return
    with new_path(path) as unfinished, unfinished.open("wb") as file:
        yield file


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """A path for another library to write a file to, which replaces `path` once it is on the disk, or is removed.

    Raises OSError naming `path`.
    """
    unfinished = unfinished_path(path)
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        name_file(error, path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def name_file(error: OSError, path: AnyPath) -> None:
    """Let an error of the system name a file, where it names none, as that of a full disk."""
    if error.errno is not None:  # without, it is a sentence of ours
        error.filename = error.filename or str(path)


def read_file(path: str | AnyPath, limit: int = LARGEST_FILE) -> bytes:
    """The bytes of a file that a person named or that is in a folder of theirs. Raises as `require_regular`."""
    path = as_path(path)
    if not is_url(path):
        require_regular(path, limit)
    return path.read_bytes()


def require_regular(path: Path, limit: int = LARGEST_FILE) -> None:
    """Raises ValueError naming a file that is not regular, as a pipe or a device, or larger than `limit`; OSError."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{path}: a folder; expected a file")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path}: not a regular file, but a pipe, a device or a socket")
    if status.st_size > limit:
        raise ValueError(f"{path}: {status.st_size / 2**20:.0f} MiB, and at most {limit / 2**20:.0f} MiB are read")


def require_apart(out: Path, *read: Path | None) -> None:
    """Raises ValueError naming a file to write that is one of those that are read."""
    if out.exists() and any(path is not None and path.exists() and out.samefile(path) for path in read):
        raise ValueError(f"{out} is read, too; choose another file to write")


def checksum(path: Path) -> str:
    """CRC-32C of a file's bytes, as eight hexadecimal digits."""
    crc = google_crc32c.Checksum()
    with path.open("rb") as file:
        while part := file.read(_AT_ONCE):
            crc.update(part)
    return crc.digest().hex()


@contextmanager
def new_folder(path: AnyPath, last: str = "") -> Iterator[Path]:
    """A folder to write files into, which gets the name `path` once they are whole and on the disk, or else is removed.

    Of a URL the file `last` is uploaded after all others: where it is there, so are they. Raises OSError naming `path`,
    also where it is there already.
    """
    if is_url(path):
        with new_objects(path, last) as folder:
            yield folder
        return
    unfinished = unfinished_path(path)
    try:
        unfinished.mkdir()
        yield unfinished
        for file in filter(Path.is_file, unfinished.rglob("*")):
            with file.open("rb") as written:
                os.fsync(written.fileno())
        unfinished.rename(path)
    except OSError as error:
        name_file(error, path)
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_folder(path: AnyPath, last: str = "") -> None:
    """Remove a folder, which loses its name before anything in it is lost, or the file `last` if it is a URL."""
    if is_url(path):
        (path / last).unlink(missing_ok=True)
        path.fs.rm(path.path, recursive=True)  # type: ignore[attr-defined]
        return
    unfinished = path.rename(unfinished_path(path))
    shutil.rmtree(unfinished)
