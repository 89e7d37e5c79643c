"""An encoded image of a source, and the interface of a source's shard."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from elements_jax.data.atomic import LARGEST_FILE, read_file
from elements_jax.data.object_store import AnyPath

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
"""Suffixes of image files. A caption ends in .txt, metadata in .json."""


@dataclass(frozen=True)
class Sample:
    """An image of a source, not yet decoded."""

    source_id: str
    """Unique in the source, and the same in every run: a path without its machine-dependent part."""
    encoded: bytes
    """The image file."""
    caption: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The JSON next to the image, such as img2dataset's; empty if there is none."""
    masks: tuple[bytes, ...] = ()
    """PNGs of object masks that the source holds with the image: label maps; each value but 0 is one object."""


@dataclass(frozen=True)
class Failure:
    """An image, or the rest of a shard, that could not be read, and why."""

    source_id: str
    reason: str


@dataclass(frozen=True)
class Ignored:
    """A file of a shard that is neither an image nor text or metadata next to one."""

    source_id: str
    reason: str
    """The kind of file: its suffix, or a link."""


class Shard(Protocol):
    """A part of a source that is read in one go. It is small and can be pickled."""

    @property
    def name(self) -> str:
        """Name of the shard for people; another name means other images."""

    @property
    def count(self) -> int | None:
        """Number of its images; None if only reading it tells."""

    @property
    def bytes(self) -> int | None:
        """Size of its file; None if it is not one file."""

    def samples(self) -> Iterator[Sample | Failure | Ignored]:
        """Yield the images in order, each with its caption and metadata, and the ignored files."""


def read_sample(path: AnyPath, source_id: str, largest_file: int = LARGEST_FILE) -> Sample:
    """Read the photograph at `path` with the caption (STEM.txt) and the metadata (STEM.json) next to it, if any.

    Raises OSError, or ValueError naming the file that is neither UTF-8 text nor a JSON object, or that `read_file`
    refuses.
    """
    sidecars = [file for file in (path.with_suffix(".txt"), path.with_suffix(".json")) if file.is_file()]
    return assemble(source_id, [(file.name, read_file(file, largest_file)) for file in (path, *sidecars)])


def assemble(source_id: str, files: Sequence[tuple[str, bytes]]) -> Sample:
    """Make a sample from the names and contents of its files. Raises ValueError naming files that do not fit."""

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
    text = text.encode(errors="replace").decode()  # JSON may hold half a character, but a record cannot
    return Sample(source_id, images[0][1], text, metadata)


def as_source_id(path: str) -> str:
    """Return a path as text: never absolute, with bytes that are not UTF-8 escaped."""
    return path.lstrip("/").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def even_ranges(count: int, shard_size: int) -> list[tuple[int, int]]:
    """Return first and last (exclusive) of each shard: as few and as even shards as possible."""
    shards = -(-count // shard_size)
    edges = [count * shard // shards for shard in range(shards + 1)]
    return list(pairwise(edges))
