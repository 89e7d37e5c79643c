"""The `elements` command. `COMMANDS` lists what it does.

It reaches for `partition` (as `photographs` does) and `train` only when their command is called, so that each command
needs no more than its own packages.
"""

import importlib
import itertools
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from jaxtyping import UInt8
from PIL import Image

from elements_jax import TINY
from elements_jax.arguments import PathOrURL
from elements_jax.bounds import COUNT, SEED, require_options
from elements_jax.cli.command import exit_code, run_to_end, run_with_local_paths
from elements_jax.cli.photos import DEFAULT_SOURCE, Divider, ObjectFinder, Source, notices, open_photo
from elements_jax.data.atomic import new_file
from elements_jax.data.encoded import is_encoded, read_encoded, write_encoded
from elements_jax.editing.script import MODELS_OWN, Detail, EditScript, Fit, Sampling
from elements_jax.progress import sampling

if TYPE_CHECKING:
    from elements_jax.data.photo import Photo
    from elements_jax.pipeline.pipeline import ElementsPipeline
    from elements_jax.pipeline.session import Editing

COMMANDS = """\
commands:
  partition    divide photographs into image elements and write records (PyTorch, SAM); `partition inspect` shows them
  cache        compute once what stage 2 takes of VAE and text encoder, and write records that hold it
  train        train one stage of a model from records
  compile      a training step for TPUs or GPUs that are not here: what it needs, and how fast it can be
  editor       edit photographs in the browser, on a page of this machine's own
  encode       one photograph to its elements: a file to edit, and a picture with their numbers
  edit         run an edit script on a photograph, at its own size, or on an encoded file
  batch        run many edit scripts on records, on every device
  reconstruct  decode a photograph from its unedited elements
  compare      run several methods, ours and baselines, on the same edit scripts
  evaluate     judge reconstructions, pictures or edits: PSNR, SSIM, LPIPS, FID, and what edits should keep
  scenes       write the synthetic pictures that `tiny` trains on
  photo-scenes  write objects of photographs on other photographs, whose edits have a true result
  study        ask people which of two edits is better: the page, its analysis, and grids of pictures
  benchmark    run a public benchmark of edits, and write what its own scorer reads
  scenes-benchmark  edits of held-out scenes by several methods, and how near each comes to the true result

`elements COMMAND --help` says more.
"""
ELSEWHERE = {
    "partition": "partition.__main__",
    "train": "elements_jax.cli.train",
    "compile": "elements_jax.cli.main.compile",
    "study": "elements_jax.cli.study",
    "benchmark": "elements_jax.cli.benchmark",
    "evaluate": "elements_jax.cli.evaluate",
    "compare": "elements_jax.cli.compare",
    "scenes-benchmark": "elements_jax.cli.scenes_benchmark",
}
"""Modules of commands that are not in this file, each with a `main(arguments) -> exit code`."""
SHOWN = 10
"""Failures named on the terminal; the manifests name all."""


Photograph = Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="PHOTO")]
Records = Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="RECORDS")]
Scripts = Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="SCRIPTS")]
Out = Annotated[PathOrURL, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
Model = Annotated[str, tyro.conf.arg(metavar="MODEL")]
ModelOrTiny = Annotated[str | None, tyro.conf.arg(metavar="MODEL")]
File = Annotated[PathOrURL | None, tyro.conf.arg(metavar="FILE")]


@dataclass(frozen=True)
class Encode:
    """Divide a photograph into its elements and encode them.

    Writes OUT, a NumPy archive (image, label_map, box, content, position, valid) that `elements edit` and `elements
    reconstruct` take instead of a photograph, and beside it NAME-numbers.png, which shows the number of every element.
    """

    photo: Photograph
    """The photograph."""
    out: Out
    """File to write, NAME.npz."""
    model: ModelOrTiny = None
    """Model folder, or the name of a repository on the Hugging Face hub; by default the tiny one of this package."""
    fit: Fit = "crop"
    """Take the square at the photograph's centre, or all of it."""
    source: Annotated[Source, tyro.conf.arg(name="")] = DEFAULT_SOURCE

    def run(self) -> None:
        """Encode and write both files."""
        from elements_jax.editing.drawing import boundaries

        editing = _editing(self.model, self.source)
        photo = open_photo(editing, self.photo, self.fit)
        elements = editing.canvas(photo).elements
        arrays = {name: np.asarray(getattr(elements, name)) for name in ("content", "position", "valid")}
        arrays |= {"image": photo.image, "label_map": photo.label_map, "box": np.asarray(photo.box)}
        divider = Divider(editing.pipeline.config.elements, self.source)
        settings = {"segmenter": self.source.chosen, "fit": self.fit, "partition": asdict(divider.config)}
        write_encoded(self.out, arrays, settings)
        count = editing.pipeline.config.elements.num_elements
        drawing = self.out.with_name(f"{self.out.stem}-numbers.png")
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
    """Model folder, or the name of a repository on the Hugging Face hub; by default the tiny one of this package."""
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
    does not say so; otherwise all are decoded anew, as in the paper. A photograph always keeps them."""
    source: Annotated[Source, tyro.conf.arg(name="")] = DEFAULT_SOURCE
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = MODELS_OWN
    """In place of the script's."""

    def run(self) -> None:
        """Edit and write."""
        self.sampling.checked()
        script = EditScript.load(self.script)
        script = replace(
            script,
            preserve=script.preserve or self.preserve,
            sampling=script.sampling.overridden(self.sampling),
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
        if out.suffix.lower() != ".png":
            raise ValueError(f"{out}: the result of an encoded file is a PNG; choose the suffix .png")
        settings = read_encoded(self.photo).settings
        script = replace(script, fit=settings.get("fit", script.fit)).checked()
        editing = _editing(self.model, self.source.of_encoded(settings), settings)

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
class Editor:
    """Edit photographs in the browser, on a page that only this machine can open, unless --host says otherwise.

    Programs can use the same server: its /docs describes the HTTP API. Nothing is written to the disk. Ctrl-C ends it.
    """

    model: ModelOrTiny = None
    """Model folder, or the name of a repository on the Hugging Face hub; by default the tiny one of this package."""
    source: Annotated[Source, tyro.conf.arg(name="")] = DEFAULT_SOURCE
    """With SAM, objects are found from points, too."""
    port: int = 8000
    """Of the page's address; with 0 one that is free."""
    host: str = "127.0.0.1"
    """Address of this machine to listen at; with 0.0.0.0 every machine that reaches this one can edit, without a
    password."""
    name: tuple[str, ...] = ()
    """Host names that the page is reached by, besides localhost: this machine's in its network, or a proxy's."""
    root_path: str = ""
    """Path below which a proxy serves the page, such as /editor, and which it takes off; the page is at /editor/."""
    open: bool = True
    """Open the page in the browser."""

    def run(self) -> None:
        """Serve until interrupted."""
        require_options(self, port=(0, 65535))
        from elements_jax.editor.server import is_loopback, make_app, serve
        from elements_jax.pipeline.session import Editing

        if self.root_path and (not self.root_path.startswith("/") or self.root_path.endswith("/")):
            raise ValueError(f"--root-path {self.root_path}: expected a path such as /editor")
        pipeline = _pipeline(self.model)
        divider = Divider(pipeline.config.elements, self.source)
        select_object = None
        if self.source.chosen in ("sam", "mobile-sam"):
            from partition.segmenters.object_selector import ObjectSelector

            select_object = ObjectSelector(divider.segmenter)
        said = notices(self.model, self.source)
        app = make_app(
            Editing(pipeline, divider, self.source.chosen),
            name=Path(self.model or TINY).name,
            segmenter=self.source.chosen,
            notice=" ".join(said) or None,
            select_object=select_object,
            find_object=ObjectFinder(divider, self.source),
            label=divider.label,
            names=self.name,
            remote=not is_loopback(self.host),
        )

        def ready(address: str) -> None:
            print(*said, f"The editor is at {address}", sep="\n", flush=True)
            if self.open:
                webbrowser.open(address)

        serve(app, self.host, self.port, self.root_path, ready)


@dataclass(frozen=True)
class Batch:
    """Run many edit scripts on records, and write a picture for each, with all that made it in its text chunks.

    Shards of the scripts become folders OUT/shard-*, whole or not there; the same command again does those that are
    missing. manifest.jsonl in each says what became of every script, a line each: written, or failed, and why. A batch
    is split over all devices of this machine; of several, each does its part of the shards.
    """

    records: Records
    """Folder of records, as `elements partition` writes it."""
    scripts: Scripts
    """JSON Lines: in each line an edit script, and `source_id`, the record that it edits, and, if its picture is not to
    be named by the line's number, `name`. A compose edit names its image by its source_id."""
    out: Out
    """Folder for the pictures."""
    model: Model
    """Model folder, or the name of a repository on the Hugging Face hub."""
    batch_size: int = 1
    """Pictures that each device decodes at once. An accelerator is fastest with as many as its memory holds."""
    shard_size: int = 256
    """Scripts in a shard, the most that is lost when the job is killed. Best a multiple of what all devices decode at
    once, since the last batch of a shard is filled up."""
    preserve: bool = False
    """Keep the pixels outside edited regions, as in `elements edit`."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Begin anew where another job, or this one with other scripts, records, settings or model, has written."""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = MODELS_OWN

    def run(self) -> None:
        """Check the scripts, then decode what is missing."""
        self.sampling.checked()
        require_options(self, batch_size=COUNT, shard_size=COUNT)
        from elements_jax.parallel import hosts

        hosts.join()
        import jax

        from elements_jax.data.index import RecordIndex
        from elements_jax.editing.script_list import ScriptLines
        from elements_jax.parallel.sharding import make_mesh
        from elements_jax.pipeline import batch
        from elements_jax.pipeline.pipeline import ElementsPipeline
        from elements_jax.pipeline.session import decode_arguments

        records = RecordIndex(self.records)
        scripts = ScriptLines(self.scripts, records)
        mesh = make_mesh(-1, 1, jax.local_devices())
        pipeline = ElementsPipeline.from_pretrained(self.model, mesh=mesh)
        config = pipeline.config.diffusion
        job = batch.Job(
            scripts,
            records,
            self.out,
            pipeline,
            sampling=decode_arguments(self.sampling, config),
            preserve=self.preserve,
            settings={
                "model": self.model,
                "weights": pipeline.checksum(),
                **self.sampling.settings(config),
                "preserve": self.preserve,
            },
            shard_size=self.shard_size,
            batch_size=self.batch_size * mesh.size,
        )
        # With --overwrite those of another job may be there.
        there = [number for number in job.own_shards if job.shard_path(number).is_dir() and not self.overwrite]
        count = batch.run(job, self.overwrite)
        hosts.wait("all shards are written")  # a host that ends early would end the others
        print(f"{count['written']} pictures written to {self.out}")
        if there:
            print(f"{sum(len(job.places(number)) for number in there)} scripts of them were run before")
        if count["failed"]:
            print(f"{count['failed']} scripts failed; {batch.MANIFEST} of their shard says why")
            failed = (outcome.reason for outcome in batch.outcomes(job) if outcome.status == "failed")
            for reason in itertools.islice(failed, SHOWN):
                print(f"  {reason}")
            if not count["written"]:
                raise ValueError(f"no script of {self.scripts} could be run")


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
    source: Annotated[Source, tyro.conf.arg(name="")] = DEFAULT_SOURCE
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = MODELS_OWN

    def run(self) -> None:
        """Decode and write."""
        script = EditScript(prompt=self.prompt, seed=self.seed, fit=self.fit, sampling=self.sampling).checked()
        settings = read_encoded(self.photo).settings if is_encoded(self.photo) else {}
        script = replace(script, fit=settings.get("fit", script.fit)).checked()
        editing = _editing(self.model, self.source.of_encoded(settings), settings)
        photo = open_photo(editing, self.photo, self.fit)
        edited = editing.edit(photo, script, lambda name: photo)
        _write(self.out, editing, editing.decode(photo, edited, script), script)


@dataclass(frozen=True)
class Scenes:
    """Write synthetic scenes as a folder of pictures, captions and object masks, for `elements partition`."""

    out: Out
    """Folder to write; the object masks go to its subfolder `masks`."""
    count: int = 10_000
    """Pictures."""
    first: int = 0
    """Seed of the first picture; the others follow."""
    size: int = 64
    """Side of a picture in pixels."""

    def run(self) -> None:
        """Render and write."""
        require_options(self, count=(1, SEED[1]), size=(8, 8192), first=(0, SEED[1] - self.count))
        from elements_jax.scenes.drawn import write_folder

        write_folder(self.out, range(self.first, self.first + self.count), self.size)


@dataclass(frozen=True)
class PhotoScenes:
    """Cut objects out of photographs, put them on other photographs, and write the pictures as a folder, for
    `elements partition`: edits of them have a true result (`elements scenes-benchmark --photographs`)."""

    records: Records
    """Folder of records with object masks (`elements partition --masks auto`), of the size of the pictures."""
    out: Out
    """Folder to write; the object masks go to its subfolder `masks`."""
    count: int = 128
    """Pictures."""
    first: int = 0
    """Seed of the first picture; the others follow."""
    split: str = "val"
    """Of the records."""

    def run(self) -> None:
        """Render and write."""
        require_options(self, count=(1, SEED[1]), first=(0, SEED[1] - self.count))
        from elements_jax.data.index import read_split
        from elements_jax.scenes.photographic import write_folder

        records = list(read_split(self.records, self.split).values())
        write_folder(records, self.out, range(self.first, self.first + self.count))


@dataclass(frozen=True)
class Cache:
    """Compute once what stage 2 takes of the VAE's encoder and the text encoder, and write records that hold it.

    Training reads them with `--train.cached`, and spends nothing on these networks. The same command again does the
    shards that are not there yet.
    """

    records: Records
    """Folder of records, as `elements partition` writes it."""
    out: Out
    """Folder for the records with their features."""
    model: Annotated[PathOrURL, tyro.conf.arg(metavar="FOLDER")]
    """Model folder, or a Stable Diffusion in diffusers' layout, of the same VAE and text encoder as is trained with."""
    batch_size: int = 4
    """Images that each device takes at once."""

    def run(self) -> None:
        """Compute and write."""
        require_options(self, batch_size=COUNT)
        from train.input.cache import cache

        cache(self.records, self.out, self.model, self.batch_size)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Errors of the user's making end with one line on stderr and exit code 1."""
    name, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ELSEWHERE:
        return run_to_end(lambda: importlib.import_module(ELSEWHERE[name]).main(rest))
    commands = {
        "cache": Cache,
        "encode": Encode,
        "editor": Editor,
        "edit": Edit,
        "batch": Batch,
        "reconstruct": Reconstruct,
        "scenes": Scenes,
        "photo-scenes": PhotoScenes,
    }
    if name not in commands:
        asked_for_help = name in ("-h", "--help")
        stream = sys.stdout if asked_for_help else sys.stderr
        code = run_to_end(lambda: print(f"usage: elements COMMAND ...\n\n{COMMANDS}", end="", file=stream))
        return code if asked_for_help else 2
    keep = ["out"] if name == "batch" else []  # it uploads shard by shard
    return exit_code(lambda: run_with_local_paths(tyro.cli(commands[name], args=rest, prog=f"elements {name}"), keep))


def _pipeline(model: str | None) -> "ElementsPipeline":
    from elements_jax.pipeline.pipeline import ElementsPipeline

    return ElementsPipeline.from_pretrained(model or TINY)


def _editing(model: str | None, source: Source, settings: Mapping[str, Any] | None = None) -> "Editing":
    """The model, with photographs divided as `source` says. `settings` are those of an encoded file, if one is edited:
    its results say how it was divided."""
    from elements_jax.pipeline.session import Editing

    for notice in notices(model, source):
        print(notice, file=sys.stderr)
    pipeline = _pipeline(model)
    divider = Divider(pipeline.config.elements, source)
    return Editing(pipeline, divider, (settings or {}).get("segmenter", source.chosen))


def _write(path: Path, editing: "Editing", picture: UInt8[np.ndarray, "H W 3"], script: EditScript) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
