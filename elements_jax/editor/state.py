"""What the server's endpoints share: the model, the photographs and the jobs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import HTTPException
from jaxtyping import Bool, Float, UInt8

from elements_jax.data.photo import Photo
from elements_jax.editing.apply import Edited, apply_script
from elements_jax.editing.edits import Canvas
from elements_jax.editing.script import Compose, Continue, Delete, EditError, EditScript, Move
from elements_jax.editor import wire
from elements_jax.editor.images import Images, Upload
from elements_jax.editor.jobs import Jobs, Work
from elements_jax.photograph.edit import edit_photograph
from elements_jax.photograph.file import Photograph
from elements_jax.photograph.repaint import Label
from elements_jax.photograph.selecting import FindObject
from elements_jax.pipeline.session import Editing

T = TypeVar("T")
SelectObject = Callable[
    [UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "P 2"], Float[np.ndarray, "Q 2"]], Bool[np.ndarray, "H W"]
]
"""The mask of the object that positive points (x, y) lie on and negative ones do not, in units of the sides."""


@dataclass(frozen=True, eq=False)
class Editor:
    """What the endpoints share."""

    editing: Editing
    model: wire.Model
    select_object: SelectObject | None
    find_object: FindObject | None
    label: Label | None
    images: Images
    jobs: Jobs
    threads: CapacityLimiter
    uploads: CapacityLimiter

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on one of the threads, when one is free."""
        return await to_thread.run_sync(function, *args, limiter=self.threads)

    def upload(self, id: str) -> Upload:
        """Raises HTTPException for an image that is not here."""
        try:
            return self.images[id]
        except KeyError:
            raise HTTPException(404, f"there is no image {id!r}, or it was forgotten: upload it again") from None

    async def edit(self, request: wire.Edits) -> tuple[Photo, Edited]:
        """The photograph of a request and what its script makes of it. Raises HTTPException or EditError."""
        upload, *rest = (self.upload(id) for id in (request.image, *request.images.values()))
        for each in (upload, *rest):
            if each.fit != request.script.fit:  # the command line would open it otherwise, and give another picture
                raise EditError(
                    f"fit: image {each.id!r} was uploaded with {each.fit}, but the script says {request.script.fit}"
                )
        others = dict(zip(request.images, rest, strict=True))

        def open_image(name: str, within: Bool[np.ndarray, "H W"] | None) -> Canvas:
            if name not in others:
                raise EditError(f"the script names {name!r}, which is not in images")
            return others[name].canvas if within is None else self.editing.canvas(others[name].photo, within)

        return upload.photo, await self.in_thread(apply_script, request.script, upload.canvas, open_image)

    def whole(self, request: wire.Edits) -> tuple[Work, str]:
        """What edits the uploaded photograph at its own size, and its format's suffix. Raises HTTPException."""
        upload = self.upload(request.image)
        others = {name: self.upload(id).encoded for name, id in request.images.items()}
        label = self.label
        if label is None:
            raise HTTPException(409, "this server cannot divide windows of a photograph")
        try:
            format = Photograph.decode(upload.encoded).format
        except ValueError as error:
            raise HTTPException(415, str(error)) from error

        def open_named(name: str) -> Photograph:
            if name not in others:
                raise EditError(f"the script names {name!r}, which is not in images")
            return Photograph.decode(others[name])

        def work(script: EditScript, report: Callable[[], bool]) -> bytes:
            photograph = Photograph.decode(upload.encoded)  # queued jobs hold files, not pixels
            edited = edit_photograph(
                self.editing, photograph, script, label,
                find_object=self.find_object, open_named=open_named, report=report,
            )  # fmt: skip
            return upload.encoded if edited is photograph else edited.encode(edited.pixels, format)

        return work, format.lower()

    def warm_up(self) -> None:
        """Compile what every edit needs, by editing and decoding a picture of nothing."""
        config = self.editing.pipeline.config.elements
        side, cells = config.image_size, np.arange(config.image_size) * config.grid // config.image_size
        blank = Photo(np.zeros((side, side, 3), np.uint8), cells[:, None] * config.grid + cells, (0, 0, side, side))
        canvas = self.editing.canvas(blank)
        script = EditScript((Move((0,), (0.0, 0.0)), Delete((1,)), Compose("", (0,)), Continue("")))
        self.editing.decode(blank, apply_script(script, canvas, lambda *_: canvas), script)
