"""The demo's report: an HTML page and its PNGs, by which a person can judge a model."""

import html
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from elements_jax import PHOTO
from elements_jax.data.atomic import new_file, remove_folder
from elements_jax.data.index import read_split
from elements_jax.data.record import Record
from elements_jax.editing.apply import apply_script
from elements_jax.editing.drawing import boundaries, enlarge
from elements_jax.editing.edits import stack
from elements_jax.editing.script import Compose, Delete, Edit, EditScript, Move, Resize, Sampling
from elements_jax.evaluation import results
from elements_jax.evaluation.methods.method import make_methods
from elements_jax.evaluation.run import run
from elements_jax.evaluation.scenes.drawn_cases import elements_under, identity, scene_cases
from elements_jax.evaluation.scenes.scores import as_text, rows, score
from elements_jax.metrics.image_quality import psnr
from elements_jax.metrics.lpips import LPIPS, has_weights
from elements_jax.parallel.sharding import pad_batch
from elements_jax.pipeline.pipeline import ElementsPipeline

Picture = UInt8[np.ndarray, "H W 3"]

SHOWN = 6  # number of scenes whose edits are shown; the table covers all
BATCH = 16  # images decoded at once

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1500px; padding: 0 1rem; color: #222 }
.row { display: flex; gap: 6px; border-top: 1px solid #ddd; padding: 8px 0 12px }
figure { flex: 0 1 190px; min-width: 0; margin: 0 }
figure img { width: 100%; display: block; image-rendering: pixelated }
.wide figure { flex-basis: 640px } .wide img { image-rendering: auto }
figcaption { font-size: 12px; color: #555; overflow-wrap: anywhere } table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: 2px 14px 2px 0; text-align: right } td:first-child, th:first-child { text-align: left }
pre { background: #f4f4f4; padding: 8px; overflow-x: auto }
"""


class Report:
    """An HTML page that grows from top to bottom."""

    def __init__(self, folder: Path, title: str):
        self.folder = folder
        self._parts = [
            f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        ]
        self._pictures = 0
        folder.mkdir(parents=True, exist_ok=True)

    def text(self, tag: str, words: str) -> None:
        """Add text in a tag."""
        self._parts.append(f"<{tag}>{html.escape(words)}</{tag}>")

    def row(self, pictures: dict[str, Picture], wide: bool = False) -> None:
        """Add a row of images with captions, and write each image as a PNG. Photographs need a wide row."""
        figures = []
        for caption, picture in pictures.items():
            name = f"{self._pictures:03}-{caption.split(',')[0].replace(' ', '-')}.png"
            self._pictures += 1
            Image.fromarray(enlarge(picture)).save(self.folder / name)
            figures.append(f"<figure><img src='{name}'><figcaption>{html.escape(caption)}</figcaption></figure>")
        self._parts.append(f"<div class='row{' wide' if wide else ''}'>{''.join(figures)}</div>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table; the first column holds names."""
        lines = [f"<tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in head)}</tr>"]
        lines += [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
        self._parts.append(f"<table>{''.join(lines)}</table>")

    def save(self) -> Path:
        """Write the page atomically and return its path."""
        path = self.folder / "index.html"
        with new_file(path) as file:
            file.write("\n".join(self._parts).encode())
        return path


def write_report(folder: Path, model: Path, demo: Path) -> Path:
    """Show the edited photographs, small ones painted by `photo`, and held-out scenes that a model edits.

    Args:
        model: edits the scenes.
        demo: the demo's folder, with `edits`, `photo-records` and `records`.

    Returns the path of the page.
    """
    pipeline = ElementsPipeline.from_pretrained(model)
    report = Report(folder, "Editable image elements")
    report_edits(report, demo / "edits")
    report_photographs(report, list(read_split(demo / "photo-records", "train").values()))
    report_scenes(report, pipeline, list(read_split(demo / "records", "val").values()))
    return report.save()


def report_edits(report: Report, folder: Path) -> None:
    """Show edits of complete photographs next to the photographs."""
    report.text("h2", "Photographs, edited at their own size")
    report.text("p", "Objects keep their own pixels, and patches of the photograph fill the gaps that they leave.")
    for path in sorted(folder.glob("*-edited.png")):
        name = path.stem.removesuffix("-edited")
        [edit] = EditScript.from_file((folder / f"{name}.json").read_bytes()).edits
        shown = {f"{name}, before": folder / f"{name}.png", f"{name}, {edit.edit}": path}
        report.row({caption: np.asarray(Image.open(file).convert("RGB")) for caption, file in shown.items()}, wide=True)


def report_scenes(report: Report, pipeline: ElementsPipeline, records: Sequence[Record]) -> None:
    """Show edits of held-out scenes next to the truth, and how close ours and pixel editing come to it."""
    report.text("h2", f"{len(records)} held-out scenes")
    reconstructions = report_reconstruction(report, pipeline, records)

    folder = report.folder / "results"
    if folder.is_dir():
        remove_folder(folder)  # it may be from another model
    tasks = list(scene_cases(records))
    methods = make_methods(("ours", "pixels"), pipeline, "", Sampling(), None, None)
    run(folder, tasks, methods, pipeline, {record.source_id: record for record in records}, identity(records), BATCH)
    scores = score(folder, LPIPS("alex") if has_weights() else None)
    report.text(
        "p",
        "Edits compared with the true edited scene, in the edited region and in the complete image. Won is the share "
        "of edits that come closer to the truth, in the edited region, than both the unedited image and pixel editing. "
        "Both leave the object in its old place, so also compare with a flat image of the input's mean colour. "
        "The prompt of a variation allows many images; the truth is one of them.",
    )
    report.table(*rows(scores))
    print(as_text(scores))

    shown = {record.source_id: i for i, record in enumerate(records[:SHOWN])}
    for case in results.read_cases(folder):
        if case.source_id in shown:
            record = records[shown[case.source_id]]
            report.row(
                {
                    f"input, {record.caption}": record.image,
                    "partition": boundaries(
                        record.image, record.label_map, num_elements=pipeline.config.elements.num_elements
                    ),
                    "reconstruction": reconstructions[shown[case.source_id]],
                    f"{case.instruction}, red to green; blue is deleted": results.picture(folder, "drawing", case),
                    "pixel editing": results.picture(folder, "pixels", case),
                    f"result, {case.prompt}": results.picture(folder, "ours", case),
                    "truth": results.picture(folder, "truth", case),
                }
            )


def report_reconstruction(report: Report, pipeline: ElementsPipeline, records: Sequence[Record]) -> list[Picture]:
    """Report how close the reconstructions come to the images; return the reconstructions of stage 2."""
    light, full = list[Picture](), list[Picture]()
    for start in range(0, len(records), BATCH):
        some = records[start : start + BATCH]
        whole = pad_batch(some, BATCH)
        elements = pipeline.encode_batch(
            *(np.stack([getattr(r, name) for r in whole]) for name in ("image", "label_map"))
        ).elements
        prompts = [record.caption for record in whole]
        light += list(pipeline.reconstruct(elements)[: len(some)])
        full += list(pipeline.decode_batch(elements, prompts, seeds=range(start, start + BATCH))[: len(some)])
    images = jnp.stack([record.image for record in records]) / 255
    mean = {
        name: float(psnr(jnp.stack(pictures) / 255, images).mean())
        for name, pictures in (("stage 1 (light decoder)", light), ("stage 2 (diffusion decoder)", full))
    }
    report.table(["reconstruction", "PSNR, dB"], [[name, f"{value:.2f}"] for name, value in mean.items()])
    print("  ".join(f"{name}: {value:.2f} dB" for name, value in mean.items()))
    return full


def report_photographs(report: Report, records: Sequence[Record]) -> None:
    """Show edits of photographs by the model of photographs alone, which paints all of each picture."""
    pipeline = ElementsPipeline.from_pretrained(PHOTO)
    count, size = pipeline.config.elements.num_elements, pipeline.image_size
    report.text("h2", f"Photographs as {count} elements, painted at {size} px")
    report.text("p", "Nothing here keeps its own pixels: the light decoder of photo paints what the elements say.")
    yy, xx = (np.mgrid[:size, :size] + 0.5) / size
    middle = (abs(xx - 0.5) < 0.2) & (abs(yy - 0.5) < 0.2)
    for record, neighbour in zip(records, [*records[1:], records[0]], strict=True):
        canvas = pipeline.encode(record.image, record.label_map)
        theirs = pipeline.encode(neighbour.image, neighbour.label_map)
        chosen, other = (elements_under(each.label_map, middle) for each in (record, neighbour))
        edits: dict[str, Edit] = {
            "move": Move(chosen, (0.2, 0.0)),
            "resize": Resize(chosen, 0.6),
            "delete": Delete(chosen),
            "compose": Compose(neighbour.source_id, other),
        }
        after = [apply_script(EditScript((edit,)), canvas, lambda *_, theirs=theirs: theirs) for edit in edits.values()]
        painted = pipeline.reconstruct(stack([canvas, *(edited.canvas for edited in after)]).elements)
        report.row(
            {
                f"input, {record.source_id}": record.image,
                "partition": boundaries(record.image, np.asarray(canvas.label_map), num_elements=count),
                "reconstruction": painted[0],
            }
            | dict(zip(edits, painted[1:], strict=True))
        )
    report.text("h3", "The script of the last move")
    report.text("pre", EditScript((edits["move"],)).to_json())
