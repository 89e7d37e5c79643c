"""Files that are whole or not there."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".unfinished"
"""How the names of files end that are being written, or were when their process died."""


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which is put in the place of `path` once it is whole and on the disk, or else removed.

    Its own name is unlike any other's, so that several processes may write the same file, on several machines too.
    Raises OSError naming `path`.
    """
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk has none
        raise
    finally:
        unfinished.unlink(missing_ok=True)
