"""Shards in Parquet files that contain images, as img2dataset and Hugging Face's `datasets` write them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from elements_jax.data.object_store import AnyPath, local_file
from partition.sources.sample import Failure, Sample, as_source_id

PARQUET = ".parquet"
_IMAGES = ("image", "jpg", "jpeg", "png", "webp", "img")
"""Columns that may hold the image: its bytes, or a struct with `bytes`."""
_CAPTIONS = ("caption", "text", "TEXT")
_MASKS = ("mask", "masks")
"""Columns that may hold object masks: a PNG, or a list of PNGs, as bytes or structs with `bytes`."""
_AT_ONCE = 16
"""Rows to read at a time."""


@dataclass(frozen=True)
class ParquetShard:
    """A Parquet file with an image in each row.

    The image is a column `image`, `jpg`, `jpeg`, `png`, `webp` or `img`: the bytes of an image file, or a struct with
    the field `bytes` (Hugging Face). The caption is `caption`, `text` or `TEXT`. Object masks are `mask` and `masks`: a
    PNG or a list of them, each a label map. Numbers and texts of the other columns, such as `url`, `similarity` or
    `aesthetic`, are metadata. The `key` names the image, or else its row number.
    """

    path: AnyPath
    name: str
    """Path below the source's folder. A source id is this path without its suffix, a slash, and the key."""
    bytes: int
    count: None = None

    def samples(self) -> Iterator[Sample | Failure]:
        """Yield the images in order. Raises OSError if an object store does not return the file."""
        prefix = as_source_id(self.name[: -len(PARQUET)])
        with local_file(self.path) as path:
            import pyarrow as pa
            import pyarrow.parquet as pq

            row = 0
            try:
                with pq.ParquetFile(path) as file:
                    images, masks, metadata = _columns(file.schema_arrow)
                    done: set[str] = set()
                    for batch in file.iter_batches(_AT_ONCE, columns=[images, *masks, *metadata]):
                        for values in batch.to_pylist():
                            key = str(values["key"]) if values.get("key") is not None else f"{row:07d}"
                            yield _sample(f"{prefix}/{key}", values, images, masks, repeated=key in done)
                            done.add(key)
                            row += 1
            except (OSError, ValueError, pa.ArrowException) as error:  # a damaged file
                yield Failure(self.name, f"cut short or damaged after {row} rows were read: {error}")


def require_pyarrow(name: str) -> None:
    """Raise ValueError if pyarrow, which reads Parquet files, is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{name} needs pyarrow: pip install 'elements-jax[parquet]'") from error


def _columns(schema: Any) -> tuple[str, list[str], list[str]]:
    """Return the columns of the image, of masks and of metadata. Raises ValueError if there is no image column."""
    import pyarrow.types as kinds

    def holds_bytes(kind: Any) -> bool:
        if kinds.is_struct(kind):
            return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
        return kinds.is_binary(kind) or kinds.is_large_binary(kind)

    def holds_masks(kind: Any) -> bool:
        of_list = kinds.is_list(kind) or kinds.is_large_list(kind)
        return holds_bytes(kind.value_type if of_list else kind)

    def is_plain(kind: Any) -> bool:
        tests = (kinds.is_string, kinds.is_large_string, kinds.is_integer, kinds.is_floating, kinds.is_boolean)
        return any(test(kind) for test in tests)

    images = [name for name in _IMAGES if name in schema.names and holds_bytes(schema.field(name).type)]
    if not images:
        urls = " (img2dataset downloads the images that URLs name)" if {"url", "URL"} & set(schema.names) else ""
        raise ValueError(f"no column of images, {' or '.join(_IMAGES)}, but {', '.join(schema.names)}{urls}")
    masks = [name for name in _MASKS if name in schema.names and holds_masks(schema.field(name).type)]
    return images[0], masks, [field.name for field in schema if is_plain(field.type)]


def _sample(source_id: str, values: dict[str, Any], images: str, masks: list[str], repeated: bool) -> Sample | Failure:
    encoded = _bytes_of(values.pop(images))
    columns = [values.pop(name) for name in masks]
    cells = [cell for column in columns for cell in (column if isinstance(column, list) else [column])]
    if repeated:
        return Failure(source_id, "its key occurred before")
    if not encoded:
        return Failure(source_id, str(values.get("error_message") or "its row holds no image"))
    caption = next((values[name] for name in _CAPTIONS if values.get(name)), "")
    return Sample(source_id, encoded, str(caption).strip(), values, tuple(filter(None, map(_bytes_of, cells))))


def _bytes_of(value: Any) -> bytes | None:
    return value.get("bytes") if isinstance(value, dict) else value
