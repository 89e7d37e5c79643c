"""Descriptive parts of image files that Pillow drops: chunks of PNG and RIFF, tags of TIFF."""

import struct
from collections.abc import Callable, Mapping
from typing import Any

from PIL import PngImagePlugin, TiffImagePlugin

from elements_jax.photograph.exif import xmp_without_gps

PNG_CHUNKS = (b"cHRM", b"gAMA", b"sRGB", b"tIME", b"tEXt", b"zTXt", b"iTXt")


TIFF_TAGS = (270, 271, 272, 305, 306, 315, 33432)  # description, maker, model, software, date, artist, copyright


def png_chunks(encoded: bytes, clean: Callable[[bytes], bytes | None] = lambda text: text) -> PngImagePlugin.PngInfo:
    """Return the descriptive chunks of a PNG file, cleaned by `clean`; chunks that become None are dropped."""
    chunks = PngImagePlugin.PngInfo()
    for kind, content in png_parts(encoded):
        if kind in PNG_CHUNKS and (kept := clean(content)) is not None:
            chunks.add(kind, kept)
    return chunks


def text_without_gps(text: bytes) -> bytes | None:
    """Remove XMP's GPS from a PNG's text; return None for EXIF or compressed XMP, in which GPS could be hidden."""
    if text.startswith(b"Raw profile type") or text.startswith(b"XML:com.adobe.xmp\0\1"):
        return None
    return xmp_without_gps(text)


def png_parts(encoded: bytes) -> list[tuple[bytes, bytes]]:
    parts, at = list[tuple[bytes, bytes]](), 8
    while at + 8 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, at)
        parts.append((kind, encoded[at + 8 : at + 8 + length]))
        at += 12 + length
    return parts


def has_riff_chunk(encoded: bytes, kind: bytes) -> bool:
    at = 12
    while at + 8 <= len(encoded):
        if encoded[at : at + 4] == kind:
            return True
        at += 8 + (struct.unpack_from("<I", encoded, at + 4)[0] + 1) // 2 * 2
    return False


def tiff_tags(tags: Mapping[int, Any]) -> TiffImagePlugin.ImageFileDirectory_v2:
    kept = TiffImagePlugin.ImageFileDirectory_v2()
    for tag in TIFF_TAGS:
        if tag in tags:
            kept[tag] = tags[tag]
    return kept
