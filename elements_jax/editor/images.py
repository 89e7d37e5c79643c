"""The photographs that were uploaded, as many as there is room for."""

import hashlib
import io
import warnings
from collections import OrderedDict
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from elements_jax.data.photo import Photo
from elements_jax.editing.edits import Canvas
from elements_jax.editing.script import Fit
from elements_jax.pipeline.session import Editing

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Of photographs. Pillow reads others by starting programs, or by code that has seen few hostile files."""


class TooManyPixels(ValueError):
    """A picture that would take too much memory, decoded."""


@dataclass(frozen=True, eq=False)
class Upload:
    """A photograph that was opened, and what the page shows of it."""

    id: str
    """Of its bytes and its fit: the same photograph has the same id again."""
    photo: Photo
    canvas: Canvas
    """Its elements, encoded."""
    encoded: bytes
    """Its file."""
    png: bytes
    width: int
    """Of the whole photograph, in pixels, as it is seen."""
    height: int
    fit: Fit
    said: str
    """What was cropped or padded."""

    @property
    def bytes(self) -> int:
        """About what it takes of memory."""
        return (
            len(self.encoded)
            + len(self.png)
            + self.photo.label_map.nbytes
            + sum(leaf.nbytes for leaf in jax.tree.leaves(self.canvas))
        )


def open_upload(encoded: bytes, fit: Fit, editing: Editing, pixels: int) -> Upload:
    """Open an image file, after a look at its header, and encode it.

    Raises TooManyPixels for more than `pixels`, and ValueError for bytes that are not a readable image.
    """
    width, height = read_size(encoded, pixels)
    photo = editing.open(encoded, fit)
    id = hashlib.sha256(fit.encode() + b" " + encoded).hexdigest()[:32]
    said = describe(width, height, fit, len(photo.image))
    return Upload(id, photo, editing.canvas(photo), encoded, png(photo.image), width, height, fit, said)


def read_size(encoded: bytes, pixels: int) -> tuple[int, int]:
    """Width and height of an image as it is seen, from its header; nothing is decoded. Raises as `open_upload`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, higher limit, and odd metadata
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as file:
                size = file.size
                # Pillow would decode a PNG to look for the orientation behind its pixels.
                turned = file.getexif().get(ExifTags.Base.Orientation, 1) >= 5 if "exif" in file.info else False
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"the photo is too large; the limit is {_megapixels(pixels)}") from error
    except UnidentifiedImageError as error:  # its message is an address in memory
        raise ValueError(f"this file can't be read. Supported: {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders raise all sorts on damaged files
        raise ValueError(f"damaged image: {error}") from error
    if size[0] * size[1] > pixels:
        raise TooManyPixels(f"{_megapixels(size[0] * size[1])}; the limit is {_megapixels(pixels)}")
    return size[::-1] if turned else size


def describe(width: int, height: int, fit: Fit, side: int) -> str:
    """One sentence on what becomes of a photograph in a square of `side` pixels."""
    if width == height:
        return f"{width} x {height} px, shown at {side} x {side} px."
    if fit == "crop":
        share = min(width, height) / max(width, height)
        return f"Cropped to the centre square ({share * 100:.0f} % of your photo) and reduced to {side} x {side} px."
    return f"All of your photo, with margins, at {side} x {side} px."


def _megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:.3g} megapixels"


def png(picture: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """A picture as a PNG, written quickly."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png", compress_level=1)
    return file.getvalue()


class Images:
    """Uploads by id; those not used for longest are forgotten where there are more than `number` or `room` bytes.

    Belongs to the event loop's thread.
    """

    def __init__(self, number: int, room: int):
        self._number, self._room = number, room
        self._kept: OrderedDict[str, Upload] = OrderedDict()

    def __getitem__(self, id: str) -> Upload:
        """Raises KeyError for an id that is unknown, or forgotten."""
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
