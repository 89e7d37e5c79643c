"""Paths that are URLs: s3://, gs:// and other object stores that fsspec opens.

A local path is a `pathlib.Path`. A URL is a `UPath` of universal-pathlib, which has the same methods. An object appears
under its name only when it is uploaded completely, like the files of `data.atomic`. Code that needs a real file (memory
maps, reads at any offset) works on a copy in the cache; see `local_copy`.
"""

import dataclasses
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from elements_jax.user_cache import user_cache

if TYPE_CHECKING:
    AnyPath = Path
else:
    AnyPath = object  # a Path, or a UPath, which need not be installed

UNFINISHED = ".unfinished"
"""Suffix of files and folders that are being written, or were left by a process that died."""
ATTEMPTS = 5
"""Attempts per request, on top of the retries of the store's own library."""
_EXTRAS = {"s3": "s3", "gs": "gcs", "gcs": "gcs"}
"""The extra of this package that installs the library for a scheme."""
_WRITTEN = ("out", "drawing", "pictures")
"""Command fields that are files or folders to write."""
T = TypeVar("T")


def unfinished_path(path: Path) -> Path:
    """Return a unique temporary path for a file or folder that is renamed when complete."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")


def is_url(path: object) -> bool:
    """Tell whether a path or string is a URL."""
    return re.match(r"[a-z][a-z0-9+.-]*://", str(path)) is not None


def as_path(text: str | AnyPath) -> AnyPath:
    """Convert a string to a path. Raises OSError if the library for such URLs is not installed, or there is none."""
    if not is_url(text):
        return Path(text)
    scheme = str(text).partition("://")[0]
    try:
        import fsspec
        from upath import UPath

        # Other processes write, too, so listings must not be cached.
        fsspec.config.conf.setdefault(scheme, {}).setdefault("use_listings_cache", False)
        path: Any = UPath(text)  # has the methods of a Path
        path.fs  # noqa: B018  imports the library
    except ImportError as error:
        what = f"'elements-jax[{_EXTRAS[scheme]}]'" if scheme in _EXTRAS else "universal-pathlib, and fsspec's library"
        raise OSError(f"{text}: {scheme}:// needs more packages: pip install {what} ({error})") from error
    except ValueError as error:
        raise OSError(f"{text}: unknown scheme {scheme}:// ({error})") from error
    return path


def require_writable(folder: AnyPath) -> None:
    """Raise OSError if nothing can be written below a URL, with the reason: credentials, permission, no such bucket."""
    if not is_url(folder):
        return
    probe = folder / f".probe-{uuid.uuid4().hex}"
    retried(folder, lambda: probe.write_bytes(b""))
    retried(folder, probe.unlink)


@contextmanager
def new_object(path: AnyPath) -> Iterator[BinaryIO]:
    """Open a file to write; it is uploaded to a URL once it is complete. Raises OSError that names the URL."""
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, "object")
        with local.open("wb") as file:
            yield file
        upload(local, path)


def upload(local: Path, path: AnyPath) -> None:
    """Upload a file, completely or not at all. Raises OSError that names the URL."""
    fs, key = path.fs, path.path  # type: ignore[attr-defined]
    retried(path, lambda: fs.put_file(str(local), key))


def download(path: AnyPath, local: Path) -> Path:
    """Copy an object to a local file, completely or not at all. Raises OSError that names the URL."""
    fs, key = path.fs, path.path  # type: ignore[attr-defined]
    local.parent.mkdir(parents=True, exist_ok=True)
    unfinished = unfinished_path(local)
    try:
        retried(path, lambda: fs.get_file(key, str(unfinished)))
        if (size := unfinished.stat().st_size) != (expected := retried(path, lambda: fs.info(key))["size"]):
            raise OSError(f"{path}: got {size} of {expected} bytes")
        unfinished.replace(local)
    finally:
        unfinished.unlink(missing_ok=True)
    return local


def abort_uploads(folder: AnyPath) -> None:
    """Remove unfinished uploads below a URL, which S3 keeps and charges for. This includes uploads of other processes.

    If the store does not permit listing or removing them, a message is printed and nothing else happens.
    """
    fs: Any = getattr(folder, "fs", None)
    if not hasattr(fs, "list_multipart_uploads"):
        return
    bucket, _, prefix = folder.path.rstrip("/").partition("/")  # type: ignore[attr-defined]
    try:
        for unfinished in retried(folder, lambda: fs.list_multipart_uploads(bucket)):
            key, upload_id = unfinished["Key"], unfinished["UploadId"]
            if not prefix or key.startswith(f"{prefix}/"):
                retried(folder, partial(fs.abort_mpu, bucket, key, upload_id))
    except PermissionError as error:
        print(f"unfinished uploads, if any, are left: {error}")


@contextmanager
def new_objects(folder: AnyPath, last: str) -> Iterator[Path]:
    """Yield a local folder whose files are uploaded below a URL at the end, the one named `last` after all others.

    If `last` exists, all files do. Raises OSError that names the URL.
    """
    with tempfile.TemporaryDirectory() as local:
        yield Path(local)
        files = sorted(path for path in Path(local).rglob("*") if path.is_file())
        for file in sorted(files, key=lambda file: file.name == last):
            upload(file, folder / file.relative_to(local).as_posix())


@contextmanager
def with_local_paths(command: T, keep: Collection[str] = ()) -> Iterator[T]:
    """Yield a command's settings with local copies in place of URLs, and upload its output afterwards.

    A file may have others next to it, which are uploaded as well.

    Raises OSError that names a URL that cannot be written, before anything is downloaded; or ValueError if it is also
    an input, unless the command has an option `overwrite` that is set.

    Args:
        command: a dataclass; nested dataclasses are included.
        keep: names of the fields whose URLs the command handles itself.
    """
    read, written = _urls(command)

    def require_not_read(url: Any) -> None:
        if url in read and not getattr(command, "overwrite", False):
            raise ValueError(f"{url} is also an input; choose another output file")

    for url in written:
        require_not_read(url)
        require_writable(url.parent if url.suffix else url)
    with tempfile.TemporaryDirectory() as folder:
        uploads: dict[Path, AnyPath] = {}

        def localised(settings: Any) -> Any:
            changed = {}
            for field in dataclasses.fields(settings):
                value = getattr(settings, field.name)
                if dataclasses.is_dataclass(value):
                    changed[field.name] = localised(value)
                elif is_url(value) and not isinstance(value, str) and field.name not in keep:
                    if field.name in _WRITTEN:
                        uploads[new := Path(folder, field.name)] = value
                        new.mkdir()
                        changed[field.name] = new / value.name
                    else:
                        changed[field.name] = local_copy(value)
            return dataclasses.replace(settings, **changed)

        yield localised(command)
        for local, url in uploads.items():
            for file in sorted(path for path in local.rglob("*") if path.is_file()):
                require_not_read(target := url.parent / file.relative_to(local).as_posix())
                upload(file, target)
            print(f"uploaded to {url}")


def _urls(settings: Any) -> tuple[list[Any], list[Any]]:
    """Return the URLs that a command reads, and those that it writes."""
    read, written = list[Any](), list[Any]()
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            inner = _urls(value)
            read, written = read + inner[0], written + inner[1]
        elif is_url(value) and not isinstance(value, str):
            (written if field.name in _WRITTEN else read).append(value)
    return read, written


@contextmanager
def local_file(path: AnyPath) -> Iterator[Path]:
    """Yield the file itself, or a temporary copy of the object. Raises OSError that names the URL."""
    if not is_url(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield download(path, Path(folder, path.name))


def local_copy(path: AnyPath, leave_out: str = "") -> Path:
    """Return the path itself, or the cached copy of an object or a folder of objects.

    Objects that are missing or outdated in the cache are downloaded, except those in the subfolder `leave_out`. Raises
    OSError that names the URL, or the disk without room.
    """
    if not is_url(path):
        return path
    folder = user_cache()
    copy = folder / re.sub(r"://", "/", str(path).rstrip("/"))
    found = objects_below(path)
    found = {name: info for name, info in found.items() if not leave_out or not name.startswith(f"{leave_out}/")}
    versions = {name: _version(info) for name, info in found.items()}
    stale = {name for name, version in versions.items() if _kept_version(copy / name) != version}
    size, free = sum(found[name]["size"] for name in stale), shutil.disk_usage(_existing(copy)).free
    if size > free:
        raise OSError(f"{path}: its {size / 1e9:.1f} GB do not fit into the {free / 1e9:.1f} GB free at {folder}")
    for name in stale:
        download(path / name if name else path, copy / name)
        _version_file(copy / name).parent.mkdir(parents=True, exist_ok=True)
        _version_file(copy / name).write_text(versions[name])
    if copy.is_dir():
        # Other files are no longer in the store. Another process may be downloading the unfinished ones.
        for file in [file for file in copy.rglob("*") if file.is_file() and not file.name.endswith(UNFINISHED)]:
            if file.relative_to(copy).as_posix() not in found:
                file.unlink()
    return copy


def objects_below(path: AnyPath) -> dict[str, dict[str, Any]]:
    """Return fsspec's information on each object below a URL, by relative path; an object itself has the empty path.

    Raises OSError that names the URL if nothing exists there.
    """
    fs, key = path.fs, path.path.rstrip("/")  # type: ignore[attr-defined]
    found = retried(path, lambda: fs.find(key, detail=True))
    found = {name.removeprefix(key).lstrip("/"): info for name, info in found.items() if info["type"] == "file"}
    found = {name: info for name, info in sorted(found.items()) if not (name == "" and len(found) > 1)}
    if not found:
        raise FileNotFoundError(f"{path}: nothing exists there")
    return found


def retried(path: AnyPath, request: Callable[[], T]) -> T:
    """Return the result of a request. Raises OSError naming the URL after `ATTEMPTS` failures or a permanent one."""
    for attempt in range(ATTEMPTS):
        try:
            return request()
        except Exception as error:  # each library has its own exceptions
            named = _named(path, error)
            if attempt == ATTEMPTS - 1 or isinstance(named, FileNotFoundError | PermissionError):
                raise named from error
            time.sleep(0.2 * 2**attempt)
    raise AssertionError("not reached")


def _named(path: AnyPath, error: Exception) -> OSError:
    # gcsfs has no class for a refusal: its HttpError has a code, and its OSError a text.
    refused = getattr(error, "code", None) in (401, 403) or str(error).startswith("Forbidden: ")
    kinds = (FileNotFoundError, PermissionError)
    kind = PermissionError if refused else next((kind for kind in kinds if isinstance(error, kind)), OSError)
    reason = " ".join(str(error).split()) or type(error).__name__
    return kind(reason if str(path) in reason else f"{path}: {reason}")


def _version(info: dict[str, Any]) -> str:
    """Identify a version of an object."""
    names = ("ETag", "etag", "generation", "md5Hash", "LastModified", "mtime", "created")
    known = next((info[name] for name in names if info.get(name)), "")
    return f"{info['size']} {known}"


def _version_file(copy: Path) -> Path:
    """Return the file with the version of a cached copy. It is stored elsewhere, so that the copy equals the store."""
    return user_cache() / "versions" / f"{copy.relative_to(user_cache())}.version"


def _kept_version(copy: Path) -> str:
    """Return the version of a cached copy; "" if there is none."""
    return _version_file(copy).read_text() if copy.is_file() and _version_file(copy).is_file() else ""


def _existing(path: Path) -> Path:
    """Return the nearest existing parent folder."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
