"""Two folders of images, and runs of `elements evaluate`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from elements_jax.cli.main import main
from tests.helpers.records import record

WHOLE = ["--metrics", "mse", "psnr", "ssim"]


def save(path: Path, pictures: dict[str, np.ndarray]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(path / f"{name}.png")
    return path


def noisy(image: np.ndarray, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 5 + 20 * (seed % 5), image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def write_folder_pair(folder: Path) -> tuple[Path, Path]:
    """Write seven noisy images, and the clean ones."""
    clean = {f"picture-{i}": record(i, 32).image for i in range(7)}
    return save(folder / "noisy", {n: noisy(c, i) for i, (n, c) in enumerate(clean.items())}), save(
        folder / "clean", clean
    )


def evaluate(out: Path, *arguments: Any) -> dict[str, Any]:
    """Return a command's report, its numbers by (method, kind, metric)."""
    assert main(["evaluate", *map(str, arguments), "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    report["numbers"] = {(n["method"], n["kind"], n["metric"]): n for n in report["numbers"]}
    return report


def values(report: dict[str, Any]) -> list[float]:
    return [number["value"] for number in report["numbers"].values()]


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray | None = None) -> float:
    error = ((a.astype(np.float64) - b) / 255) ** 2
    return float(-10 * np.log10(np.mean(error if where is None else error[where])))


def refused(capsys, *arguments: Any) -> str:
    assert main(["evaluate", *map(str, arguments)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") or "\nerror: " in error
    return error
