"""A store that cannot be used is one line of every command, before any work: no bucket, permission or credentials."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from elements_jax import TINY
from elements_jax.cli.main import main
from tests.object_stores.conftest import Store

COMMANDS = {
    "partition": ["{read}/photos", "{written}/records", "--segmenter", "grid"],
    "train": ["autoencoder", "tiny", "--data", "{read}/records", "--model", "{written}/model"],
    "cache": ["{read}/records", "{written}/cached", "--model", str(TINY)],
    "encode": ["{read}/photo.png", "{written}/encoded.npz"],
    "edit": ["{read}/photo.png", "--script", "{read}/script.json", "--out", "{written}/edited.png"],
    "batch": ["{read}/records", "{read}/scripts.jsonl", "{written}/pictures", "--model", str(TINY)],
    "reconstruct": ["{read}/photo.png", "{written}/picture.png"],
    "evaluate": ["records", "{read}/records", "--out", "{written}/numbers.json"],
    "scenes": ["{written}/scenes", "--count", "1"],
}
"""Arguments of each command, which reads below one place and writes below another."""
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


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """A server that refuses every request."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(
    params=[(scheme, why) for scheme in REFUSALS for why in ("no such bucket", *REFUSALS[scheme])], ids="-".join
)
def nowhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A URL below which nothing can be read or written, in this process."""
    fsspec = pytest.importorskip("fsspec")
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # gcsfs looks when it is imported
    pytest.importorskip({"s3": "s3fs", "gs": "gcsfs"}[request.param[0]])
    scheme, why = request.param
    store: Store = request.getfixturevalue({"s3": "s3", "gs": "gcs"}[scheme])
    environment = dict(store.environment)
    if why != "no such bucket":
        endpoint = {"s3": "AWS_ENDPOINT_URL", "gs": "STORAGE_EMULATOR_HOST"}[scheme]
        environment[endpoint] = request.getfixturevalue("refusing")
        monkeypatch.setattr(Refusing, "answer", REFUSALS[scheme][why])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if scheme == "gs":
        monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
        # gcsfs hopes for half a minute that credentials become right.
        monkeypatch.setattr("gcsfs.retry.is_retriable", lambda error: False)
    fsspec.get_filesystem_class(scheme).clear_instance_cache()
    return f"{scheme}://no-such-bucket/folder"


@pytest.mark.parametrize("place", ["read", "written"])
@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_one_line(
    command: str, place: str, nowhere: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not any(f"{{{place}}}" in argument for argument in COMMANDS[command]):
        pytest.skip(f"nothing is {place}")
    places = {"read": str(tmp_path / "read"), "written": str(tmp_path / "out"), place: nowhere}
    arguments = [argument.format(**places) for argument in COMMANDS[command]]
    assert main([command, *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {nowhere}")
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.rglob("*.*"))


def test_a_command_of_local_paths_takes_no_url(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scripts = tmp_path / "scripts.jsonl"
    assert main(["compare", "s3://bucket/records", str(scripts), str(tmp_path / "out"), "--model", "tiny"]) == 1
    assert capsys.readouterr().err.startswith(
        "error: s3://bucket/records: this command takes no s3:// here; name a file"
    )
