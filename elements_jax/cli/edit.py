"""`elements encode`, `edit` and `reconstruct`."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from jaxtyping import UInt8
from PIL import Image

from elements_jax.arguments import PathOrURL
from elements_jax.bounds import FieldError
from elements_jax.cli.arguments import File, ModelOrPhoto, Out, Photograph
from elements_jax.cli.photos import DEFAULT_SOURCE, PhotoSegmenter, SegmenterOptions, open_editing, open_photo
from elements_jax.data.atomic import new_file, require_apart, require_regular
from elements_jax.data.encoded import is_encoded, read_encoded, write_encoded
from elements_jax.data.object_store import is_url, local_copy
from elements_jax.editing.script import DEFAULT_SAMPLING, Detail, EditScript, Fit, Sampling
from elements_jax.progress import sampling

if TYPE_CHECKING:
    from elements_jax.data.photo import Photo
    from elements_jax.pipeline.session import EditSession


@dataclass(frozen=True)
class Encode:
    """Segment a photograph into elements and encode them.

    Writes OUT, a NumPy archive (image, label_map, box, content, position, valid) that `elements edit` and `elements
    reconstruct` accept in place of a photograph, and NAME-numbers.png, which shows the number of every element.
    """

    photo: Photograph
    """Photograph to encode."""
    out: Out
    """File to write, NAME.npz."""
    model: ModelOrPhoto = None
    """Model folder, or name of a repository on the Hugging Face hub; by default the bundled photo model."""
    fit: Fit = "crop"
    """Use the square at the photograph's centre, or all of it."""
    source: Annotated[SegmenterOptions, tyro.conf.arg(name="")] = DEFAULT_SOURCE

    def run(self) -> None:
        """Encode, and write both files."""
        require_regular(self.photo)
        drawing = self.out.with_name(f"{self.out.stem}-numbers.png")
        for written in (self.out, drawing):
            require_apart(written, self.photo)
        editing = open_editing(self.model, self.source)
        from elements_jax.editing.drawing import boundaries

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
    """Run an edit script on a photograph. The result has its original size; only the edited parts change.

    The result keeps the photograph's format, profile, bit depth and metadata. For an encoded file, the result is the
    model's image as a PNG, with its settings in the text chunks.
    """

    photo: Photograph
    """Photograph, or file written by `elements encode`."""
    script: Annotated[PathOrURL, tyro.conf.arg(metavar="FILE")]
    """Edit script: JSON (documented in `elements_jax/editing/script.py`), or a result's PNG, which contains its script.
    Paths of other images in it are relative to the script."""
    model: ModelOrPhoto = None
    """Model folder, or name of a repository on the Hugging Face hub; by default the bundled photo model. If
    you name a model, it also guides the filling of holes in a photograph."""
    out: File = None
    """File to write, in the format of its suffix; by default PHOTO-edited in the photograph's format."""
    detail: Annotated[Detail | None, tyro.conf.arg(metavar="{pixels,decoder}")] = None
    """For a photograph: `pixels`, the default, moves its own pixels and fills the holes; with `decoder` the model
    generates every edited region, as in the paper."""
    drop_gps: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Remove the location where the photograph was taken. All other metadata stays."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Allow overwriting the photograph itself."""
    drawing: File = None
    """For an encoded file: also draw the edit on the image and write it here: red dots where elements were, green dots
    where they go, blue crosses on deleted ones."""
    preserve: bool = False
    """For an encoded file: keep the pixels outside the edited region and a narrow band around it, even if the
    script does not ask for it. Otherwise all pixels are decoded, as in the paper. A photograph always keeps them."""
    source: Annotated[SegmenterOptions, tyro.conf.arg(name="")] = DEFAULT_SOURCE
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = DEFAULT_SAMPLING
    """Seed to use instead of the script's."""

    def __post_init__(self) -> None:
        if is_url(self.photo) and self.out is None:
            raise FieldError(self, ("out",), f"must be given with a URL, {self.photo}")

    def run(self) -> None:
        """Edit, and write the result."""
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
            return open_photo(editing, local_copy(self.script.parent / name), script.fit)

        photo = open_photo(editing, self.photo, script.fit)
        edited = editing.edit(photo, script, open_named)
        if self.drawing is not None:
            _save(self.drawing, edit_dots(photo.image, editing.canvas(photo).elements, edited.canvas.elements))
        steps = script.sampling.settings(editing.pipeline.config.diffusion)["steps"]
        before = "compiling the sampler" if editing.pipeline.has_diffusion else "decoding"
        with sampling(steps, "edit", before) as report:
            picture = editing.decode(photo, edited, script, report)
        _write(out, editing, picture, script)


@dataclass(frozen=True)
class Reconstruct:
    """Decode a photograph from its unedited elements, to show what the model retains."""

    photo: Photograph
    """Photograph, or file written by `elements encode`."""
    out: Out
    """PNG to write."""
    model: ModelOrPhoto = None
    """Model folder, or name of a repository on the Hugging Face hub; by default the bundled photo model."""
    prompt: str = ""
    """Prompt that describes the image."""
    seed: int = 0
    """Seed of the initial noise."""
    fit: Fit = "crop"
    """Use the square at the photograph's centre, or all of it."""
    source: Annotated[SegmenterOptions, tyro.conf.arg(name="")] = DEFAULT_SOURCE
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = DEFAULT_SAMPLING

    def run(self) -> None:
        """Decode, and write the image."""
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
        raise ValueError(f"{path}: the model's images are written as PNG; use the suffix .png")


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
        raise ValueError(f"{path}: expected the suffix of an image format, such as .png") from None
    with new_file(path) as file:
        Image.fromarray(picture).save(file, format)
