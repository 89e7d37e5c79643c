"""A photograph's file: its upright pixels, and everything else that the edited file should keep.

Pillow decodes and encodes. It reads 16-bit colour as 8 bits and cannot write it, so the second half of this module
reads the lower bytes separately and writes 16-bit PNG and TIFF.
"""

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from elements_jax.data.atomic import read_file
from elements_jax.photograph.chunks import has_riff_chunk, png_chunks, text_without_gps, tiff_tags
from elements_jax.photograph.exif import without_gps, without_thumbnail, xmp_without_gps
from elements_jax.photograph.sixteen_bits import encode_deep_png, encode_deep_tiff, lower_bytes

Pixels = UInt8[np.ndarray, "H W C"] | UInt16[np.ndarray, "H W C"]
"""C is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha). Colours are those of the file's profile."""

SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF",
    ".tiff": "TIFF", ".bmp": "BMP", ".avif": "AVIF", ".heic": "HEIF", ".heif": "HEIF",
}  # fmt: skip
"""Formats that can be written, by file suffix. HEIC needs pillow-heif, the extra `heif`."""
LOSSY_QUALITY = 95
"""Quality for JPEG, WebP and AVIF, unless the input's own settings can be read from its file."""
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_TIFF_COMPRESSION = ("tiff_lzw", "tiff_adobe_deflate", "packbits")


@dataclass(frozen=True, eq=False)
class Photograph:
    """A decoded, upright photograph, with the file it was read from."""

    pixels: Pixels
    encoded: bytes
    format: str
    """Pillow's name of the file's format, detected from its content."""
    orientation: int = 1
    """EXIF's orientation, from 1 to 8: how to turn the stored pixels upright."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Pillow's options for saving in any format: exif, icc_profile, dpi, xmp, comment, pnginfo, tiffinfo."""
    coding: Mapping[str, Any] = field(default_factory=dict)
    """Pillow's options for saving in the same format, such as a JPEG's own quantisation tables."""
    notes: tuple[str, ...] = ()
    """What the result cannot keep, one sentence each."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[:2]

    def __repr__(self) -> str:
        height, width = self.size
        return f"Photograph({width} x {height} px, {self.format}, {self.pixels.dtype})"

    def _repr_png_(self) -> bytes:
        """Encode a preview of at most 1024 px per side, for notebooks."""
        pixels = self.pixels if self.pixels.dtype == np.uint8 else (self.pixels >> 8).astype(np.uint8)
        picture = Image.fromarray(pixels.squeeze())
        picture.thumbnail((1024, 1024))
        file = io.BytesIO()
        picture.save(file, "PNG")
        return file.getvalue()

    @classmethod
    def load(cls, path: str | Path) -> "Photograph":
        """Read a photograph. Raises ValueError that names a file that is damaged, no image, or not editable."""
        content = read_file(path)
        try:
            return cls.decode(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def decode(cls, encoded: bytes) -> "Photograph":
        """Decode the bytes of a file. Raises ValueError."""
        register_heif()
        if not encoded:
            raise ValueError("the file is empty")
        try:
            with warnings.catch_warnings():
                for category in (Image.DecompressionBombWarning, UserWarning):  # odd metadata is kept unchanged
                    warnings.simplefilter("ignore", category)
                with Image.open(io.BytesIO(encoded)) as image:
                    return _decode(image, encoded)
        except UnidentifiedImageError as error:
            hint = "; HEIC needs pip install 'elements-jax[heif]'" if encoded[4:8] == b"ftyp" else ""
            raise ValueError(f"not a readable image, or damaged at its start{hint}") from error
        except ValueError:
            raise
        except Exception as error:  # decoders raise anything on damaged files
            if "truncated" in str(error):
                raise ValueError("the file is incomplete (truncated)") from error
            raise ValueError(str(error) or f"damaged image ({type(error).__name__})") from error

    def without_gps(self) -> "Photograph":
        """Remove the location from EXIF and XMP. Raises ValueError if the EXIF is too damaged for that."""
        metadata, encoded = dict(self.metadata), self.encoded
        for name, clean in (("exif", without_gps), ("xmp", xmp_without_gps)):
            if before := metadata.get(name):
                metadata[name] = clean(before)
                encoded = encoded.replace(before, metadata[name])  # same length
        if "pnginfo" in metadata:
            metadata["pnginfo"] = png_chunks(self.encoded, clean=text_without_gps)
        cleaned = replace(self, metadata=metadata, encoded=encoded)
        if self.format in ("PNG", "TIFF"):  # checksums, or metadata elsewhere: encoded again, losslessly
            cleaned = replace(cleaned, encoded=cleaned.encode(self.pixels, self.format))
        return cleaned

    def encode(self, pixels: Pixels, format: str) -> bytes:
        """Encode a file with these upright pixels and the metadata of this photograph's file.

        Raises ValueError if the format does not support them.
        """
        check_format(format, pixels.shape[2], pixels.dtype)
        stored = np.ascontiguousarray(turned(pixels, self.orientation, back=True))
        options: dict[str, Any] = {name: value for name, value in self.metadata.items() if value}
        if "exif" in options:
            options["exif"] = without_thumbnail(options["exif"])
        if format not in ("PNG", "MPO"):
            options.pop("pnginfo", None)
        if format == "TIFF":
            options["tiffinfo"] = tiff_tags(options.get("tiffinfo", {}))
        options |= self.coding if format == self.format else _default_coding(format)
        deep = pixels.dtype == np.uint16
        if deep and format == "PNG":
            return encode_deep_png(stored, options)
        if deep and format == "TIFF" and pixels.shape[2] > 1:
            return encode_deep_tiff(stored, options)
        mode = "I;16" if deep else _MODES[pixels.shape[2]]
        image = Image.frombytes(mode, (stored.shape[1], stored.shape[0]), stored.tobytes())
        try:
            return _save(image, format, options)
        except OSError:  # Pillow's buffer can be too small for optimised coding with nearly lossless tables
            if format != "JPEG":
                raise
            return _save(image, format, options | {"optimize": False, "progressive": False})


def _save(image: Image.Image, format: str, options: Mapping[str, Any]) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def format_of(path: Path) -> str:
    """Return the format of a file's suffix. Raises ValueError if it cannot be written."""
    register_heif()
    format = SUFFIXES.get(path.suffix.lower())
    if format is None:
        raise ValueError(f"{path}: unknown suffix; expected one of {', '.join(SUFFIXES)}")
    if format not in Image.SAVE:
        extra = " (pip install 'elements-jax[heif]')" if format == "HEIF" else ""
        raise ValueError(f"{path}: this Pillow cannot write {format}{extra}; use another suffix")
    return format


def check_format(format: str, channels: int, dtype: Any) -> None:
    """Raise ValueError unless a format supports this number of channels and this type."""
    if channels in (2, 4) and format in ("JPEG", "BMP"):
        raise ValueError(f"{format} does not support the photograph's transparency; use .png, .webp or .tiff")
    if dtype == np.uint16 and format not in ("PNG", "TIFF"):
        raise ValueError(f"{format} does not support the photograph's 16 bits; use .png or .tiff")


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


def register_heif() -> None:
    """Let Pillow open HEIC, if pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()


def _decode(image: Image.Image, encoded: bytes) -> Photograph:
    format, notes = str(image.format), list[str]()
    if (frames := getattr(image, "n_frames", 1)) > 1:
        if format != "MPO":
            raise ValueError(f"{frames} images in one {format} file; save the one to edit as a separate file")
        notes.append(f"Of the {frames} images in the file, only the first is kept.")
    format = "JPEG" if format == "MPO" else format
    if format not in SUFFIXES.values():
        raise ValueError(f"{format} can be read but not written; convert it to one of {', '.join(SUFFIXES)}")
    metadata = {name: image.info.get(name) for name in ("exif", "icc_profile", "dpi", "xmp", "comment")}
    exif = image.getexif()
    if format == "TIFF":
        metadata["tiffinfo"] = image.tag_v2  # type: ignore[attr-defined]
        metadata["exif"] = exif.tobytes() if exif else None
    if format == "PNG":
        metadata["pnginfo"] = png_chunks(encoded)
    coding = _coding(image, format, encoded)
    # Pillow already turns TIFF upright, and pillow-heif HEIC.
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
    if (low := lower_bytes(encoded)) is not None:
        return (np.asarray(image).astype(np.uint16) << 8) | low
    if mode in ("1", "P", "PA") or (mode in ("L", "RGB") and image.has_transparency_data):
        wider = "L" if mode == "1" else "RGBA" if image.has_transparency_data else "RGB"
        names = {"1": "one-bit", "P": "palette", "PA": "palette"}
        notes.append(f"The {names.get(mode, mode)} photograph becomes {wider}, which supports every colour.")
        image = image.convert(wider)
    elif mode not in _MODES.values():
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _coding(image: Image.Image, format: str, encoded: bytes) -> dict[str, Any]:
    """Return the file's encoder settings, as Pillow's options."""
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
        case "WEBP" if has_riff_chunk(encoded, b"VP8L"):
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
