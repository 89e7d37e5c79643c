"""`elements edit` on a photograph. All input is checked before the model is loaded."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from elements_jax import PHOTO
from elements_jax.cli.photos import ObjectFinder, PhotoSegmenter, notices, open_pipeline
from elements_jax.data.atomic import new_file, require_apart
from elements_jax.data.encoded import is_encoded
from elements_jax.data.object_store import local_copy
from elements_jax.editing.script import EditScript
from elements_jax.photograph.file import Photograph, check_format, format_of
from elements_jax.progress import sampling

if TYPE_CHECKING:
    from elements_jax.cli.edit import Edit


def run(command: "Edit", script: EditScript) -> None:
    """Edit a photograph as the command says, and write the result. Raises ValueError and OSError."""
    if command.drawing is not None:
        raise ValueError("--drawing is for a file that `elements encode` wrote, whose elements are numbered")
    photograph = Photograph.load(command.photo)
    if command.drop_gps:
        photograph = photograph.without_gps()
    out = command.out or default_out(command.photo, photograph.format)
    format = format_of(out)
    try:
        check_format(format, photograph.pixels.shape[2], photograph.pixels.dtype)
    except ValueError as error:
        raise ValueError(f"{out}: {error}") from error
    if out.exists() and out.samefile(command.photo) and not command.overwrite:
        raise ValueError(f"{out} is the photograph itself; choose another --out, or give --overwrite")
    require_apart(out, command.script)

    edited = photograph if not script.edits else _edit(command, photograph, script)
    unchanged = edited is photograph and format == photograph.format
    content = photograph.encoded if unchanged else edited.encode(edited.pixels, format)
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_file(out) as file:
        file.write(content)
    for note in () if unchanged else photograph.notes:
        print(note)
    height, width = edited.size
    print(f"{out}: {width} x {height} px" + (", unchanged" if edited is photograph else ""))


def default_out(photo: Path, format: str) -> Path:
    """Return the default output path: next to the photograph, with a suffix of its format."""
    try:
        suffix = photo.suffix if format_of(photo) == format else None
    except ValueError:
        suffix = None
    return photo.with_name(f"{photo.stem}-edited{suffix or '.' + format.lower()}")


def _edit(command: "Edit", photograph: Photograph, script: EditScript) -> Photograph:
    from elements_jax.config import ModelConfig
    from elements_jax.photograph.edit import edit_photograph, needs_decoder

    source = command.source.found()
    uses_model = command.model is not None or needs_decoder(script)
    for notice in notices(uses_model and command.model is None, source):
        print(notice, file=sys.stderr)
    if uses_model:
        from elements_jax.pipeline.session import EditSession

        pipeline = open_pipeline(command.model)
        divider = PhotoSegmenter(pipeline.config.elements, source)
        editing = EditSession(pipeline, divider, source.chosen, guides=command.model is not None)
    else:
        divider = PhotoSegmenter(ModelConfig.load(PHOTO / "elements" / "config.json").elements, source)
        editing = None
    # Each window of the photograph is sampled; the edits determine the number of windows.
    with sampling(None, "edit", before="finding what to edit, and filling the holes") as report:
        return edit_photograph(
            editing,
            photograph,
            script,
            divider.label,
            divide=divider,
            find_object=ObjectFinder(divider, source),
            open_named=lambda name: _open_named(local_copy(command.script.parent / name)),
            report=report,
        )


def _open_named(path: Path) -> Photograph:
    if is_encoded(path):
        raise ValueError(f"{path}: edits of a photograph take objects from photographs, not from encoded files")
    return Photograph.load(path)
