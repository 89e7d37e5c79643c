"""A store that cannot be used is one line of every command, before any work: no bucket, permission or credentials."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from elements_jax import TINY
from elements_jax.cli.main import main
from tests.object_stores.conftest import Store

PHOTO = Path(__file__).parents[2] / "docs" / "images" / "superpixels.png"

COMMANDS = {
    "partition": "partition {read}/photos {written}/records --segmenter grid",
    "train": "train autoencoder tiny --data {read}/records --model {written}/model",
    "cache": f"cache {{read}}/records {{written}}/cached --model {TINY}",
    "encode": "encode {read}/photo.png {written}/encoded.npz",
    "edit": "edit {read}/photo.png --script script.json --out {written}/edited.png",
    "script": "edit photo.png --script {read}/script.json --out {written}/edited.png",
    "batch": f"batch {{read}}/records {{read}}/scripts.jsonl {{written}}/pictures --model {TINY}",
    "reconstruct": "reconstruct {read}/photo.png {written}/picture.png",
    "model": f"encode {PHOTO} encoded.npz --model {{read}}/model",
    "records": "evaluate records {read}/records --out {written}/numbers.json",
    "folders": "evaluate folders {read}/pictures {read}/truths --out {written}/numbers.json",
    "results": "evaluate results {read}/results --pictures {written}/pictures",
    "statistics": "evaluate statistics {read}/pictures {written}/statistics.npz --inception inception.pth",
    "scenes": "scenes {written}/scenes --count 1",
}
"""Commands that read below one place and write below another."""
REFUSALS = {
    "s3": {
        "no permission": (403, "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"),
        "wrong credentials": (
            403,
            "<Error><Code>InvalidAccessKeyId</Code><Message>The AWS Access Key Id you provided does not exist in our "
            "records.</Message></Error>",
        ),
    },
    "gs": {
        "no permission": (
            403,
            json.dumps({"error": {"code": 403, "message": "nobody does not have storage.objects.create access"}}),
        ),
        "wrong credentials": (401, json.dumps({"error": {"code": 401, "message": "Invalid Credentials"}})),
    },
}
"""What stores answer to everything."""


class Refusing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer = (403, "")

    def refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = self.answer
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if body.startswith("{") else "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = refuse

    def log_message(self, *_: Any) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Print nothing about a client that hangs up: it would be taken for the command's error."""


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """A server that refuses every request."""
    server = QuietServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(
    params=[(scheme, why) for scheme in REFUSALS for why in ("no such bucket", *REFUSALS[scheme])], ids="-".join
)
def nowhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URL below which nothing can be read or written, in this process."""
    scheme, why = request.param
    store: Store = request.getfixturevalue({"s3": "s3", "gs": "gcs"}[scheme])
    environment = {}
    if why != "no such bucket":
        endpoint = {"s3": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST"}[scheme]
        environment[endpoint] = request.getfixturevalue("refusing")
        monkeypatch.setattr(Refusing, "answer", REFUSALS[scheme][why])
    store.enter(monkeypatch, **environment)
    if scheme == "gs":
        # gcsfs hopes for half a minute that credentials become right.
        monkeypatch.setattr("gcsfs.retry.is_retriable", lambda error: False)
    return f"{scheme}://no-such-bucket/folder"


def refused(
    command: str,
    place: str,
    url: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """Run a command with one of its places at a URL; return its error, which is one line, before any work."""
    if f"{{{place}}}" not in COMMANDS[command]:
        pytest.skip(f"nothing is {place}")
    monkeypatch.chdir(folder)
    places = {"read": "read", "written": "out", place: url}
    assert main(COMMANDS[command].format(**places).split()) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Photographs are segmented")]
    assert len(lines) == 1
    assert not list(folder.rglob("*.*"))
    return lines[0]


@pytest.mark.parametrize("place", ["read", "written"])
@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_one_line(command: str, place: str, nowhere: str, tmp_path: Path, capsys, monkeypatch) -> None:
    assert refused(command, place, nowhere, tmp_path, capsys, monkeypatch).startswith(f"error: {nowhere}")


@pytest.mark.parametrize("place", ["read", "written"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_scheme_is_one_line(command: str, place: str, tmp_path: Path, capsys, monkeypatch) -> None:
    pytest.importorskip("upath")
    line = refused(command, place, "nope://bucket/folder", tmp_path, capsys, monkeypatch)
    assert line.startswith("error: nope://bucket/folder")
    assert "unknown scheme nope://" in line


def test_a_command_of_local_paths_takes_no_url(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scripts = tmp_path / "scripts.jsonl"
    assert main(["compare", "s3://bucket/records", str(scripts), str(tmp_path / "out"), "--model", "tiny"]) == 1
    assert capsys.readouterr().err.startswith(
        "error: s3://bucket/records: this command takes no s3:// here; name a file"
    )
