"""Folder locks: a command that writes a folder in parts refuses to start while another one writes it."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from elements_jax.data.atomic import new_file
from elements_jax.data.object_store import AnyPath, is_url

LOCK, OWNER = ".lock", ".owner.json"


@contextmanager
def locked(folder: AnyPath, what: str) -> Iterator[None]:
    """Lock a folder, and create it if needed. `what` names the command, for the error of the next one.

    The operating system releases the lock when the process ends, even if it is killed; `.lock` itself stays. Locks work
    between the machines of a network file system that supports flock, as NFS 4 does. On one that does not, `filelock`
    creates a file exclusively and recognises a stale one only on the machine that left it.

    An object store has no locks: a URL is not locked, and the last of two jobs wins.

    Raises ValueError that names the owner, or OSError that names the folder.
    """
    if is_url(folder):
        yield
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"{folder} is in use by {_owner(folder)}; wait for it, or choose another folder") from None
    try:
        start = datetime.now().astimezone().isoformat(timespec="seconds")
        owner = {"what": what, "host": socket.gethostname(), "process": os.getpid(), "start": start}
        with new_file(folder / OWNER) as file:
            file.write(json.dumps(owner).encode())
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / OWNER).read_bytes())
        return f"`{owner['what']}`, process {owner['process']} on {owner['host']}, started {owner['start']}"
    except (OSError, ValueError, TypeError, KeyError):  # it is starting or exiting
        return "another process"
