"""Writes a study: a self-contained page, and the key to the methods that it shows.

OUT/page/index.html         the page with all texts; opens from disk and from any web server
OUT/page/pictures/HASH.png  its images; neither their names nor their contents reveal the methods
OUT/key.json                the methods of each pair; not for raters
"""

import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from elements_jax.data.atomic import new_folder
from elements_jax.evaluation import results
from elements_jax.evaluation.results import Case
from elements_jax.evaluation.study.answers import Key
from elements_jax.evaluation.study.plan import SCRAMBLED, UNEDITED, Form, plan

STATIC = Path(__file__).with_name("static")
DATA = "{{STUDY}}"
"""Placeholder for the study in index.html."""
TILES = 4
"""Number of tiles per side of a scrambled image."""


def make(
    folder: Path,
    out: Path,
    *,
    ours: str,
    baselines: Sequence[str],
    length: int,
    checks: int,
    seed: int,
    finish: str,
) -> Key:
    """Write the study of a results folder atomically and return its key. The same seed gives the same bytes.

    Args:
        baselines: methods to compare with; empty for all.
        length, checks: see `plan`.
        finish: instruction to raters about their file of answers.

    Raises ValueError if methods or images are missing, or OSError, also if `out` exists already.
    """
    cases, found = results.read_cases(folder), results.methods(folder)
    for name in (ours, *baselines):
        if name not in found:
            raise ValueError(f"{folder}: no images of {name!r}; it has {', '.join(found) or 'none'}")
    against = list(baselines) or [name for name in found if name != ours]
    if ours in against:
        raise ValueError(f"{ours!r} cannot be compared with itself")

    def shown(method: str, case: Case) -> bool:
        return results.path_of(folder, method, case).is_file()

    forms = plan(cases, ours, against, shown, length=length, checks=checks, seed=seed)
    if out.exists():
        raise FileExistsError(f"{out} exists already, and raters may have answered it")
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(out) as unfinished:
        page = unfinished / "page"
        (page / "pictures").mkdir(parents=True)
        trials = _trials(folder, cases, forms, page / "pictures", seed)
        study = hashlib.sha256(json.dumps(trials, sort_keys=True).encode()).hexdigest()[:12]
        key = Key(
            study,
            ours,
            tuple(tuple(pair.name(seed) for pair in form) for form in forms),
            {pair.name(seed): pair for form in forms for pair in form},
        )
        (unfinished / "key.json").write_text(json.dumps(dataclasses.asdict(key), indent=1) + "\n", encoding="utf-8")
        _write_page(page, {"version": 1, "study": study, "finish": finish, "forms": trials})
    return key


def _write_page(page: Path, study: dict[str, Any]) -> None:
    """Write the page. The study is JSON in index.html, since a page opened from disk may not read other files."""
    for file in STATIC.iterdir():
        shutil.copyfile(file, page / file.name)
    text = json.dumps(study).replace("<", "\\u003c")  # so that no instruction can end the script element
    index = page / "index.html"
    index.write_text(index.read_text(encoding="utf-8").replace(DATA, text), encoding="utf-8")


def _trials(
    folder: Path, cases: Sequence[Case], forms: Sequence[Form], pictures: Path, seed: int
) -> list[list[dict[str, str]]]:
    """Write the images, and return the page's data of each form."""
    by_name = {case.name: case for case in cases}
    written: dict[tuple[str, str], str] = {}

    def picture(method: str, case: Case) -> str:
        """Write a method's result and return its file name."""
        if (method, case.name) not in written:
            content = _png(_shown(folder, method, case, seed))
            name = hashlib.sha256(f"{seed} ".encode() + content).hexdigest()[:16] + ".png"
            (pictures / name).write_bytes(content)
            written[method, case.name] = name
        return written[method, case.name]

    return [
        [
            {
                "pair": pair.name(seed),
                "instruction": case.instruction,
                "drawing": picture("drawing", case),
                "left": picture(pair.left, case),
                "right": picture(pair.right, case),
            }
            for pair in form
            for case in [by_name[pair.case]]
        ]
        for form in forms
    ]


def _shown(folder: Path, method: str, case: Case, seed: int) -> UInt8[np.ndarray, "H W 3"]:
    """Return an image to show; all but the drawing have the size of the input, so that size reveals nothing."""
    if method == "drawing":
        return results.picture(folder, "drawing", case)
    image = results.picture(folder, "input", case)
    if method == UNEDITED:
        return image
    if method == SCRAMBLED:
        return scramble(image, seed)
    made = results.picture(folder, method, case)
    if made.shape == image.shape:
        return made
    height, width, _ = image.shape
    return np.asarray(Image.fromarray(made).resize((width, height), Image.Resampling.LANCZOS))


def scramble(image: UInt8[np.ndarray, "H W 3"], seed: int) -> UInt8[np.ndarray, "H W 3"]:
    """Move every tile of the image to another place: clearly wrong for any edit."""
    height, width = (length // TILES * TILES for length in image.shape[:2])
    tiles = image[:height, :width].reshape(TILES, height // TILES, TILES, width // TILES, 3).swapaxes(1, 2)
    order = np.random.default_rng(seed).permutation(TILES**2)
    moved = np.empty_like(tiles.reshape(TILES**2, *tiles.shape[2:]))
    moved[order] = tiles.reshape(moved.shape)[np.roll(order, 1)]  # one cycle, so that no tile stays
    result = image.copy()
    result[:height, :width] = moved.reshape(tiles.shape).swapaxes(1, 2).reshape(height, width, 3)
    return result


def _png(picture: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """Encode an image again, because a result's text chunks reveal its method."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()
