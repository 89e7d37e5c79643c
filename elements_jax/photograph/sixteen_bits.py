"""16-bit colour, which Pillow does not read or write: PNG and TIFF."""

import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from elements_jax.photograph.chunks import TIFF_TAGS, png_parts


def lower_bytes(encoded: bytes) -> "UInt8[np.ndarray, 'H W C'] | None":
    """Decode the lower bytes of 16-bit colour by swapping the byte order, since Pillow keeps only the upper ones.

    Returns None for 8-bit files.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        tiles, depth = list(image.tile), False
        for i, tile in enumerate(tiles):
            arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
            rawmode = str(arguments[0]) if arguments else ""
            if image.mode in ("RGB", "RGBA", "LA") and ";16" in rawmode:
                if image.mode == "LA":
                    raise ValueError("16-bit grey with transparency cannot be edited; convert it to 16-bit RGB first")
                depth = True
                swapped = rawmode[:-1] + ("L" if rawmode.endswith("B") else "B")
                args = (swapped, *arguments[1:]) if isinstance(tile.args, tuple) else swapped
                tiles[i] = tile._replace(args=args)
        if not depth:
            return None
        image.tile = tiles
        return np.array(image)


def encode_deep_png(pixels: UInt16[np.ndarray, "H W C"], options: Mapping[str, Any]) -> bytes:
    """Encode a 16-bit PNG. Pillow writes all but the pixels; rows are stored as differences from the row above."""
    height, width, channels = pixels.shape
    around = io.BytesIO()
    Image.new("L", (1, 1)).save(around, "PNG", **options)
    rows = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.full((height, rows.shape[1] + 1), 2, np.uint8)  # the filter "up"
    filtered[:, 1:] = rows
    filtered[1:, 1:] -= rows[:-1]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    replaced = {b"IHDR": header, b"IDAT": zlib.compress(filtered.tobytes(), 6)}
    file = bytearray(b"\x89PNG\r\n\x1a\n")
    for kind, content in png_parts(around.getvalue()):
        content = replaced.get(kind, content)
        file += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return bytes(file)


def encode_deep_tiff(pixels: UInt16[np.ndarray, "H W C"], options: Mapping[str, Any]) -> bytes:
    try:
        import tifffile
    except ImportError as error:
        raise ValueError("16-bit colour TIFF needs pip install tifffile; or use .png") from error
    file, tags = io.BytesIO(), options["tiffinfo"]
    text = [(tag, 2, 0, str(tags[tag]), True) for tag in TIFF_TAGS if tag in tags and tag not in (270, 305, 306)]
    tifffile.imwrite(
        file,
        pixels,
        photometric="rgb" if pixels.shape[2] > 2 else "minisblack",
        extrasamples=["unassalpha"] if pixels.shape[2] in (2, 4) else None,
        compression=None if options.get("compression") == "raw" else "zlib",
        resolution=options.get("dpi"),
        resolutionunit="INCH" if options.get("dpi") else None,
        iccprofile=options.get("icc_profile"),
        description=tags.get(270),
        software=tags.get(305, ""),
        datetime=tags.get(306),
        extratags=text,
        metadata=None,
    )
    return file.getvalue()
