"""The demo's report: one HTML page and its PNGs, for a person to judge a model by."""

import dataclasses
import html
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from elements_jax import edits, scenes
from elements_jax.draw import boundaries, edit_dots, enlarge
from elements_jax.edits import Canvas, batched
from elements_jax.files import new_file
from elements_jax.pipeline import ElementsPipeline
from elements_jax.records import TFRecordSource, find_shards
from elements_jax.scene_edits import OBJECT_SHARE, decode_cases, edit_cases, kind, psnr, scene_of, score
from elements_jax.schema import Record
from elements_jax.script import Compose, Delete, Edit, EditScript, Move, Resize

Picture = UInt8[np.ndarray, "H W 3"]

SHOWN = 6  # scenes whose edits are shown; all count in the table
BATCH = 16  # pictures decoded at once

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1500px; padding: 0 1rem; color: #222 }
figure { display: inline-block; margin: 0 6px 12px 0; vertical-align: top } figure img { width: 190px; display: block }
figcaption { font-size: 12px; color: #555; max-width: 190px } table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: 2px 14px 2px 0; text-align: right } td:first-child, th:first-child { text-align: left }
.row { border-top: 1px solid #ddd; padding-top: 8px } pre { background: #f4f4f4; padding: 8px; overflow-x: auto }
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
        """Words in a tag."""
        self._parts.append(f"<{tag}>{html.escape(words)}</{tag}>")

    def row(self, pictures: dict[str, Picture]) -> None:
        """Pictures side by side, each under its caption, each also a PNG of its own."""
        figures = []
        for caption, picture in pictures.items():
            name = f"{self._pictures:03}-{caption.split(',')[0].replace(' ', '-')}.png"
            self._pictures += 1
            Image.fromarray(enlarge(picture)).save(self.folder / name)
            figures.append(f"<figure><img src='{name}'><figcaption>{html.escape(caption)}</figcaption></figure>")
        self._parts.append(f"<div class=row>{''.join(figures)}</div>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table; the first column holds names."""
        lines = [f"<tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in head)}</tr>"]
        lines += [f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
        self._parts.append(f"<table>{''.join(lines)}</table>")

    def save(self) -> Path:
        """Write the page; a reader sees the old one or the new one."""
        path = self.folder / "index.html"
        with new_file(path) as file:
            file.write("\n".join(self._parts).encode())
        return path


def write_report(folder: Path, model: Path, scene_records: Path, photo_records: Path) -> Path:
    """Edit held-out scenes and photographs with a model, and show what came of it. Returns the page."""
    pipeline = ElementsPipeline.from_pretrained(model)
    report = Report(folder, "Editable image elements: tiny")
    held_out = read_records(scene_records, "val")
    report_edits(report, pipeline, held_out)
    report_composition(report, pipeline, held_out)
    report_photographs(report, pipeline, read_records(photo_records, "train"))
    return report.save()


def read_records(folder: Path, split: str) -> list[Record]:
    """All records of a small split."""
    source = TFRecordSource(find_shards(folder)[split])
    return [Record.from_example(source[i], source.where(i)) for i in range(len(source))]


def report_edits(report: Report, pipeline: ElementsPipeline, records: Sequence[Record]) -> None:
    """Moves, resizes and deletions of held-out scenes beside the truth, and how often ours is nearest to it."""
    count = pipeline.config.elements.num_elements
    cases = list(edit_cases(pipeline, records))
    results = decode_cases(pipeline, cases, BATCH)
    unedited = [
        dataclasses.replace(case, after=case.before, prompt=record.caption)
        for case, record in zip(cases[::3], records, strict=True)
    ]
    reconstructions = decode_cases(pipeline, unedited, BATCH)
    light = [pipeline.reconstruct(batched([case.before]).elements)[0] for case in unedited]

    report.text("h2", f"{len(records)} held-out scenes")
    mean = {
        "stage 1 (light decoder)": np.mean([psnr(a, case.image) for a, case in zip(light, unedited, strict=True)]),
        "stage 2 (diffusion decoder)": np.mean(
            [psnr(a, case.image) for a, case in zip(reconstructions, unedited, strict=True)]
        ),
    }
    report.table(["reconstruction", "PSNR, dB"], [[name, f"{value:.2f}"] for name, value in mean.items()])
    report.text(
        "p",
        "Share of edits whose result is nearer to the true edited scene, in the edited region, than both the unedited "
        "picture and plain pixel copy-paste are; and the median mean squared errors there. Both leave the object where "
        "it was: what a share is worth shows the flat picture in the input's mean colour.",
    )
    rows = [
        [name, str(s.count), f"{s.share_won:.1%}", f"{s.share_won_by_flat:.1%}"]
        + [f"{error:.4f}" for error in (s.ours, s.unedited, s.pasted, s.flat)]
        for name, s in score(cases, results).items()
    ]
    head = ["edit", "count", "share won", "by a flat picture", "ours", "unedited", "pixel copy-paste", "flat picture"]
    report.table(head, rows)
    print("\n".join("  ".join(f"{cell:>17}" for cell in row) for row in [head, *rows]))
    print("  ".join(f"{name}: {value:.2f} dB" for name, value in mean.items()))

    for i, (case, result) in enumerate(zip(cases[: 3 * SHOWN], results, strict=False)):
        report.row(
            {
                f"input, {records[i // 3].caption}": case.image,
                "partition": boundaries(case.image, np.asarray(case.before.label_map), num_elements=count),
                "reconstruction": reconstructions[i // 3],
                f"{kind(case.edit)}, red to green; blue is deleted": edit_dots(
                    case.image, case.before.elements, case.after.elements
                ),
                "pixel copy-paste": case.pasted,
                f"result, {case.prompt}": result,
                "truth": case.truth,
            }
        )


def report_composition(report: Report, pipeline: ElementsPipeline, records: Sequence[Record]) -> None:
    """An object of the second scene put into the first, and an object varied by deleting half of it and a prompt."""
    report.text("h2", "Composition and variation of scenes")
    for target, other in zip(records[:SHOWN:2], records[1:SHOWN:2], strict=True):
        into, scene = scene_of(target), scene_of(other)
        image, objects = scenes.render(scene)
        k = max(range(1, len(scene.shapes) + 1), key=lambda k: int((objects == k).sum()))
        canvas, theirs = pipeline.open(target.image, target.label_map), pipeline.open(image, other.label_map)
        picked = indices_under(theirs, objects == k)
        composed = edited(canvas, Compose(other.source_id, picked), theirs)
        whole = into.insert(scene.shapes[k - 1])
        report.row(
            {
                "target": target.image,
                f"source, {other.caption}": image,
                "composition, green is inserted": edit_dots(target.image, canvas.elements, composed.elements),
                f"result, {whole.caption}": decode_one(pipeline, composed, whole.caption),
                "truth": scenes.render(whole)[0],
            }
        )
        half = picked[: len(picked) // 2]
        varied = edited(theirs, Delete(half))
        shape = scene.shapes[k - 1]
        prompts = {colour: other.caption.replace(shape.texture.colour, colour) for colour in ("red", "blue", "green")}
        report.row(
            {
                "before": image,
                "variation, blue is deleted": edit_dots(image, theirs.elements, varied.elements),
                **{f"result, {prompt}": decode_one(pipeline, varied, prompt) for prompt in prompts.values()},
            }
        )


def report_photographs(report: Report, pipeline: ElementsPipeline, records: Sequence[Record]) -> None:
    """The five edits on photographs, by edit script. `tiny` never saw one: these show what carries over."""
    report.text("h2", "Photographs")
    report.text(
        "p", "This model was trained on synthetic scenes alone. What it makes of photographs is shown as it is."
    )
    count, size = pipeline.config.elements.num_elements, pipeline.config.elements.image_size
    yy, xx = (np.mgrid[:size, :size] + 0.5) / size
    middle = (abs(xx - 0.5) < 0.2) & (abs(yy - 0.5) < 0.2)
    for record, neighbour in zip(records, [*records[1:], records[0]], strict=True):
        canvas = pipeline.open(record.image, record.label_map)
        theirs = pipeline.open(neighbour.image, neighbour.label_map)
        chosen, other = indices_under(canvas, middle), indices_under(theirs, middle)
        steps: dict[str, Edit] = {
            "move": Move(chosen, (0.2, 0.0)),
            "resize": Resize(chosen, 0.6),
            "delete": Delete(chosen),
            "compose": Compose(neighbour.source_id, other),
            "variation": Delete(chosen[::2]),
        }
        report.row(
            {
                f"input, {record.source_id}": record.image,
                "partition": boundaries(record.image, np.asarray(canvas.label_map), num_elements=count),
                "stage 1": pipeline.reconstruct(batched([canvas]).elements)[0],
                "reconstruction": decode_one(pipeline, canvas, ""),
            }
        )
        pictures = {}
        for name, edit in steps.items():
            after = edited(canvas, edit, theirs)
            prompt = "a red circle on a light blue background" if name == "variation" else ""
            pictures[f"{name}, drawn"] = edit_dots(record.image, canvas.elements, after.elements)
            pictures[f"{name}, result"] = decode_one(pipeline, after, prompt)
        report.row(pictures)
    report.text("h3", "The script of the last move")
    report.text("pre", EditScript((steps["move"],)).to_json())


def edited(canvas: Canvas, edit: Edit, other: Canvas | None = None) -> Canvas:
    """The canvas after one edit; `other` is the image that a composition takes from."""
    return apply(EditScript((edit,)), canvas, lambda *_: other or canvas).canvas


def indices_under(canvas: Canvas, mask: Bool[np.ndarray, "H W"]) -> tuple[int, ...]:
    """Numbers of the elements that lie mostly under a mask."""
    share = edits.covered_by(canvas.label_map, jnp.asarray(mask), canvas.num_elements)
    return tuple(np.flatnonzero(np.asarray(share) >= OBJECT_SHARE).tolist())


def decode_one(pipeline: ElementsPipeline, canvas: Canvas, prompt: str) -> Picture:
    """One picture, with seed 0."""
    return pipeline.decode(batched([canvas]).elements, [prompt], seeds=[0])[0]
