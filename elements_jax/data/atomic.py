"""Files and folders that are written completely or not at all."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from elements_jax.data.object_store import AnyPath, as_path, is_url, new_object, new_objects, retried, unfinished_path

LARGEST_FILE = 512 << 20
"""Default limit on the bytes of a photograph or script."""
_AT_ONCE = 1 << 24  # bytes read at a time


@contextmanager
def new_file(path: AnyPath) -> Iterator[BinaryIO]:
    """Open a file to write. It is renamed to `path` once it is complete and on disk, or removed on an error.

    Its temporary name is unique, so that several processes may write the same file, even on several machines. Raises
    OSError that names `path`.
    """
    if is_url(path):
        with new_object(path) as file:
            yield file
        return
    with new_path(path) as unfinished, unfinished.open("wb") as file:
        yield file


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """Yield a path for another library to write to. The file replaces `path` once it is on disk, or is removed.

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
    """Add a file name to a system error that has none, such as that of a full disk."""
    if error.errno is not None:  # without one, the message is our own
        error.filename = error.filename or str(path)


def read_file(path: str | AnyPath, limit: int = LARGEST_FILE) -> bytes:
    """Read a file that the user named, or that is in a folder of theirs. Raises the errors of `require_regular`."""
    path = as_path(path)
    if is_url(path):
        return retried(path, path.read_bytes)
    require_regular(path, limit)
    return path.read_bytes()


def require_regular(path: Path, limit: float | int = LARGEST_FILE) -> None:
    """Raise ValueError if a file is not a regular one, such as a pipe, or has more than `limit` bytes; or OSError."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{path}: expected a file, not a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path}: expected a regular file, not a pipe, a device or a socket")
    if status.st_size > limit:
        raise ValueError(f"{path}: {status.st_size / 2**20:.0f} MiB; the limit is {limit / 2**20:.0f} MiB")


def require_apart(out: Path, *read: AnyPath | None) -> None:
    """Raise ValueError if the output file is also an input."""
    local = [path for path in read if path is not None and not is_url(path)]
    if out.exists() and any(path.exists() and out.samefile(path) for path in local):
        raise ValueError(f"{out} is also an input; choose another output file")


def checksum(path: Path) -> str:
    """Return the CRC-32C of a file, as eight hexadecimal digits."""
    crc = google_crc32c.Checksum()
    with path.open("rb") as file:
        while part := file.read(_AT_ONCE):
            crc.update(part)
    return crc.digest().hex()


@contextmanager
def new_folder(path: AnyPath, last: str = "") -> Iterator[Path]:
    """Create a folder to write files to. It is renamed to `path` once they are complete and on disk, or else removed.

    For a URL, the file `last` is uploaded after all others: if it exists, they do, too. Raises OSError that names
    `path`, also if it exists already.
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
    """Remove a folder. It is renamed first, so that it is never incomplete; a URL loses the file `last` first."""
    if is_url(path):
        (path / last).unlink(missing_ok=True)
        path.fs.rm(path.path, recursive=True)  # type: ignore[attr-defined]
        return
    unfinished = path.rename(unfinished_path(path))
    shutil.rmtree(unfinished)
