"""`elements encode`, `edit` and `reconstruct`."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from jaxtyping import UInt8
from PIL import Image

from elements_jax.arguments import PathOrURL
from elements_jax.cli.arguments import File, ModelOrTiny, Out, Photograph
from elements_jax.cli.photos import DEFAULT_SOURCE, PhotoSegmenter, SegmenterOptions, open_editing, open_photo
from elements_jax.data.atomic import new_file, require_apart
from elements_jax.data.encoded import is_encoded, read_encoded, write_encoded
from elements_jax.editing.script import DEFAULT_SAMPLING, Detail, EditScript, Fit, Sampling
from elements_jax.progress import sampling

if TYPE_CHECKING:
    from elements_jax.data.photo import Photo
    from elements_jax.pipeline.session import EditSession


@dataclass(frozen=True)
class Encode:
    """Divide a photograph into its elements and encode them.

    Writes OUT, a NumPy archive (image, label_map, box, content, position, valid) that `elements edit` and `elements
    reconstruct` take instead of a photograph, and next to it NAME-numbers.png, which shows the number of every element.
    """

    photo: Photograph
    """The photograph."""
    out: Out
    """File to write, NAME.npz."""
    model: ModelOrTiny = None
    """Model folder, or the name of a repository on the Hugging Face hub; by default the tiny one of this package."""
    fit: Fit = "crop"
    """Take the square at the photograph's centre, or all of it."""
    source: Annotated[SegmenterOptions, tyro.conf.arg(name="")] = DEFAULT_SOURCE

    def run(self) -> None:
        """Encode and write both files."""
        from elements_jax.editing.drawing import boundaries

        drawing = self.out.with_name(f"{self.out.stem}-numbers.png")
        for written in (self.out, drawing):
            require_apart(written, self.photo)
        editing = open_editing(self.model, self.source)
        photo = open_photo(editing, self.photo, self.fit)
        elements = editing.canvas(photo).elements
        arrays = {name: np.asarray(getattr(elements, name)) for name in ("content", "position", "valid")}
        arrays |= {"image": photo.image, "label_map": photo.label_map, "box": np.asarray(photo.box)}
        divider = PhotoSegmenter(editing.pipeline.config.elements, self.source)
        settings = {"segmenter": self.source.chosen, "fit": self.fit, "partition": asdict(divider.config)}
        write_encoded(self.out, arrays, settings)
        count = editing.pipeline.config.elements.num_elements
        _save(drawing, boundaries(photo.image, photo.label_map, num_elements=count, numbers=True))
        print(f"{self.out}: {int(elements.valid.sum())} elements, numbered in {drawing}")


@dataclass(frozen=True)
class Edit:
    """Run an edit script on a photograph, and get it back at its own size with nothing changed but what was edited.

    The result has the photograph's format, profile, depth and metadata. Of an encoded file, the result is the model's
    picture as a PNG, with all that made it in its text chunks.
    """

    photo: Photograph
    """A photograph, or a file that `elements encode` wrote."""
    script: Annotated[PathOrURL, tyro.conf.arg(metavar="FILE")]
    """The edit script: JSON (`elements_jax/editing/script.py` describes it), or a result's PNG, which carries its
    script. Other pictures that it names are found relative to it."""
    model: ModelOrTiny = None
    """Model folder, or the name of a repository on the Hugging Face hub; by default the tiny one of this package. A
    model that you name also guides what fills the holes of a photograph."""
    out: File = None
    """File to write, in the format of its suffix; by default PHOTO-edited with the photograph's own format."""
    detail: Annotated[Detail | None, tyro.conf.arg(metavar="{pixels,decoder}")] = None
    """For a photograph: `pixels` moves its own pixels and fills what they leave, and is the default; with `decoder` the
    model paints every edited region, as in the paper."""
    drop_gps: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Leave out where the photograph was taken. All other metadata stays."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Write even over the photograph itself."""
    drawing: File = None
    """For an encoded file: also draw the edit on the picture here: red dots where elements were, green where they go,
    blue crosses on those deleted."""
    preserve: bool = False
    """For an encoded file: keep the pixels outside the edited region and a narrow band around it, even where the script
    does not say so; otherwise all are decoded, as in the paper. A photograph always keeps them."""
    source: Annotated[SegmenterOptions, tyro.conf.arg(name="")] = DEFAULT_SOURCE
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = DEFAULT_SAMPLING
    """In place of the script's."""

    def run(self) -> None:
        """Edit and write."""
        self.sampling.checked()
        script = EditScript.load(self.script)
        script = replace(
            script,
            preserve=script.preserve or self.preserve,
            sampling=script.sampling.merged_with(self.sampling),
            detail=self.detail or script.detail,
        ).checked()
        if is_encoded(self.photo):
            self._edit_encoded(script)
        else:
            from elements_jax.cli import whole

            whole.run(self, script)

    def _edit_encoded(self, script: EditScript) -> None:
        from elements_jax.editing.drawing import edit_dots

        out = self.out or self.photo.with_name(f"{self.photo.stem}-edited.png")
        _require_png(out)
        for written in (out, self.drawing):
            if written is not None and not self.overwrite:
                require_apart(written, self.photo, self.script)
        settings = read_encoded(self.photo).settings
        script = replace(script, fit=settings.get("fit", script.fit)).checked()
        editing = open_editing(self.model, self.source.of_encoded(settings), settings)

        def open_named(name: str) -> "Photo":
            return open_photo(editing, self.script.parent / name, script.fit)

        photo = open_photo(editing, self.photo, script.fit)
        edited = editing.edit(photo, script, open_named)
        if self.drawing is not None:
            _save(self.drawing, edit_dots(photo.image, editing.canvas(photo).elements, edited.canvas.elements))
        with sampling(script.sampling.settings(editing.pipeline.config.diffusion)["steps"], "edit") as report:
            picture = editing.decode(photo, edited, script, report)
        _write(out, editing, picture, script)


@dataclass(frozen=True)
class Reconstruct:
    """Decode a photograph from its unedited elements: what the model sees of it."""

    photo: Photograph
    """A photograph, or a file that `elements encode` wrote."""
    out: Out
    """PNG to write."""
    model: ModelOrTiny = None
    """Model folder, or the name of a repository on the Hugging Face hub; by default the tiny one of this package."""
    prompt: str = ""
    """What the picture shows."""
    seed: int = 0
    """Of the noise that sampling starts from."""
    fit: Fit = "crop"
    """Take the square at the photograph's centre, or all of it."""
    source: Annotated[SegmenterOptions, tyro.conf.arg(name="")] = DEFAULT_SOURCE
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = DEFAULT_SAMPLING

    def run(self) -> None:
        """Decode and write."""
        _require_png(self.out)
        require_apart(self.out, self.photo)
        script = EditScript(prompt=self.prompt, seed=self.seed, fit=self.fit, sampling=self.sampling).checked()
        settings = read_encoded(self.photo).settings if is_encoded(self.photo) else {}
        script = replace(script, fit=settings.get("fit", script.fit)).checked()
        editing = open_editing(self.model, self.source.of_encoded(settings), settings)
        photo = open_photo(editing, self.photo, self.fit)
        edited = editing.edit(photo, script, lambda name: photo)
        _write(self.out, editing, editing.decode(photo, edited, script), script)


def _require_png(path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path}: what the model paints is written as a PNG; choose the suffix .png")


def _write(path: Path, editing: "EditSession", picture: UInt8[np.ndarray, "H W 3"], script: EditScript) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        file.write(editing.png(picture, script))
    print(f"{path}: {picture.shape[1]} x {picture.shape[0]} px, seed {script.seed}")


def _save(path: Path, picture: UInt8[np.ndarray, "H W 3"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        format = Image.registered_extensions()[path.suffix.lower()]
    except KeyError:
        raise ValueError(f"{path}: expected a picture's suffix, such as .png") from None
    with new_file(path) as file:
        Image.fromarray(picture).save(file, format)
