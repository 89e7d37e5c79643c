"""`elements editor`: requirements, address, end; and the same bytes as `elements edit`."""

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import elements_jax
from elements_jax.cli.edit import Edit
from elements_jax.cli.main import main
from elements_jax.cli.photos import ObjectFinder, PhotoSegmenter, SegmenterOptions
from elements_jax.pipeline.session import EditSession
from tests.editor.conftest import LOCAL, app_of, encode, noise, script, wait_until


@pytest.mark.parametrize("kind", ["jpeg", "png"])
@pytest.mark.parametrize("detail", ["pixels", "decoder"])
def test_page_and_command_give_the_same_photograph(
    editing: EditSession, model_folder: Path, tmp_path: Path, kind: str, detail: str
) -> None:
    mask = np.zeros((15, 25, 3), np.uint8)
    mask[10:14, 18:24] = 255
    pictures = {f"photo.{kind}": encode(noise(30, 50), kind, dpi=(300, 300)), "mask.png": encode(mask)}
    pictures["other.png"] = encode(noise(40, 30, seed=1))
    for name, content in pictures.items():
        (tmp_path / name).write_bytes(content)
    edits = (
        {"edit": "delete", "object": {"box": [0.2, 0.2, 0.5, 0.6]}},
        {"edit": "move", "object": {"mask": "mask.png"}, "by": [-0.1, 0]},
        {"edit": "compose", "image": "other.png", "object": {"box": [0.1, 0.1, 0.4, 0.4]}, "scale": 0.5},
    )
    fields = script(*edits, detail=detail)
    (tmp_path / "script.json").write_text(json.dumps(fields))
    out = tmp_path / f"out.{kind}"
    Edit(
        tmp_path / f"photo.{kind}", tmp_path / "script.json", str(model_folder), out, source=SegmenterOptions("grid")
    ).run()

    divider = PhotoSegmenter(editing.pipeline.config.elements, SegmenterOptions("grid"))
    app = app_of(editing, find_object=ObjectFinder(divider, SegmenterOptions("grid")))
    with TestClient(app, base_url=LOCAL) as client:
        ids = {name: client.post("/api/images", content=content).json()["id"] for name, content in pictures.items()}
        body = {"image": ids.pop(f"photo.{kind}"), "images": ids, "script": fields}
        job = client.post("/api/jobs", json=body).json()
        wait_until(lambda: client.get(f"/api/jobs/{job['id']}").json()["status"] in ("done", "failed"))
        state = client.get(f"/api/jobs/{job['id']}").json()
        assert state["error"] is None
        (result,) = state["results"]
        response = client.get(result)
        view = client.get(f"{result}/view")
    assert response.headers["content-type"] == f"image/{kind}"
    assert response.content == out.read_bytes() != pictures[f"photo.{kind}"]
    for content in (response.content, view.content):
        with Image.open(io.BytesIO(content)) as picture:
            assert (picture.size, picture.format) == ((50, 30), kind.upper())


def test_sam_needs_a_checkpoint_at_once(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["editor", "--no-open", "--model", str(model_folder), "--segmenter", "sam"]) == 1
    assert "--segmenter sam needs --checkpoint" in capsys.readouterr().err


def test_a_taken_port_is_an_error(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["editor", "--no-open", "--model", str(model_folder), "--port", str(port)]) == 1
    assert "in use" in capsys.readouterr().err


def test_runs_without_pytorch_locally_and_stops_at_once(model_folder: Path, tmp_path: Path) -> None:
    """The interrupt comes while it compiles."""
    (tmp_path / "torch.py").write_text("raise ImportError('no PyTorch here')")
    command = [sys.executable, "-m", "elements_jax.cli", "editor", "--no-open", "--port", "0", "--model", model_folder]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        notice, line = process.stdout.readline(), process.stdout.readline()
        address = re.fullmatch(r"The editor is at (http://localhost:(\d+))\n", line)
        assert address is not None, line
        model = httpx2.get(f"{address[1]}/api/model", timeout=30).json()
        assert (model["segmenter"], model["notice"]) == ("slic", notice.strip())
        assert "--checkpoint" in notice
        assert httpx2.post(f"{address[1]}/api/images", content=encode(noise(20, 20)), timeout=60).status_code == 201
        with pytest.raises(ConnectionRefusedError):  # a server that listens everywhere would accept this
            socket.create_connection(("127.0.0.2", int(address[2])))
        interrupted = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 128 + signal.SIGINT
        assert time.monotonic() - interrupted < 2


def test_the_editor_knows_nothing_of_partitioning_and_training() -> None:
    for path in (Path(elements_jax.__file__).parent / "editor").glob("*.py"):
        assert not re.search(r"^\s*(?:from|import) (?:partition|train|torch)\b", path.read_text(), re.MULTILINE), path
