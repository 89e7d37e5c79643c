"""Holes in photographs: ours with and without a guide, OpenCV's inpainting and PatchMatch.

    pip install opencv-python-headless pypatchmatch
    python tests/benchmarks/photographs/holes.py FOLDER_OF_PHOTOGRAPHS

Each photograph is scaled to at most 1,024 px and gives a window of 512 px, with one hole like an object of 70 to 180
px; the truth is the photograph. A smaller photograph gives a smaller window, with a hole smaller in proportion. A guide
"1/8" is the truth made 8 times smaller. The imperfect guides are variants of 1/8: blurred by 1.5 of its pixels, with a
gain of 0.8 to 1.2 and an offset of up to 20 for each channel and noise of 6; of Telea's fill instead of the truth; of
another photograph. With --model there are no guides from the truth, but the light decoder of a model's stage 1, which
fills the hole alone and as the guide, and a flat colour. LPIPS is of the hole's box. After each mean comes its interval
of 95 %, and that of the difference to --against, by bootstrap over photographs. Seconds are medians of all runs but the
first, which compiles: on the clock, and summed over all cores, which a busy machine changes less.
"""

import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from patchmatch import patch_match
from PIL import Image, ImageOps
from tqdm import tqdm

from elements_jax.cli.photos import PhotoSegmenter, SegmenterOptions
from elements_jax.data.record import DROPPED
from elements_jax.editing.edits import stack
from elements_jax.fill.guide import probes_for
from elements_jax.fill.hole import fill_hole
from elements_jax.fill.smooth import shrink_mask
from elements_jax.metrics.lpips import LPIPS
from elements_jax.pipeline.pipeline import ElementsPipeline

WINDOW = 512
Fill = Callable[[], np.ndarray]
Decode = Callable[[np.ndarray, np.ndarray], np.ndarray]


def main(
    folder: Annotated[Path, tyro.conf.Positional],
    seed: int = 0,
    every: int = 1,
    imperfect: bool = False,
    model: str | None = None,
    against: str = "PatchMatch",
    pictures: Path | None = None,
) -> None:
    """Fill a hole in each photograph by each method and print a table.

    Args:
        folder: Folder of photographs, `*.jpg`, `*.png` and `*.webp`.
        seed: Seed of windows and holes.
        every: Take only each n-th photograph.
        imperfect: Also use imperfect guides.
        model: Name or folder of a model whose light decoder fills the holes.
        against: Method with which the others are compared.
        pictures: Folder for one PNG per photograph: input, truth, and the methods in the table's order.
    """
    lpips, decode = LPIPS("alex"), light_decoder(model) if model else None
    scores: dict[str, list[tuple[float, float, float, float]]] = {}
    for name, truth, hole, other in tqdm(list(cases(folder, seed))[::every], unit="hole"):
        rows, columns = np.where(hole)
        box = np.s_[max(rows.min() - 16, 0) : rows.max() + 17, max(columns.min() - 16, 0) : columns.max() + 17]
        crops = [np.where(hole[..., None], 128, truth).astype(np.uint8)[box], truth[box]]
        for method, fill in methods(truth, hole, other, imperfect, decode).items():
            start, worked = time.perf_counter(), time.process_time()
            filled = fill()
            seconds, worked = time.perf_counter() - start, time.process_time() - worked
            psnr = 10 * np.log10(255**2 / np.mean((filled[hole].astype(float) - truth[hole]) ** 2))
            as_input = [jnp.asarray(image[box], jnp.float32)[None] / 127.5 - 1 for image in (filled, truth)]
            scores.setdefault(method, []).append((psnr, float(lpips(*as_input)[0]), seconds, worked))
            crops.append(filled[box])
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.concatenate(crops, 1)).save(pictures / f"{name}.png")
    print_table({method: np.array(rows) for method, rows in scores.items()}, against)


def cases(folder: Path, seed: int) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield name, window, hole, and the window of the photograph before, which is unrelated."""
    rng, before = np.random.default_rng(seed), None
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png", ".webp")):
        photo = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        photo.thumbnail((1024, 1024), Image.Resampling.LANCZOS)
        side = min(WINDOW, *photo.size)
        x, y = rng.integers(0, photo.width - side + 1), rng.integers(0, photo.height - side + 1)
        truth = np.asarray(photo)[y : y + side, x : x + side]
        mask = np.zeros((side, side), np.uint8)
        centre = side // 2 + scaled(rng.integers(-60, 61, 2), side)
        for _ in range(3):
            at, axes = centre + scaled(rng.integers(-25, 26, 2), side), scaled(rng.integers(35, 75, 2), side)
            cv2.ellipse(mask, at.tolist(), axes.tolist(), float(rng.integers(0, 180)), 0, 360, 1, -1)
        yield path.stem, truth, mask > 0, truth[:, ::-1] if before is None else before
        before = truth


def scaled(lengths: np.ndarray, side: int) -> np.ndarray:
    """Scale pixels of the full window to those of a smaller one."""
    return np.rint(lengths * side / WINDOW).astype(int)


def light_decoder(model: str) -> Decode:
    """Return a function that shows what a model's light decoder makes of a picture without the elements in a hole."""
    pipeline = ElementsPipeline.from_pretrained(model)
    divider = PhotoSegmenter(pipeline.config.elements, SegmenterOptions())
    size = pipeline.config.elements.image_size

    def decode(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
        small = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))
        label_map = np.where(shrink_mask(hole, (size, size)), DROPPED, divider.label(small))
        return pipeline.reconstruct(stack([pipeline.encode(small, label_map)]).elements)[0]

    return decode


def methods(
    truth: np.ndarray, hole: np.ndarray, other: np.ndarray, imperfect: bool, decode: Decode | None
) -> dict[str, Fill]:
    """Return functions that fill the hole, by their names in the table."""
    mask = hole.astype(np.uint8) * 255
    image = np.where(hole[..., None], 0, truth).astype(np.uint8)

    def telea() -> np.ndarray:
        return cv2.inpaint(image, mask, 5, cv2.INPAINT_TELEA)

    found: dict[str, Fill] = {
        "Telea": telea,
        "PatchMatch": lambda: patch_match.inpaint(image, mask, patch_size=7),
        "ours": lambda: fill_hole(image, hole),
    }
    if decode:
        found |= {
            "flat": lambda: np.where(hole[..., None], truth[~hole].mean(0), truth).astype(np.uint8),
            "model alone": lambda: np.where(hole[..., None], enlarged(decode(image, hole), len(hole)), truth),
            "ours, guided by the model": lambda: guided(image, hole, decode),
        }
    else:
        found |= {
            "ours, guide 1/8": lambda: fill_hole(image, hole, smaller(truth, 8)),
            "ours, guide 1/16": lambda: fill_hole(image, hole, smaller(truth, 16)),
        }
    if imperfect:
        rng = np.random.default_rng(int(hole.sum()))
        worse = cv2.GaussianBlur(smaller(truth, 8), (0, 0), 1.5) * rng.uniform(0.8, 1.2, 3) + rng.uniform(-20, 20, 3)
        worse += rng.normal(0, 6, worse.shape)
        found |= {
            "ours, blurred guide": lambda: fill_hole(image, hole, worse),
            "ours, Telea's guide": lambda: fill_hole(image, hole, smaller(telea(), 8)),
            "ours, another's guide": lambda: fill_hole(image, hole, smaller(other, 8)),
        }
    return found


def guided(image: np.ndarray, hole: np.ndarray, decode: Decode) -> np.ndarray:
    """Fill the hole guided by a model, which sees neither hole nor probes."""
    probes = probes_for(hole)
    return fill_hole(image, hole, decode(np.where(probes[..., None], 0, image).astype(np.uint8), hole | probes), probes)


def enlarged(image: np.ndarray, side: int) -> np.ndarray:
    """Enlarge a model's picture to the window."""
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def smaller(image: np.ndarray, factor: int) -> np.ndarray:
    """Shrink the image by averaging over areas."""
    size = image.shape[1] // factor, image.shape[0] // factor
    return cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)


def print_table(scores: dict[str, np.ndarray], against: str) -> None:
    """Print a row for each method."""
    count = len(scores[against])
    draws = np.random.default_rng(0).integers(0, count, (2000, count))

    def interval(values: np.ndarray) -> str:
        low, high = np.quantile(values[draws].mean(1), (0.025, 0.975))
        return f"{values.mean():6.3f} [{low:6.3f}, {high:6.3f}]"

    print(f"{'':24}{'PSNR, dB':>9}  {'LPIPS':24}{f'LPIPS less {against}':26}{'s':>6}  {'core s':>6}   ({count} holes)")
    for method, rows in scores.items():
        psnr, distance, seconds, worked = rows.T
        versus, times = interval(distance - scores[against][:, 1]), np.median([seconds[1:], worked[1:]], 1)
        print(f"{method:24}{psnr.mean():9.2f}  {interval(distance)}  {versus}  {times[0]:6.2f}  {times[1]:6.2f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process, LPIPS included: {peak:.2f} GB; {jax.default_backend()}")


if __name__ == "__main__":
    tyro.cli(main)
