"""A full disk gives one line that names the file, and no half-written files. The disk is a small one in memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.processes import ended, start

ON_A_SMALL_DISK = """
mount -t tmpfs -o size=$1 tmpfs "$2" || exit 99
cd "$2"
shift 2
"$@"
code=$?
find . -type f
exit $code
"""
"""Run a command in its own file system; the remaining files follow its output."""


@pytest.fixture(scope="module", autouse=True)
def _may_mount() -> None:
    if subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "true"], check=False).returncode:
        pytest.skip("this machine does not let users mount file systems of their own")


def on_a_small_disk(folder: Path, size: str, command: list[str]) -> tuple[int, str, list[str], set[str]]:
    """Run a command in a folder of `size` bytes; return (exit code, output, lines of errors, remaining files)."""
    main = "import sys; from elements_jax.cli.main import main; sys.exit(main(sys.argv[1:]))"
    python = [sys.executable, "-c", main, *command]
    outside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, "sh", size, str(folder)]
    run = f"import os; os.execvp('unshare', {[*outside, *python]})"
    code, printed, errors = ended(start("-c", run, PYTHONPATH=Path(__file__).parents[1]))
    return code, printed, errors.splitlines(), {line for line in printed.splitlines() if line.startswith("./")}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(6):
        noise = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scripts") / "scripts.jsonl"
    lines = [{"version": 1, "source_id": str(100 + i), "edits": []} for i in range(8)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *[("scenes", "4k"), ("scenes", "32k"), ("partition", "4k"), ("partition", "32k")],
        *[("encode", "4k"), ("cache", "4k"), ("batch", "4k")],
    ],
)
def test_a_full_disk_is_one_line(name, size, photos, scripts, records, model_folder, tmp_path):
    model, grid = ["--model", str(model_folder)], ["--segmenter", "grid"]
    png = ["--size", "64", "--image-format", "png", "--workers", "1"]
    command = {
        "scenes": ["scenes", "out", "--count", "40"],
        "partition": ["partition", str(photos), "out", *grid, *png],
        "encode": ["encode", str(photos / "0.png"), "out/photo.npz", *grid, *model],
        "cache": ["cache", str(records), "out", *model],
        "batch": ["batch", str(records), str(scripts), "out", *model],
    }[name]
    code, printed, errors, left = on_a_small_disk(tmp_path, size, command)
    assert code == 1, (printed, errors)
    assert "Traceback" not in "".join(errors)
    [error] = [line for line in errors if "error: " in line]
    assert "error: out" in error
    assert error.endswith(": no space left on device")
    assert not [path for path in left if "unfinished" in path]
