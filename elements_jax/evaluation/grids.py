"""Comparison grids, like Figures 12 and 17 to 24: rows of cases; columns of input, edit, results and truth."""

import html
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from elements_jax.data.atomic import new_file
from elements_jax.evaluation import results
from elements_jax.evaluation.results import Case

NAMES = {
    "input": "Input",
    "drawing": "Edit",
    "ours": "Ours",
    "pixels": "Pixel editing",
    "sd-inpaint": "Pixel editing + SD-Inpaint",
    "self-guidance": "Self-Guidance",
    "paint-by-example": "Paint-by-Example",
    "instruct-pix2pix": "InstructPix2Pix",
    "truth": "Truth",
}
"""Column titles in order; other methods follow under their own names."""
GAP, MARGIN, LINE, FONT = 8, 16, 22, 17  # in pixels
WORDS = 0.8
"""Width of the column with the instructions, in cells."""
INK, PALE = (25, 28, 33), (228, 231, 235)

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
img { max-width: 100%; margin-bottom: 1.5rem; border: 1px solid #ddd }
"""


def write_grids(folder: Path, out: Path, *, methods: Sequence[str] = (), rows: int = 6, cell: int = 256) -> Path:
    """Draw the cases of a results folder, `rows` per image, and return the page that shows all images.

    Args:
        methods: methods in column order; empty for all.
        cell: size of a cell in pixels.

    Raises ValueError if a method has no images or the sizes are invalid, or OSError.
    """
    if rows < 1 or not 32 <= cell <= 2048:
        raise ValueError(f"expected at least 1 row, and cells of 32 to 2048 pixels, got {rows} and {cell}")
    cases, found = results.read_cases(folder), results.methods(folder)
    if not cases or not found:
        raise ValueError(f"{folder}: no case has an image of a method")
    if missing := [name for name in methods if name not in found]:
        raise ValueError(f"{folder}: no images of {missing[0]!r}; it has {', '.join(found)}")
    every = ["input", "drawing", *(methods or sorted(found, key=_order)), "truth"]
    columns = [name for name in every if any(results.path_of(folder, name, case).is_file() for case in cases)]

    out.mkdir(parents=True, exist_ok=True)
    figures = []
    for start in range(0, len(cases), rows):
        name = f"grid-{start // rows + 1:02}.png"
        shown = cases[start : start + rows]
        with new_file(out / name) as file:
            Image.fromarray(grid(folder, shown, columns, cell)).save(file, "PNG")
        words = html.escape("; ".join(f"{case.name}: {case.instruction}" for case in shown))
        figures.append(f"<img src='{name}' alt='{words.replace(chr(39), '&#39;')}'>")
    page = out / "index.html"
    heads = html.escape(", ".join(map(head, columns)))
    with new_file(page) as file:
        file.write(
            f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
            f"<title>Comparison</title><style>{STYLE}</style><h1>Comparison</h1><p>{len(cases)} edits. "
            f"Columns: {heads}.</p>{''.join(figures)}\n".encode()
        )
    return page


def head(column: str) -> str:
    """Return the title of a column."""
    if column.startswith("sdedit-"):
        return f"Pixel editing + SDEdit {column.removeprefix('sdedit-')}"
    return NAMES.get(column, column)


def _order(method: str) -> tuple[int, str]:
    """Sort key: ours first, then the order of Figure 17's caption, SDEdit after SD-Inpaint, then others by name."""
    name = "sd-inpaint" if method.startswith("sdedit-") else method
    return (list(NAMES).index(name) if name in NAMES else len(NAMES), method)


def grid(folder: Path, cases: Sequence[Case], columns: Sequence[str], cell: int) -> UInt8[np.ndarray, "H W 3"]:
    """Draw some cases as one image."""
    font = ImageFont.load_default(FONT)
    words = int(WORDS * cell)
    heads = [_wrapped(head(column), cell, font) for column in columns]
    top = MARGIN + LINE * max(map(len, heads)) + GAP
    width = 2 * MARGIN + words + len(columns) * (cell + GAP)
    canvas = Image.new("RGB", (width, top + len(cases) * (cell + GAP) - GAP + MARGIN), "white")
    pen = ImageDraw.Draw(canvas)
    lefts = [MARGIN + words + GAP + i * (cell + GAP) for i in range(len(columns))]
    for left, lines in zip(lefts, heads, strict=True):
        for i, line in enumerate(reversed(lines)):
            pen.text((left + cell / 2, top - GAP - LINE * i), line, INK, font, anchor="md")
    for row, case in enumerate(cases):
        y = top + row * (cell + GAP)
        lines = _wrapped(case.instruction, words, font)
        middle = y + cell / 2 - LINE * (len(lines) - 1) / 2
        for i, line in enumerate(lines):
            pen.text((MARGIN, middle + LINE * i), line, INK, font, anchor="lm")
        for left, column in zip(lefts, columns, strict=True):
            if results.path_of(folder, column, case).is_file():
                picture = fitted(results.picture(folder, column, case), cell)
                canvas.paste(picture, (left + (cell - picture.width) // 2, y + (cell - picture.height) // 2))
            else:
                pen.rectangle((left, y, left + cell - 1, y + cell - 1), PALE)
                pen.text((left + cell / 2, y + cell / 2), "none", (110, 115, 122), font, anchor="mm")
    return np.asarray(canvas)


def fitted(picture: UInt8[np.ndarray, "H W 3"], cell: int) -> Image.Image:
    """Scale an image to fit a cell; small images are enlarged by repeating pixels."""
    height, width = picture.shape[:2]
    scale = cell / max(height, width)
    resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return Image.fromarray(picture).resize((max(1, round(width * scale)), max(1, round(height * scale))), resample)


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Wrap text to a width in pixels."""
    letters = max(4, int(width / (font.getlength("abcdefghij klmno") / 16)))
    return textwrap.wrap(text, letters) or [""]
