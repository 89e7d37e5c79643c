"""Sources of images: photographs in folders and lists, WebDataset's tar files, TensorFlow data sets.

`plan_shards` divides a source into shards; a shard is read from first to last image. Unreadable data becomes a
`Failure`, never an exception: one bad file must not stop a job of millions.
"""

import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from elements_jax.data.atomic import LARGEST_FILE
from elements_jax.data.object_store import AnyPath, as_path, is_url, objects_below
from partition.sources.parquet import PARQUET, ParquetShard, require_pyarrow
from partition.sources.sample import SUFFIXES, Failure, Sample, Shard, as_source_id, even_ranges, read_sample
from partition.sources.tar import TARS, TarShard, is_tar
from partition.sources.tfds import tfds_shards

_FILES = (*TARS, PARQUET)
"""Suffixes of files that are shards."""


def plan_shards(
    source: str, shard_size: int, skip: Iterable[AnyPath] = (), largest_file: int = LARGEST_FILE
) -> list[Shard]:
    """Return the shards of a source, in order. The same source gives the same shards.

    Args:
      source: one of
        a folder: the photographs in it and below, or else the .tar files, each a shard, or else the .parquet files;
        a .tar, .tar.gz or .tgz file (WebDataset's layout, which img2dataset writes);
        a .parquet file with images in it (`parquet_shards`);
        a .txt or .lst file: photographs or .tar or .parquet files, a path a line, relative ones from the list's folder;
        tfds:NAME[/CONFIG][:SPLIT] or tfds:FOLDER[:SPLIT]: a data set that TensorFlow Datasets has prepared, split
        `train` by default.
      shard_size: most images of a shard, if the source itself has no shards.
      skip: folders to skip, besides hidden ones and those named `masks`.
      largest_file: bytes of the largest file to read; larger ones are a `Failure`.

    Raises:
      ValueError: if the source does not exist, has no image, or is a list with lines that are not paths.
    """
    if shard_size < 1:
        raise ValueError(f"a shard must have at least 1 image, got {shard_size}")
    if source.startswith("tfds:"):
        return tfds_shards(source, shard_size)
    shards: list[Shard] = []
    path = as_path(source)
    if (is_url(source) and not source.lower().endswith((*TARS, PARQUET, ".txt", ".lst"))) or path.is_dir():
        shards = _folder_shards(path, shard_size, skip)
    elif path.is_file() and path.name.lower().endswith(_FILES):
        shards = _file_shards(path.parent, [path.name])
    elif path.is_file() and path.suffix.lower() in (".txt", ".lst"):
        shards = _list_shards(path, shard_size)
    if shards:
        return [
            replace(shard, largest_file=largest_file) if isinstance(shard, PhotoShard | TarShard) else shard
            for shard in shards
        ]
    raise ValueError(
        f"{source}: no such folder, .tar file, or list of paths (.txt or .lst); a data set of TensorFlow Datasets is "
        "written tfds:NAME"
    )


@dataclass(frozen=True)
class PhotoShard:
    """Photographs, each a file."""

    name: str
    folder: AnyPath
    photos: tuple[str, ...]
    """Paths below the folder, or absolute."""
    bytes: None = None
    largest_file: int = LARGEST_FILE
    """Bytes of the largest file to read."""

    @property
    def count(self) -> int:
        return len(self.photos)

    def samples(self) -> Iterator[Sample | Failure]:
        for photo in self.photos:
            source_id = as_source_id(photo)
            try:
                yield read_sample(self.folder / photo, source_id, self.largest_file)
            except (OSError, ValueError) as error:
                if is_url(self.folder) and not isinstance(error, FileNotFoundError | ValueError):
                    raise  # the store failed, not the photograph
                yield Failure(source_id, str(error))


def _photo_shards(folder: AnyPath, photos: Sequence[str], shard_size: int) -> list[Shard]:
    shards: list[Shard] = []
    for first, last in even_ranges(len(photos), shard_size):
        part = tuple(photos[first:last])
        ids = [as_source_id(photo) for photo in part]
        checksum = zlib.crc32("\n".join(ids).encode())  # reveals a removed photograph between the two
        shards.append(PhotoShard(f"{ids[0]} to {ids[-1]} ({checksum:08x})", folder, part))
    return shards


def _file_shards(folder: AnyPath, names: Sequence[str]) -> list[Shard]:
    """A shard for each .tar or .parquet file."""
    sizes: dict[str, int] = {}
    if is_url(folder) and len(names) > 1:  # one request instead of one for each
        sizes = {name: info["size"] for name, info in objects_below(folder).items()}
    shards: list[Shard] = []
    for name in names:
        kind = ParquetShard if name.lower().endswith(PARQUET) else TarShard
        if kind is ParquetShard:
            require_pyarrow(name)
        shards.append(kind(folder / name, as_source_id(name), sizes.get(name) or (folder / name).stat().st_size))
    return shards


def _raise(error: OSError) -> None:
    raise error  # os.walk would skip an unreadable folder


def _folder_shards(folder: AnyPath, shard_size: int, skip: Iterable[AnyPath]) -> list[Shard]:
    names = sorted(_files_below(folder, skip), key=lambda name: name.split("/"))
    found = [name for name in names if name.lower().endswith((*SUFFIXES, *TARS))]
    tars = [name for name in found if is_tar(name)]
    if not found and (tables := [name for name in names if name.lower().endswith(PARQUET)]):
        return _file_shards(folder, tables)  # next to images, img2dataset's Parquet files hold only metadata
    if not found:
        raise ValueError(
            f"{folder}: found no photographs, .tar files or .parquet files (looked for {' '.join(SUFFIXES)}, also in "
            "subfolders)"
        )
    if not tars:
        return _photo_shards(folder, found, shard_size)
    if len(tars) < len(found):
        photo = next(name for name in found if not is_tar(name))
        raise ValueError(
            f"{folder}: both .tar files, such as {tars[0]}, and {len(found) - len(tars)} photographs, such as {photo}: "
            "use one folder for each kind, or a list of paths"
        )
    return _file_shards(folder, tars)


def _files_below(folder: AnyPath, skip: Iterable[AnyPath]) -> Iterator[str]:
    """Yield relative paths of files in a folder and below, except hidden ones and those in `skip` and `masks`."""
    if is_url(folder):
        skipped_urls = tuple(f"{str(path).rstrip('/')}/" for path in skip)
        for name in objects_below(folder):
            *folders, last = name.split("/")
            hidden = "masks" in folders or any(part.startswith(".") for part in (*folders, last))
            if last and not hidden and not str(folder / name).startswith(skipped_urls):
                yield name
        return
    skipped = {path.resolve() for path in skip if not is_url(path)}
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [
            name
            for name in folders
            if name != "masks" and not name.startswith(".") and Path(parent, name).resolve() not in skipped
        ]
        below = Path(parent).relative_to(folder)
        yield from ((below / name).as_posix() for name in names if not name.startswith("."))


def ignored_files(source: str, skip: Iterable[AnyPath] = ()) -> dict[str, int]:
    """Count by suffix the files of a source folder that are neither used nor read next to a photograph."""
    if source.startswith("tfds:") or not (folder := as_path(source)).is_dir():
        return {}
    names = list(_files_below(folder, skip))
    images = (*SUFFIXES, *TARS)
    taken = images if any(name.lower().endswith(images) for name in names) else (PARQUET,)
    ignored = (Path(name) for name in names if not name.lower().endswith((*taken, ".txt", ".json")))
    return dict(Counter(path.suffix.lower() or "no suffix" for path in ignored).most_common())


def _list_shards(path: AnyPath, shard_size: int) -> list[Shard]:
    folder = path.parent.absolute()
    lines: dict[str, int] = {}
    problems = []
    for number, text in enumerate(path.read_text("utf-8-sig", "surrogateescape").split("\n"), start=1):
        if not (line := text.strip()):
            continue
        full_path = os.path.normpath(line if line.startswith("/") else f"{folder}/{line}")
        name = full_path.removeprefix(f"{folder}/")
        if name in lines:
            problems.append(f"line {number}: {line} repeats line {lines[name]}")
        elif not name.lower().endswith((*SUFFIXES, *_FILES)):
            problems.append(f"line {number}: {line} is neither a photograph ({' '.join(SUFFIXES)}) nor a .tar file")
        elif name.lower().endswith(_FILES) and not Path(full_path).is_file():
            problems.append(f"line {number}: no such file: {line}")
        lines.setdefault(name, number)
    tars = [name for name in lines if name.lower().endswith(_FILES)]
    if not lines:
        problems.append("no line")
    if tars and len(tars) < len(lines):
        photo = next(name for name in lines if not name.lower().endswith(_FILES))
        problems.append(f"lines {lines[tars[0]]} and {lines[photo]}: .tar files and photographs need separate lists")
    if problems:
        more = [f"and {len(problems) - 10} more"] if len(problems) > 10 else []
        raise ValueError(f"{path}: not a list of paths:" + "".join(f"\n  {line}" for line in problems[:10] + more))
    return _file_shards(folder, tars) if tars else _photo_shards(folder, list(lines), shard_size)
