"""Uploaded photographs, within limits, and their display."""

import hashlib
import io
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, UInt8, UInt16
from PIL import Image, UnidentifiedImageError

from elements_jax.photograph.colour import rgb8, to_srgb
from elements_jax.photograph.file import SUFFIXES, Photograph, register_heif

register_heif()
FORMATS = tuple(format for format in dict.fromkeys(SUFFIXES.values()) if format != "HEIF" or "HEIF" in Image.OPEN)
"""Accepted formats. Pillow reads others by starting programs, or with code that was rarely tested on hostile files."""
LOSSLESS = ("PNG", "TIFF", "BMP")
SHOWN_SIDE = 2048
"""Maximum side in pixels of displayed photographs, and of their masks."""
QUALITY = 90
"""JPEG quality of views."""

decoded = lru_cache(2)(Photograph.decode)
"""Cached pixels of the last files: people select several times on one photograph."""


class TooManyPixels(ValueError):
    """An image would take too much memory when decoded."""


@dataclass(frozen=True)
class View:
    """A photograph for display in browsers: upright, in sRGB, at most `SHOWN_SIDE` pixels per side."""

    encoded: bytes
    type: str
    """The encoded file's media type."""
    size: tuple[int, int]
    """Width and height in pixels."""


@dataclass(frozen=True, eq=False)
class Upload:
    """An uploaded photograph: its file, and its view for the page."""

    id: str
    """Hash of its bytes: the same photograph always has the same id."""
    encoded: bytes
    format: str
    """Pillow's name of the file's format, which results share."""
    width: int
    """Width and height of the upright photograph in pixels."""
    height: int
    view: View
    notes: tuple[str, ...]
    """Notes on the file, such as what results cannot keep; one sentence each."""

    @property
    def bytes(self) -> int:
        """Approximate memory in bytes."""
        return len(self.encoded) + len(self.view.encoded)


def open_upload(encoded: bytes, pixels: int) -> Upload:
    """Open an image file, after checking its header.

    Raises TooManyPixels for more than `pixels`, and ValueError for bytes that are not an editable photograph.
    """
    check_header(encoded, pixels)
    photograph = decoded(encoded)
    height, width = photograph.size
    id = hashlib.sha256(encoded).hexdigest()[:32]
    notes = photograph.notes
    if photograph.format == "PNG" and b"Xtscript\0" in encoded:  # in a tEXt or iTXt chunk
        notes += ("It contains the edit script that made it: `elements edit` can run that again.",)
    return Upload(id, encoded, photograph.format, width, height, view_of(photograph), notes)


def check_header(encoded: bytes, pixels: int) -> None:
    """Check an image's header without decoding it. Raises the errors of `open_upload`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit, which is higher, and odd metadata
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as file:
                size = file.size
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"the photo is too large; the limit is {_megapixels(pixels)}") from error
    except UnidentifiedImageError as error:  # its message is a memory address
        heic = "" if "HEIF" in FORMATS else ", and HEIC with pip install 'elements-jax[heif]'"
        raise ValueError(f"this file can't be read. Supported: {', '.join(FORMATS)}{heic}") from error
    except Exception as error:  # decoders raise anything on damaged files
        raise ValueError(f"damaged image: {error}") from error
    if size[0] * size[1] > pixels:
        raise TooManyPixels(f"{_megapixels(size[0] * size[1])}; the limit is {_megapixels(pixels)}")


def _megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:.3g} megapixels"


def view_of(photograph: Photograph) -> View:
    """Encode a view as JPEG, or as PNG if the photograph is transparent or its file lossless."""
    pixels = photograph.pixels
    picture = to_srgb(rgb8(pixels), photograph)
    if pixels.shape[2] in (2, 4):
        picture = np.concatenate([picture, rgb8(pixels[..., -1:])[..., :1]], axis=2)
    image = Image.fromarray(picture).resize(shown_size(*photograph.size), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if picture.shape[2] == 4 or photograph.format in LOSSLESS:
        image.save(file, "PNG", compress_level=1)
        return View(file.getvalue(), "image/png", image.size)
    image.save(file, "JPEG", quality=QUALITY)
    return View(file.getvalue(), "image/jpeg", image.size)


def shown_size(height: int, width: int) -> tuple[int, int]:
    """Return width and height of a photograph's view."""
    factor = min(1.0, SHOWN_SIDE / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def mask_png(mask: Bool[np.ndarray, "H W"]) -> bytes:
    """Encode a photograph's mask as a grey PNG of the view's size, white on the object."""
    image = Image.fromarray(mask.astype(np.uint8) * 255).resize(shown_size(*mask.shape), Image.Resampling.BOX)
    return png_of(np.asarray(image))


def labels_png(labels: UInt16[np.ndarray, "H W"]) -> bytes:
    """Encode labels as a PNG for the page: lower bytes in red, upper bytes in green."""
    colours = np.zeros((*labels.shape, 3), np.uint8)
    colours[..., 0], colours[..., 1] = labels & 255, labels >> 8
    return png_of(colours)


def png_of(pixels: UInt8[np.ndarray, "H W *C"]) -> bytes:
    """Encode pixels as a PNG, quickly rather than compactly."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def reduced(photograph: Photograph, side: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return the colours of a photograph, shrunk to at most `side` pixels per side."""
    image = Image.fromarray(to_srgb(rgb8(photograph.pixels), photograph))
    image.thumbnail((side, side))
    return np.asarray(image)


class Images:
    """Uploads by id. The least recently used are forgotten beyond `number` uploads or `room` bytes.

    Use only on the event loop's thread.
    """

    def __init__(self, number: int, room: int):
        self._number, self._room = number, room
        self._kept: OrderedDict[str, Upload] = OrderedDict()

    def __getitem__(self, id: str) -> Upload:
        """Return an upload. Raises KeyError for an id that is unknown or forgotten."""
        self._kept.move_to_end(id)
        return self._kept[id]

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, upload: Upload) -> None:
        """Keep an upload, at least until the next one."""
        self._kept[upload.id] = upload
        self._kept.move_to_end(upload.id)
        while len(self._kept) > 1 and (
            len(self._kept) > self._number or sum(upload.bytes for upload in self._kept.values()) > self._room
        ):
            self._kept.popitem(last=False)
