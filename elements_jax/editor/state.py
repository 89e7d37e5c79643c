"""State shared by the server's endpoints: the model, the photographs and the jobs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import HTTPException
from jaxtyping import UInt8, UInt16

from elements_jax.data.photo import Photo
from elements_jax.editing.apply import Edited
from elements_jax.editing.script import Compose, Continue, Delete, EditError, EditScript, ObjectAt
from elements_jax.editor import wire
from elements_jax.editor.images import Images, Upload, check_header, decoded, labels_png, mask_png, png_of, reduced
from elements_jax.editor.jobs import Jobs, Work
from elements_jax.photograph.colour import rgb8
from elements_jax.photograph.edit import edit_photograph
from elements_jax.photograph.file import Photograph
from elements_jax.photograph.repaint import Label
from elements_jax.photograph.selecting import FindObject, Selector
from elements_jax.pipeline.session import EditSession

T = TypeVar("T")
Pieces = Callable[[UInt8[np.ndarray, "H W 3"]], UInt16[np.ndarray, "H W"]]
"""Segments an image of any size into pieces to select: maps each pixel to a piece number."""
PIECES_SIDE = 1024
"""Maximum side in pixels at which photographs are segmented into pieces."""
PREVIEW_SIDE = 512
"""Maximum side in pixels at which gaps are filled while people still edit."""


@dataclass(frozen=True, eq=False)
class Editor:
    """State shared by the endpoints."""

    editing: EditSession
    model: wire.Model
    label: Label
    pieces: Pieces
    find_object: FindObject | None
    images: Images
    jobs: Jobs
    threads: CapacityLimiter
    uploads: CapacityLimiter

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on the next free thread."""
        return await to_thread.run_sync(function, *args, limiter=self.threads)

    def upload(self, id: str) -> Upload:
        """Return an upload. Raises HTTPException if it is unknown."""
        try:
            return self.images[id]
        except KeyError:
            raise HTTPException(404, f"image {id!r} is unknown or was forgotten: upload it again") from None

    def divided(self, upload: Upload) -> bytes:
        """Return the pieces of a photograph as a PNG of labels."""
        return labels_png(self.pieces(reduced(decoded(upload.encoded), PIECES_SIDE)))

    def select(self, request: wire.ObjectPlace) -> Callable[[], bytes]:
        """Return a function that finds an object's mask as a PNG and raises EditError. Raises HTTPException."""
        upload, open_named = self.upload(request.image), self._opener(request.images)

        def find() -> bytes:
            photograph = decoded(upload.encoded)
            selector = Selector(self.editing.open, self.find_object, open_named)
            edit = Delete((), object=request.object)
            return mask_png(selector(photograph, rgb8(photograph.pixels), edit, "crop").mask)

        return find

    def preview(self, upload: Upload, gaps: bytes) -> bytes:
        """Fill gaps of a reduced photograph from its own patches.

        Args:
            gaps: a mask's file.

        Returns:
            A PNG of the reduced photograph, transparent wherever it did not change.

        Raises EditError for an empty mask, and the errors of `check_header`.
        """
        check_header(gaps, self.model.limits.pixels)
        before = Photograph(reduced(decoded(upload.encoded), PREVIEW_SIDE), b"", "PNG")
        script = EditScript((Delete((), object=ObjectAt(mask="gaps")),))
        filled = edit_photograph(None, before, script, self.label, open_named=lambda _: Photograph.decode(gaps)).pixels
        changed = np.any(filled != before.pixels, axis=-1, keepdims=True)
        return png_of(np.concatenate([filled, np.where(changed, np.uint8(255), np.uint8(0))], axis=-1))

    def work(self, request: wire.JobRequest) -> tuple[Work, str]:
        """Return the work for a request and the suffix of its format. Raises HTTPException and EditError."""
        upload, open_named = self.upload(request.image), self._opener(request.images)
        for name in _named(request.script):
            if name not in request.images:
                raise EditError(f"the script names {name!r}, which is not in images")

        def work(script: EditScript, report: Callable[[], bool]) -> bytes:
            photograph = decoded(upload.encoded)  # queued jobs keep files, not pixels
            edited = edit_photograph(
                self.editing, photograph, script, self.label,
                find_object=self.find_object, open_named=open_named, report=report,
            )  # fmt: skip
            return upload.encoded if edited is photograph else edited.encode(edited.pixels, upload.format)

        return work, upload.format.lower()

    def _opener(self, images: Mapping[str, str]) -> Callable[[str], Photograph]:
        """Return a function that opens a request's images by name. Raises HTTPException for an unknown one."""
        named = {name: self.upload(id).encoded for name, id in images.items()}

        def open_named(name: str) -> Photograph:
            if name not in named:
                raise EditError(f"{name!r} is not in images")
            return Photograph.decode(named[name])

        return open_named

    def warm_up(self) -> None:
        """Compile the programs of every edit by decoding an empty image."""
        if not self.editing.guides:
            return
        config = self.editing.pipeline.config.elements
        side, cells = config.image_size, np.arange(config.image_size) * config.grid // config.image_size
        blank = Photo(np.zeros((side, side, 3), np.uint8), cells[:, None] * config.grid + cells, (0, 0, side, side))
        canvas = self.editing.canvas(blank)
        self.editing.decode(blank, Edited(canvas, canvas), EditScript())


def _named(script: EditScript) -> list[str]:
    """Return the names of images and masks in a script."""
    images = [edit.image for edit in script.edits if isinstance(edit, Compose | Continue)]
    objects = [edit.object for edit in script.edits if not isinstance(edit, Continue)]
    return images + [at.mask for at in objects if at is not None and at.mask is not None]
