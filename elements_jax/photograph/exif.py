"""EXIF metadata, changed in place: length and all other bytes stay, so that private offsets of makers remain valid.

An EXIF block is a TIFF file without an image: a header, and directories of 12-byte entries (EXIF 2.32, Section 4.6).
"""

import re
import struct
from collections.abc import Iterator

PREFIX = b"Exif\0\0"
GPS, THUMBNAIL_OFFSET, THUMBNAIL_LENGTH = 0x8825, 0x0201, 0x0202
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # bytes of a value by type
_XMP_GPS = re.compile(rb"""(\sexif:GPS\w+\s*=\s*(?:"[^"]*"|'[^']*'))|(<exif:GPS(\w+)\b.*?(?:/>|</exif:GPS\3>))""", re.S)


def without_gps(exif: bytes) -> bytes:
    """Remove the photograph's location. Raises ValueError if the metadata is too damaged to read."""
    block = _Block(exif)
    try:
        first = block.number(4, "I")
        for entry in block.entries(first):
            if block.number(entry, "H") == GPS:
                block.erase(block.number(entry + 8, "I"))
                count = block.number(first, "H")
                end = first + 2 + 12 * count + 4  # the address of the next directory follows the entries
                block.data[entry:end] = block.data[entry + 12 : end] + bytes(12)
                block.write(first, "H", count - 1)
                break
    except (struct.error, IndexError) as error:
        raise ValueError("the EXIF metadata is damaged, so that its GPS position cannot be found") from error
    return block.bytes()


def without_thumbnail(exif: bytes) -> bytes:
    """Remove the thumbnail, which would still show what an edit removed.

    Damaged metadata is processed as far as it can be read.
    """
    block = _Block(exif)
    try:
        first = block.number(4, "I")
        link = first + 2 + 12 * block.number(first, "H")
        if second := block.number(link, "I"):
            values = {block.number(entry, "H"): block.number(entry + 8, "I") for entry in block.entries(second)}
            if THUMBNAIL_OFFSET in values:
                block.clear(values[THUMBNAIL_OFFSET], values.get(THUMBNAIL_LENGTH, 0))
            block.erase(second)
            block.write(link, "I", 0)
    except (struct.error, IndexError):
        pass
    return block.bytes()


def xmp_without_gps(xmp: bytes) -> bytes:
    """Remove the location from Adobe's XMP metadata: its GPS properties become spaces."""
    return _XMP_GPS.sub(lambda match: b" " * len(match[0]), xmp)


class _Block:
    """The bytes of an EXIF block; addresses count from its TIFF header."""

    def __init__(self, exif: bytes):
        self._prefix = PREFIX if exif.startswith(PREFIX) else b""
        self.data = bytearray(exif[len(self._prefix) :])
        self._order = "<" if self.data[:2] == b"II" else ">"

    def bytes(self) -> bytes:
        return self._prefix + bytes(self.data)

    def number(self, at: int, kind: str) -> int:
        return struct.unpack_from(self._order + kind, self.data, at)[0]

    def write(self, at: int, kind: str, value: int) -> None:
        struct.pack_into(self._order + kind, self.data, at, value)

    def entries(self, directory: int) -> Iterator[int]:
        """Yield the addresses of a directory's entries."""
        yield from range(directory + 2, directory + 2 + 12 * self.number(directory, "H"), 12)

    def clear(self, start: int, length: int) -> None:
        stop = min(start + length, len(self.data))
        self.data[start:stop] = bytes(max(0, stop - start))

    def erase(self, directory: int) -> None:
        """Clear a directory and the values that its entries point to."""
        for entry in self.entries(directory):
            size = _SIZES.get(self.number(entry + 2, "H"), 1) * self.number(entry + 4, "I")
            if size > 4:
                self.clear(self.number(entry + 8, "I"), size)
        self.clear(directory, 2 + 12 * self.number(directory, "H") + 4)
