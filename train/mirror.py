"""A model folder in an object store: a local copy that a run works in, and a thread that uploads what it writes.

A checkpoint's step is uploaded when orbax has committed it, its commit file last, and removed commit file first, so a
step in the store is complete or does not count, as on a disk. Only the store counts: a run on any machine starts from
its contents.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import jax

from elements_jax.data.object_store import (
    AnyPath,
    abort_uploads,
    download,
    is_url,
    objects_below,
    require_writable,
    retried,
    upload,
)
from elements_jax.user_cache import user_cache
from train.checkpoint import FOLDER

COMMITTED = "commit_success.txt"
"""The file that completes a step."""
_SECONDS = 2.0
"""Time between two checks for changed files."""


@contextmanager
def mirrored(model: AnyPath) -> Iterator[Path]:
    """Yield the local folder to work in: the model folder itself, or a copy of its URL that is uploaded as it changes.

    The end uploads everything, even if the run failed. Raises OSError naming the URL and, if the last upload failed,
    the local folder, which is then kept.
    """
    if not is_url(model):
        yield model
        return
    if jax.process_count() > 1:
        raise ValueError(f"--model {model}: several hosts need a folder that all of them mount, not a URL")
    require_writable(model)
    user_cache().mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=user_cache()))
    mirror = Mirror(model, folder / model.name)
    mirror.pull()
    mirror.start()
    try:
        yield mirror.local
    finally:
        try:
            mirror.close()
        except OSError as error:
            raise OSError(f"{error}; the run's files are kept in {mirror.local}") from error
        abort_uploads(model)  # of runs that were killed
        shutil.rmtree(folder)


class Mirror:
    """Keeps the objects below a URL equal to the files of a local folder."""

    def __init__(self, url: AnyPath, local: Path):
        self.url, self.local = url, local
        self._known: dict[str, tuple[int, int]] = {}
        """Size and time of each file when it was last transferred."""
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def pull(self) -> None:
        """Download the store's files, but only the newest complete checkpoint of each run."""
        self.local.mkdir(parents=True, exist_ok=True)
        try:
            names = list(objects_below(self.url))
        except FileNotFoundError:
            return  # a new model
        complete = sorted(step for name in names if _ends_step(name) and (step := _step(name)))
        newest = dict(complete)  # of each run
        for name in names:
            run, number = step = _step(name) or ("", 0)
            if step not in [("", 0), *complete]:
                self._remove(name)  # of a step whose upload was cut off
            elif step == ("", 0) or newest[run] == number:
                download(self.url / name, self.local / name)
                self._known[name] = _state(self.local / name)

    def start(self) -> None:
        """Upload changes from now on."""
        self._thread.start()

    def close(self) -> None:
        """Upload the rest. Raises OSError naming the URL."""
        self._ends.set()
        self._thread.join()
        self.push()

    def push(self) -> None:
        """Upload new and changed files, and remove deleted ones from the store."""
        there = {name: path for name, path in self._files() if not _hidden(name)}
        complete = {_step(name) for name in there if _ends_step(name)}
        for name in sorted(there, key=lambda name: (_ends_step(name), name)):
            if (step := _step(name)) is not None and step not in complete:
                continue  # orbax is writing it
            try:
                state = _state(there[name])
                if self._known.get(name) != state:
                    upload(there[name], self.url / name)
                    self._known[name] = state
            except FileNotFoundError:
                if there[name].exists():
                    raise  # the store itself is missing
        gone = self._known.keys() - there.keys()
        for name in sorted(gone, key=lambda name: (not _ends_step(name), name)):
            self._remove(name)
            del self._known[name]

    def _remove(self, name: str) -> None:
        retried(self.url / name, (self.url / name).unlink)

    def _follow(self) -> None:
        while not self._ends.wait(_SECONDS):
            try:
                self.push()
            except OSError as error:
                print(f"warning: {error}; retrying", flush=True)

    def _files(self) -> Iterator[tuple[str, Path]]:
        for folder, _, names in os.walk(self.local):
            for name in names:
                path = Path(folder, name)
                yield path.relative_to(self.local).as_posix(), path


def _step(name: str) -> tuple[str, int] | None:
    """Return the run and the step to which a file belongs; None if it is not part of a checkpoint."""
    parts = PurePosixPath(name).parts
    if FOLDER not in parts[:-1]:
        return None
    place = parts.index(FOLDER)
    number = parts[place + 1]
    return ("/".join(parts[:place]), int(number) if number.isdigit() else -1)


def _ends_step(name: str) -> bool:
    """Whether this file marks its step as complete; orbax writes others of the same name for the parts of a step."""
    return len(parts := PurePosixPath(name).parts) > 2 and parts[-1] == COMMITTED and parts[-3] == FOLDER


def _hidden(name: str) -> bool:
    """Whether a file is still being written."""
    return any(part.startswith(".") or ".orbax-checkpoint-tmp" in part for part in PurePosixPath(name).parts)


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
