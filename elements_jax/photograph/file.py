"""A photograph's file: its pixels as a person sees them, and everything else that the edited file should carry too.

Pillow decodes and encodes. It reads 16-bit colour as 8 bits and cannot write it, so the second half of this module
reads the lower bytes separately and writes 16-bit PNG and TIFF.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16
from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from elements_jax.photograph.exif import without_gps, without_thumbnail, xmp_without_gps

Pixels = UInt8[np.ndarray, "H W C"] | UInt16[np.ndarray, "H W C"]
"""C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha). Colours are those of the file's profile."""

SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF",
    ".tiff": "TIFF", ".bmp": "BMP", ".avif": "AVIF", ".heic": "HEIF", ".heif": "HEIF",
}  # fmt: skip
"""Formats that can be written, by the suffix of the file. HEIC needs pillow-heif, the extra `heif`."""
LOSSY_QUALITY = 95
"""For JPEG, WebP and AVIF, unless the input's own settings can be read from its file."""
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_PNG_CHUNKS = (b"cHRM", b"gAMA", b"sRGB", b"tIME", b"tEXt", b"zTXt", b"iTXt")
_TIFF_TAGS = (270, 271, 272, 305, 306, 315, 33432)  # description, maker, model, software, date, artist, copyright
_TIFF_COMPRESSION = ("tiff_lzw", "tiff_adobe_deflate", "packbits")


@dataclass(frozen=True, eq=False)
class Photograph:
    """A decoded photograph, upright, with the file it was read from."""

    pixels: Pixels
    encoded: bytes
    format: str
    """Pillow's name of the file's format, told from its content."""
    orientation: int = 1
    """EXIF's, from 1 to 8: how the stored pixels are turned to be upright."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Pillow's options for saving in any format: exif, icc_profile, dpi, xmp, comment, pnginfo, tiffinfo."""
    coding: Mapping[str, Any] = field(default_factory=dict)
    """Pillow's options for saving in the same format, such as a JPEG's own quantisation tables."""
    notes: tuple[str, ...] = ()
    """What the result cannot keep, one sentence each."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.pixels.shape[:2]

    @classmethod
    def load(cls, path: Path) -> "Photograph":
        """Read a photograph. Raises ValueError naming the file, if it is not one, is damaged or cannot be edited."""
        try:
            return cls.decode(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def decode(cls, encoded: bytes) -> "Photograph":
        """Decode the bytes of a file. Raises ValueError."""
        _register_heif()
        if not encoded:
            raise ValueError("the file is empty")
        try:
            with warnings.catch_warnings():
                for category in (Image.DecompressionBombWarning, UserWarning):  # odd metadata is kept as it is
                    warnings.simplefilter("ignore", category)
                with Image.open(io.BytesIO(encoded)) as image:
                    return _decode(image, encoded)
        except UnidentifiedImageError as error:
            hint = "; HEIC needs pip install 'elements-jax[heif]'" if encoded[4:8] == b"ftyp" else ""
            raise ValueError(f"not an image that can be read, or damaged at its start{hint}") from error
        except ValueError:
            raise
        except Exception as error:  # decoders raise all sorts on damaged files
            raise ValueError(str(error) or f"damaged image ({type(error).__name__})") from error

    def without_gps(self) -> "Photograph":
        """Remove where it was taken, from EXIF and XMP. Raises ValueError if the EXIF is too damaged for that."""
        metadata, encoded = dict(self.metadata), self.encoded
        for name, clean in (("exif", without_gps), ("xmp", xmp_without_gps)):
            if before := metadata.get(name):
                metadata[name] = clean(before)
                encoded = encoded.replace(before, metadata[name])  # of the same length
        if "pnginfo" in metadata:
            metadata["pnginfo"] = _png_chunks(self.encoded, clean=_text_without_gps)
        cleaned = replace(self, metadata=metadata, encoded=encoded)
        if self.format in ("PNG", "TIFF"):  # with checksums, or metadata in other places: written again, without loss
            cleaned = replace(cleaned, encoded=cleaned.encode(self.pixels, self.format))
        return cleaned

    def encode(self, pixels: Pixels, format: str) -> bytes:
        """The bytes of a file with these upright pixels and all that this photograph's file carried.

        Raises ValueError if the format cannot hold them.
        """
        check_format(format, pixels.shape[2], pixels.dtype)
        stored = np.ascontiguousarray(turned(pixels, self.orientation, back=True))
        options: dict[str, Any] = {name: value for name, value in self.metadata.items() if value}
        if "exif" in options:
            options["exif"] = without_thumbnail(options["exif"])
        if format not in ("PNG", "MPO"):
            options.pop("pnginfo", None)
        if format == "TIFF":
            options["tiffinfo"] = _tiff_tags(options.get("tiffinfo", {}))
        options |= self.coding if format == self.format else _default_coding(format)
        deep = pixels.dtype == np.uint16
        if deep and format == "PNG":
            return _encode_deep_png(stored, options)
        if deep and format == "TIFF" and pixels.shape[2] > 1:
            return _encode_deep_tiff(stored, options)
        mode = "I;16" if deep else _MODES[pixels.shape[2]]
        image = Image.frombytes(mode, (stored.shape[1], stored.shape[0]), stored.tobytes())
        try:
            return _save(image, format, options)
        except OSError:  # Pillow's buffer is too small for optimised coding with nearly lossless tables
            if format != "JPEG":
                raise
            return _save(image, format, options | {"optimize": False, "progressive": False})


def _save(image: Image.Image, format: str, options: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def format_of(path: Path) -> str:
    """The format that a file's suffix asks for. Raises ValueError if it cannot be written."""
    _register_heif()
    format = SUFFIXES.get(path.suffix.lower())
    if format is None:
        raise ValueError(f"{path}: unknown suffix; expected one of {', '.join(SUFFIXES)}")
    if format not in Image.SAVE:
        extra = " (pip install 'elements-jax[heif]')" if format == "HEIF" else ""
        raise ValueError(f"{path}: this Pillow cannot write {format}{extra}; choose another suffix")
    return format


def check_format(format: str, channels: int, dtype: Any) -> None:
    """Raise ValueError unless a format can hold pixels of so many channels and this type."""
    if channels in (2, 4) and format in ("JPEG", "BMP"):
        raise ValueError(f"{format} cannot hold the photograph's transparency; choose .png, .webp or .tiff")
    if dtype == np.uint16 and format not in ("PNG", "TIFF"):
        raise ValueError(f"{format} cannot hold the photograph's 16 bits; choose .png or .tiff")


def turned(pixels: Shaped[np.ndarray, "H W C"], orientation: int, *, back: bool = False) -> Shaped[np.ndarray, "h w C"]:
    """Turn stored pixels upright as EXIF's orientation says, or upright ones back."""
    match orientation:
        case 2:
            return pixels[:, ::-1]
        case 3:
            return pixels[::-1, ::-1]
        case 4:
            return pixels[::-1]
        case 5:
            return pixels.swapaxes(0, 1)
        case 7:
            return pixels[::-1, ::-1].swapaxes(0, 1)
        case 6 | 8:
            clockwise = (orientation == 6) != back
            return np.rot90(pixels, -1 if clockwise else 1)
    return pixels


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


def _decode(image: Image.Image, encoded: bytes) -> Photograph:
    format, notes = str(image.format), list[str]()
    if (frames := getattr(image, "n_frames", 1)) > 1:
        if format != "MPO":
            raise ValueError(f"{frames} pictures in one {format} file; save the one to edit as a file of its own")
        notes.append(f"Of the {frames} pictures in the file, only the first is kept.")
    format = "JPEG" if format == "MPO" else format
    if format not in SUFFIXES.values():
        raise ValueError(f"{format} can be read but not written; convert it to one of {', '.join(SUFFIXES)}")
    metadata = {name: image.info.get(name) for name in ("exif", "icc_profile", "dpi", "xmp", "comment")}
    exif = image.getexif()
    if format == "TIFF":
        metadata["tiffinfo"] = image.tag_v2  # type: ignore[attr-defined]
        metadata["exif"] = exif.tobytes() if exif else None
    if format == "PNG":
        metadata["pnginfo"] = _png_chunks(encoded)
    coding = _coding(image, format, encoded)
    # Pillow turns TIFF and pillow-heif HEIC by themselves.
    orientation = exif.get(0x0112, 1) if format in ("JPEG", "PNG", "WEBP", "AVIF") else 1
    orientation = orientation if orientation in range(1, 9) else 1
    pixels = np.array(turned(_pixels(image, encoded, notes), orientation))
    return Photograph(pixels, encoded, format, orientation, metadata, coding, tuple(notes))


def _pixels(image: Image.Image, encoded: bytes, notes: list[str]) -> Pixels:
    mode = image.mode
    if mode in ("CMYK", "F", "LAB", "YCbCr", "HSV"):
        raise ValueError(f"{mode} pixels cannot be edited; convert the photograph to RGB first")
    if mode == "I" or mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit pixels cannot be edited; convert the photograph to 16 bits first")
        return values.astype(np.uint16)[..., None]
    if (low := _lower_bytes(encoded)) is not None:
        return (np.asarray(image).astype(np.uint16) << 8) | low
    if mode in ("1", "P", "PA") or (mode in ("L", "RGB") and image.has_transparency_data):
        wider = "L" if mode == "1" else "RGBA" if image.has_transparency_data else "RGB"
        names = {"1": "one-bit", "P": "palette", "PA": "palette"}
        notes.append(f"The {names.get(mode, mode)} photograph becomes {wider}, so that it can hold every colour.")
        image = image.convert(wider)
    elif mode not in _MODES.values():
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _coding(image: Image.Image, format: str, encoded: bytes) -> dict[str, Any]:
    """How the file was encoded, as options to encode another one in the same way."""
    match format:
        case "JPEG":
            tables: dict[int, list[int]] = image.quantization  # type: ignore[attr-defined]
            sampling = JpegImagePlugin.get_sampling(image)
            return {
                "qtables": list(tables.values()),
                "subsampling": sampling if sampling in (0, 1, 2) else 0,
                "progressive": bool(image.info.get("progressive")),
                "optimize": True,
                "keep_rgb": image.mode == "RGB" and image.info.get("adobe_transform") == 0,
            }
        case "WEBP" if _has_riff_chunk(encoded, b"VP8L"):
            return {"lossless": True, "exact": True}
        case "TIFF":
            compression = image.info.get("compression")
            known = compression if compression in _TIFF_COMPRESSION else None
            return {"compression": known or ("raw" if compression == "raw" else "tiff_adobe_deflate")}
    return _default_coding(format)


def _default_coding(format: str) -> dict[str, Any]:
    match format:
        case "JPEG":
            return {"quality": LOSSY_QUALITY, "subsampling": 0, "optimize": True}
        case "WEBP":
            return {"quality": LOSSY_QUALITY, "exact": True}
        case "AVIF":
            return {"quality": LOSSY_QUALITY, "subsampling": "4:4:4"}
        case "HEIF":
            return {"quality": LOSSY_QUALITY, "chroma": 444}
        case "TIFF":
            return {"compression": "tiff_adobe_deflate"}
    return {}


def _png_chunks(encoded: bytes, clean: Callable[[bytes], bytes | None] = lambda text: text) -> PngImagePlugin.PngInfo:
    """The descriptive chunks of a PNG file, as they are, or cleaned; what is None then is left out."""
    chunks = PngImagePlugin.PngInfo()
    for kind, content in _png_parts(encoded):
        if kind in _PNG_CHUNKS and (kept := clean(content)) is not None:
            chunks.add(kind, kept)
    return chunks


def _text_without_gps(text: bytes) -> bytes | None:
    """A PNG's text without XMP's GPS, or None if it holds EXIF or compressed XMP, in which GPS could be hidden."""
    if text.startswith(b"Raw profile type") or text.startswith(b"XML:com.adobe.xmp\0\1"):
        return None
    return xmp_without_gps(text)


def _png_parts(encoded: bytes) -> list[tuple[bytes, bytes]]:
    parts, at = list[tuple[bytes, bytes]](), 8
    while at + 8 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, at)
        parts.append((kind, encoded[at + 8 : at + 8 + length]))
        at += 12 + length
    return parts


def _has_riff_chunk(encoded: bytes, kind: bytes) -> bool:
    at = 12
    while at + 8 <= len(encoded):
        if encoded[at : at + 4] == kind:
            return True
        at += 8 + (struct.unpack_from("<I", encoded, at + 4)[0] + 1) // 2 * 2
    return False


def _tiff_tags(tags: Mapping[int, Any]) -> TiffImagePlugin.ImageFileDirectory_v2:
    kept = TiffImagePlugin.ImageFileDirectory_v2()
    for tag in _TIFF_TAGS:
        if tag in tags:
            kept[tag] = tags[tag]
    return kept


def _lower_bytes(encoded: bytes) -> "UInt8[np.ndarray, 'H W C'] | None":
    """The lower bytes of 16-bit colour, of which Pillow decodes the upper ones: read in the other byte order.

    None for 8-bit files.
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


def _encode_deep_png(pixels: UInt16[np.ndarray, "H W C"], options: Mapping[str, Any]) -> bytes:
    """A 16-bit PNG. Pillow writes all but the pixels: every row is stored as its difference from the one above."""
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
    for kind, content in _png_parts(around.getvalue()):
        content = replaced.get(kind, content)
        file += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return bytes(file)


def _encode_deep_tiff(pixels: UInt16[np.ndarray, "H W C"], options: Mapping[str, Any]) -> bytes:
    try:
        import tifffile
    except ImportError as error:
        raise ValueError("16-bit colour TIFF needs pip install tifffile; choose .png") from error
    file, tags = io.BytesIO(), options["tiffinfo"]
    text = [(tag, 2, 0, str(tags[tag]), True) for tag in _TIFF_TAGS if tag in tags and tag not in (270, 305, 306)]
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
