"""A results folder of synthetic scenes: `ours` is the truth, a little blurred; others are noisy or unedited copies."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from elements_jax.editing.drawing import DELETED, SOURCE, TARGET, enlarge
from elements_jax.evaluation.results import Case, save, write_cases
from elements_jax.scenes import drawn

METHODS = ("ours", "pixels", "sdedit-0.5", "sd-inpaint")


def write_scene_results(folder: Path, scenes_count: int = 4, size: int = 64) -> list[Case]:
    """Write three cases of each scene: a move, a resize and a deletion."""
    rng = np.random.default_rng(0)
    cases = []
    for seed in range(scenes_count):
        scene = drawn.scene(seed, size)
        image, labels = drawn.render(scene)
        for edit in drawn.sample_edits(scene, seed):
            truth = drawn.render(scene.edited(edit))[0]
            shape = scene.shapes[edit.k - 1]
            kind = edit.kind if edit.kind != "resize" else "shrink" if edit.scale < 1 else "enlarge"
            case = Case(f"{len(cases):04}-{kind}", kind, instruction(shape.words, edit))
            save(folder, "input", case, image)
            save(folder, "truth", case, truth)
            save(folder, "drawing", case, drawing(image, shape, edit))
            save(folder, "ours", case, np.asarray(Image.fromarray(truth).filter(ImageFilter.GaussianBlur(size / 160))))
            noisy = truth + rng.normal(0, 30, truth.shape)
            save(folder, "sdedit-0.5", case, np.clip(noisy, 0, 255).astype(np.uint8))
            save(
                folder,
                "pixels",
                case,
                image if edit.kind == "delete" else np.where(labels[..., None] == edit.k, image, truth),
            )
            flat = np.broadcast_to(image.mean((0, 1)).astype(np.uint8), image.shape)
            save(folder, "sd-inpaint", case, np.where(labels[..., None] == edit.k, flat, truth))
            cases.append(case)
    write_cases(folder, cases)
    return cases


def instruction(words: str, edit: drawn.Edit) -> str:
    if edit.kind == "delete":
        return f"remove the {words}"
    if edit.kind == "resize":
        return f"make the {words} {'smaller' if edit.scale < 1 else 'larger'}"
    across = "right" if edit.dx > 0 else "left"
    along = "down" if edit.dy > 0 else "up"
    return f"move the {words} to the {across} and {along}"


def drawing(image: np.ndarray, shape: drawn.Shape, edit: drawn.Edit) -> np.ndarray:
    canvas = Image.fromarray(enlarge(image))
    pen = ImageDraw.Draw(canvas)
    side, (x, y) = canvas.width, shape.centre
    for dx, dy in np.array([(0, 0), (-0.4, 0), (0.4, 0), (0, -0.4), (0, 0.4)]) * shape.size / 2:
        old, new = (x + dx, y + dy), (x + edit.scale * dx + edit.dx, y + edit.scale * dy + edit.dy)
        for at, colour in ((old, DELETED if edit.kind == "delete" else SOURCE), (new, TARGET)):
            if edit.kind != "delete" or colour == DELETED:
                centre = np.multiply(at, side)
                pen.ellipse((*(centre - 6), *(centre + 6)), fill=colour, outline="white")
    return np.asarray(canvas)
