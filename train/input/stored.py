"""The records of a split, in one folder or several that are read as one set, as training reads them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool
from tqdm import tqdm

from elements_jax.config import ElementsConfig
from elements_jax.data.record import CACHED, DROPPED, Outline, Record, read_object_masks, read_outline
from elements_jax.data.tfrecord import TFRecordSource, find_shards, shard_path

Tokenize = Callable[[str], np.ndarray]
Folders = Path | Sequence[Path]
"""One folder of records, or several that are read as one set, in this order."""
Example = dict[str, np.ndarray]
Choose = Callable[[int], Iterable[int]]
"""From the number of a record's object masks to the indices of those to read."""

_CHECKED = 20_000  # records of a set, evenly spaced, whose sizes are checked before training, in two seconds


@runtime_checkable
class Records(Protocol):
    """A set of records, on disk or in memory."""

    masks: bool
    """Whether object masks are read."""
    any_masks: bool
    """Whether any record has an object mask, if they are read."""

    def __len__(self) -> int: ...

    def read(self, number: int, choose_masks: Choose) -> tuple[Example, Bool[np.ndarray, "M H W"]]:
        """Read the arrays of one record by their names in a batch, and the chosen ones of its object masks."""

    def object_masks(self, number: int, choose_masks: Choose) -> Bool[np.ndarray, "M H W"]:
        """Read only the chosen object masks."""


def label_dtype(num_elements: int) -> np.dtype:
    """Return the smallest integer type that holds `num_elements`; label maps are sent to the devices in it."""
    return np.min_scalar_type(num_elements)


def splits(records: Folders) -> set[str]:
    """Return the names of the splits that at least one folder has."""
    return {split for folder in _folders(records) for split in find_shards(folder)}


def count(records: Folders, split: str) -> int:
    """Return the number of records of a split. Raises ValueError as `dataset` does."""
    return len(_source(records, split))


def describe(records: Folders, split: str) -> dict[str, Any]:
    """Return JSON that identifies the records of a split: their number, a checksum (`identity`), and the names of the
    folders, which may be moved. Raises ValueError as `dataset` does."""
    source = _source(records, split)
    names = [folder.resolve().name for folder in _folders(records)]
    return {"records": len(source), "identity": source.identity, "folders": names}


def captions(records: Folders, split: str) -> Iterator[str]:
    """Return the captions of a split, in the order of the files. Raises ValueError as `dataset` does."""
    source = _source(records, split)
    return (_record(source, record).caption for record in range(len(source)))


def require_fit(records: Folders, split: str, elements: ElementsConfig) -> None:
    """Raise ValueError naming a record whose image size or number of elements differs from the model's.

    In a set of more than 20,000 records, only that many are checked, evenly spaced over all files.
    """
    source = _source(records, split)
    want = (elements.image_size,) * 2 + (elements.num_elements,)
    numbers = np.linspace(0, len(source) - 1, min(len(source), _CHECKED)).astype(int)
    for number in tqdm(numbers, desc="checking records", unit="record", delay=5):
        outline = read_outline(source[number], source.where(number))
        if (have := outline[1:4]) != want:
            raise ValueError(
                f"{source.where(number)}: the model takes {_described(*want)}, record {outline.source_id!r} has "
                f"{_described(*have)}"
            )


def require_masks(records: Folders, split: str, element_dropout: float) -> None:
    """Raise ValueError if no record has an object mask, which image element dropout needs (Section 3.3)."""
    if not Stored(records, split, None, masks=True, cached=False).any_masks:
        raise ValueError(
            f"{_named(records)}: no record of split {split!r} has an object mask, and element_dropout = "
            f"{element_dropout} lays them over the images: write records with masks (`elements partition --masks auto` "
            "with SAM, or masks of your own), add a folder that has some to --data, or give "
            "--train.element-dropout 0"
        )


class Stored:
    """The records of a split on disk; each is decoded when it is read."""

    def __init__(
        self,
        records: Folders,
        split: str,
        tokenize: Tokenize | None,
        *,
        masks: bool,
        cached: bool,
    ):
        """Raise ValueError if the split has no shards, or a shard is missing or damaged."""
        self.masks = masks
        self._source, self._tokenize, self._cached = _source(records, split), tokenize, cached
        first = self._outline(0)
        self._size = first.height, first.width, first.num_elements
        self._dtype = label_dtype(first.num_elements)
        self._without: set[int] = set()  # records known to have no mask
        self.any_masks = masks and any(
            # In random order: perhaps only the last folder has masks.
            self._outline(number).object_masks
            for number in np.random.default_rng(0).permutation(len(self))
        )

    def __len__(self) -> int:
        return len(self._source)

    def read(self, number: int, choose_masks: Choose) -> tuple[Example, Bool[np.ndarray, "M H W"]]:
        """Read as `Records.read` does. Raises ValueError naming a record that is incomplete or unlike the first."""
        record = _record(self._source, number, choose_masks)
        have = (*record.image.shape[:2], count := record.settings["num_elements"])
        if have != self._size:
            raise ValueError(
                f"{self._source.where(number)} ({record.source_id}): expected {_described(*self._size)} as in the "
                f"first record, got {_described(*have)}"
            )
        example = {
            "image": record.image,
            "label_map": np.where(record.label_map == DROPPED, count, record.label_map).astype(self._dtype),
        }
        if self._tokenize is not None:
            example["tokens"] = np.asarray(self._tokenize(record.caption), np.int32)
        if self._cached:
            if missing := [name for name in CACHED if name not in record.cached]:
                where = self._source.where(number)
                raise ValueError(f"{where}: no {', '.join(missing)}, which `elements cache` writes")
            example |= record.cached
        return example, record.object_masks

    def object_masks(self, number: int, choose_masks: Choose) -> Bool[np.ndarray, "M H W"]:
        """Read as `Records.object_masks` does. Raises ValueError as `read` does."""
        if number in self._without:
            return np.zeros((0, *self._size[:2]), bool)
        masks = read_object_masks(self._source[number], where := self._source.where(number), choose_masks)
        if not len(masks):
            self._without.add(number)
        elif masks.shape[1:] != self._size[:2]:
            raise ValueError(f"{where}: expected object masks of {self._size[:2]} px, got {masks.shape[1:]}")
        return masks

    def count_masks(self) -> int:
        """Return the number of object masks in all records."""
        return sum(self._outline(number).object_masks for number in range(len(self)))

    def _outline(self, number: int) -> Outline:
        return read_outline(self._source[number], self._source.where(number))


def _folders(records: Folders) -> Sequence[Path]:
    return [records] if isinstance(records, Path) else records


def _named(records: Folders) -> str:
    return ", ".join(map(str, _folders(records)))


def _source(records: Folders, split: str) -> TFRecordSource:
    shards = [path for folder in _folders(records) for path in find_shards(folder).get(split, [])]
    if not shards:
        pattern = shard_path(Path(), split, 0, 1).name.replace("00000-of-00001", "?????-of-?????")
        raise ValueError(f"{_named(records)}: no records of split {split!r}; expected files {pattern}")
    source = TFRecordSource(shards)
    if not len(source):
        raise ValueError(f"{_named(records)}: split {split!r} holds no record")
    return source


def _record(source: TFRecordSource, number: int, choose_masks: Choose = lambda _: []) -> Record:
    return Record.from_example(source[number], source.where(number), choose_masks)


def _described(height: int, width: int, num_elements: int) -> str:
    return f"images of {height} x {width} px in {num_elements} elements"
