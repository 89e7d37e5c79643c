"""The result of `pip install elements-jax`: a wheel, built here, in an otherwise empty environment."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
SCRIPT = {"version": 1, "edits": [{"edit": "delete", "object": {"mask": "mask.png"}}], "sampling": {"steps": 2}}


def run(*command: object, folder: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the files that git tracks, so that it contains nothing else of this folder."""
    folder = tmp_path_factory.mktemp("wheel")
    run("git", "clone", "--quiet", "--no-tags", ROOT, folder / "source", folder=folder)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, folder / "source", folder=folder)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_the_model_and_the_page(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    page = ("editor/static/index.html", "editor/static/model/session.js", "study/static/index.html")
    for wanted in ("/tiny/model_index.json", "/tiny/README.md", *page):
        assert any(name.endswith(wanted) for name in names), f"the wheel lacks {wanted}"
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]


@pytest.mark.slow
def test_base_install_edits_a_photograph_without_torch(wheel: Path, tmp_path: Path):
    run(sys.executable, "-m", "venv", "env", folder=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, folder=tmp_path)
    listed = json.loads(run(python, "-m", "pip", "list", "--format", "json", folder=tmp_path))
    installed = {package["name"] for package in listed}
    assert not installed & {"torch", "tensorflow", "tensorflow-cpu", "fastapi"}
    files = [file for file in (tmp_path / "env").rglob("*") if file.is_file() and not file.is_symlink()]
    size = sum(file.stat().st_size for file in files)
    print(f"pip install elements-jax: {size / 1e6:.0f} MB, {len(installed)} packages")
    assert size < 1e9

    photo = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    mask = np.zeros((96, 128), np.uint8)
    mask[30:50, 40:70] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    (tmp_path / "edit.json").write_text(json.dumps(SCRIPT))
    edit = ("edit", "photo.png", "--script", "edit.json", "--out", "edited.png", "--segmenter", "grid")
    run(tmp_path / "env" / "bin" / "elements", *edit, folder=tmp_path)
    edited = np.asarray(Image.open(tmp_path / "edited.png"))
    assert edited.shape == photo.shape
    assert (edited[:8] == photo[:8]).all()
    assert (edited[30:50, 40:70] != photo[30:50, 40:70]).any()
