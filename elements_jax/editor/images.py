"""The photographs that were uploaded, as many as there is room for, and how they are shown."""

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
"""Of photographs. Pillow reads others by starting programs, or by code that has seen few hostile files."""
LOSSLESS = ("PNG", "TIFF", "BMP")
SHOWN_SIDE = 2048
"""The longer side of what is shown of a photograph, in pixels, and of masks of it."""
QUALITY = 90
"""Of a view in JPEG."""

decoded = lru_cache(2)(Photograph.decode)
"""The pixels of the last files: people select several times on one photograph."""


class TooManyPixels(ValueError):
    """A picture that would take too much memory, decoded."""


@dataclass(frozen=True)
class View:
    """A photograph as browsers can show it: upright, in sRGB, at most `SHOWN_SIDE` pixels wide and high."""

    encoded: bytes
    type: str
    """The encoded file's media type."""
    size: tuple[int, int]
    """Width and height in pixels."""


@dataclass(frozen=True, eq=False)
class Upload:
    """A photograph that was uploaded: its file, and what the page shows of it."""

    id: str
    """Of its bytes: the same photograph has the same id again."""
    encoded: bytes
    format: str
    """Pillow's name of the file's format, which results have too."""
    width: int
    """Of the photograph as it is seen, in pixels."""
    height: int
    view: View
    notes: tuple[str, ...]
    """What to know of the file, such as what results cannot keep; one sentence each."""

    @property
    def bytes(self) -> int:
        """About what it takes of memory."""
        return len(self.encoded) + len(self.view.encoded)


def open_upload(encoded: bytes, pixels: int) -> Upload:
    """Open an image file, after a look at its header.

    Raises TooManyPixels for more than `pixels`, and ValueError for bytes that are not a photograph to edit.
    """
    check_header(encoded, pixels)
    photograph = decoded(encoded)
    height, width = photograph.size
    id = hashlib.sha256(encoded).hexdigest()[:32]
    notes = photograph.notes
    if photograph.format == "PNG" and b"Xtscript\0" in encoded:  # of a tEXt or an iTXt chunk
        notes += ("It carries an edit script, which it was made by: `elements edit` can run that again.",)
    return Upload(id, encoded, photograph.format, width, height, view_of(photograph), notes)


def check_header(encoded: bytes, pixels: int) -> None:
    """Look at an image's header; nothing is decoded. Raises as `open_upload`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, higher limit, and odd metadata
            with Image.open(io.BytesIO(encoded), formats=FORMATS) as file:
                size = file.size
    except Image.DecompressionBombError as error:
        raise TooManyPixels(f"the photo is too large; the limit is {_megapixels(pixels)}") from error
    except UnidentifiedImageError as error:  # its message is an address in memory
        heic = "" if "HEIF" in FORMATS else ", and HEIC with pip install 'elements-jax[heif]'"
        raise ValueError(f"this file can't be read. Supported: {', '.join(FORMATS)}{heic}") from error
    except Exception as error:  # decoders raise all sorts on damaged files
        raise ValueError(f"damaged image: {error}") from error
    if size[0] * size[1] > pixels:
        raise TooManyPixels(f"{_megapixels(size[0] * size[1])}; the limit is {_megapixels(pixels)}")


def _megapixels(pixels: int) -> str:
    return f"{pixels / 1e6:.3g} megapixels"


def view_of(photograph: Photograph) -> View:
    """A JPEG; or a PNG, where the photograph is transparent, or its file lossless."""
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
    """Width and height of what is shown of a photograph."""
    factor = min(1.0, SHOWN_SIDE / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def mask_png(mask: Bool[np.ndarray, "H W"]) -> bytes:
    """A photograph's mask as a grey PNG of the size that is shown, white on the object."""
    image = Image.fromarray(mask.astype(np.uint8) * 255).resize(shown_size(*mask.shape), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def labels_png(labels: UInt16[np.ndarray, "H W"]) -> bytes:
    """Labels as a PNG that pages can read: their lower bytes are red, their upper ones green."""
    colours = np.zeros((*labels.shape, 3), np.uint8)
    colours[..., 0], colours[..., 1] = labels & 255, labels >> 8
    file = io.BytesIO()
    Image.fromarray(colours).save(file, "PNG", compress_level=1)
    return file.getvalue()


def reduced(photograph: Photograph, side: int) -> UInt8[np.ndarray, "h w 3"]:
    """The colours of a photograph, at most `side` pixels wide and high."""
    image = Image.fromarray(to_srgb(rgb8(photograph.pixels), photograph))
    image.thumbnail((side, side))
    return np.asarray(image)


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
