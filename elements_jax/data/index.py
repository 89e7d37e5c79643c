"""Records by their `source_id`."""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tqdm import tqdm

from elements_jax.data.record import Record, read_source_id
from elements_jax.data.tfrecord import TFRecordSource, find_shards


class RecordIndex(Mapping[str, Record]):
    """The records of a folder, over all splits. A record is read on access, without its object masks.

    Building the index reads every record once and decodes no image.
    """

    def __init__(self, folder: Path):
        """Build the index. Raises ValueError for no records, a damaged one, or two with the same `source_id`."""
        shards = [path for _, paths in sorted(find_shards(folder).items()) for path in paths]
        self._source = TFRecordSource(shards)
        if not len(self._source):
            raise ValueError(f"{folder}: contains no records of `elements partition`")
        self._number: dict[str, int] = {}
        for number in tqdm(range(len(self._source)), desc="records", unit="record", delay=5):
            source_id = read_source_id(self._source[number], self._source.where(number))
            if (other := self._number.setdefault(source_id, number)) != number:
                both = " and ".join(map(self._source.where, (other, number)))
                raise ValueError(f"source_id {source_id!r} must name one record, but names two: {both}")
        sizes = "".join(f"{path.name} {path.stat().st_size}\n" for path in shards)
        self.identity = f"{len(self)} records, {zlib.crc32(sizes.encode()):08x}"
        """Identifies these records, by the names and sizes of their files."""

    def __getitem__(self, source_id: str) -> Record:
        """Read a record. Raises KeyError, or ValueError that names an unreadable record."""
        number = self._number[source_id]
        return Record.from_example(self._source[number], self._source.where(number), lambda _: [])

    def __contains__(self, source_id: object) -> bool:
        return source_id in self._number  # Mapping's own method would read the record

    def __iter__(self) -> Iterator[str]:
        return iter(self._number)

    def __len__(self) -> int:
        return len(self._number)


def read_split(folder: Path, split: str) -> dict[str, Record]:
    """Read all records of a small split by `source_id`, in order. Raises ValueError if the split does not exist."""
    splits = find_shards(folder)
    if split not in splits:
        raise ValueError(f"{folder} has no split {split!r}; it has {', '.join(sorted(splits)) or 'none'}")
    source = TFRecordSource(splits[split])
    records = (Record.from_example(source[i], source.where(i)) for i in range(len(source)))
    return {record.source_id: record for record in records}
