"""`elements editor`."""

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from elements_jax import PHOTO
from elements_jax.bounds import require_within
from elements_jax.cli.arguments import ModelOrPhoto
from elements_jax.cli.photos import (
    DEFAULT_SOURCE,
    ObjectFinder,
    PhotoSegmenter,
    SegmenterOptions,
    notices,
    open_pipeline,
)


@dataclass(frozen=True)
class Editor:
    """Edit photographs in the browser. Only this machine can open the page, unless --host says otherwise.

    Programs can use the same server; /docs describes the HTTP API. Nothing is written to disk. Stop it with Ctrl-C.
    """

    model: ModelOrPhoto = None
    """Model folder, or name of a repository on the Hugging Face hub; by default the bundled photo model."""
    source: Annotated[SegmenterOptions, tyro.conf.arg(name="")] = DEFAULT_SOURCE
    """With SAM, a click selects an object."""
    port: int = 8000
    """Port of the page; 0 picks a free one."""
    host: str = "127.0.0.1"
    """Address to listen on. With 0.0.0.0 every machine that can reach this one can edit, without a password."""
    name: tuple[str, ...] = ()
    """Host names under which the page is reached, besides localhost: this machine's network name, or a proxy's."""
    root_path: str = ""
    """Path under which a proxy serves the page and which it strips, such as /editor; the page is then at /editor/."""
    open: bool = True
    """Open the page in the browser."""

    def __post_init__(self) -> None:
        require_within(self, port=(0, 65535))

    def run(self) -> None:
        """Serve until interrupted."""
        source = self.source.found()
        from elements_jax.editor.server import is_loopback, make_app, serve
        from elements_jax.pipeline.session import EditSession

        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ValueError(f"--root-path {self.root_path}: expected a path such as /editor")
        pipeline = open_pipeline(self.model)
        divider = PhotoSegmenter(pipeline.config.elements, source)
        finder = ObjectFinder(divider, source)
        if points := source.chosen in ("sam", "mobile-sam") or source.checkpoint is not None:
            finder.load()
        said = notices(not self.model, source)
        app = make_app(
            EditSession(pipeline, divider, source.chosen, guides=self.model is not None),
            name=Path(self.model or PHOTO).name,
            segmenter=source.chosen,
            label=divider.label,
            pieces=divider.pieces,
            notice=" ".join(said) or None,
            find_object=finder,
            points=points,
            names=self.name,
            remote=not is_loopback(self.host),
        )

        def ready(address: str) -> None:
            print(*said, f"The editor is at {address}", sep="\n", flush=True)
            if self.open:
                webbrowser.open(address)

        serve(app, self.host, self.port, self.root_path, ready)
