"""Object stores on this machine: moto's S3, a GCS emulator, and a proxy that drops one request in ten."""

import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

BUCKET = "elements"
# gcsfs asks for the kind of bucket, which the emulator does not know. It reads this when it is imported.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def served(port: int, *command: str) -> Iterator[str]:
    """Run a server, and yield its URL."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


class Store:
    """A store's address, and the environment that a process needs to use it."""

    def __init__(self, root: str, environment: dict[str, str], cache: Path, **options: str):
        """Take the filesystem's `options`, which a process with that environment does not need."""
        self.root, self.options = root, options
        self.environment = {**environment, "ELEMENTS_CACHE": str(cache)}

    def enter(self, monkeypatch: pytest.MonkeyPatch, **environment: str) -> None:
        """Let this process use the store, until the end of the test."""
        fsspec = pytest.importorskip("fsspec")
        scheme = self.root.partition("://")[0]
        pytest.importorskip({"s3": "s3fs", "gs": "gcsfs"}[scheme])
        for name, value in {**self.environment, **environment}.items():
            monkeypatch.setenv(name, value)
        if scheme == "gs":
            monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
        fsspec.get_filesystem_class(scheme).clear_instance_cache()

    def start(self, *command: str, **environment: str) -> subprocess.Popen:
        """Start `python -m COMMAND` with the store's environment."""
        everything = {**os.environ, **self.environment, **environment}
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([sys.executable, "-m", *command], env=everything, **output)

    def run(self, *command: str, code: int = 0, **environment: str) -> str:
        """Run a command and return its output; fail unless it ends with `code`."""
        process = self.start(*command, **environment)
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == code, printed
        return printed

    def find(self, folder: str) -> list[str]:
        """Return the keys of all objects below a folder."""
        import fsspec

        fresh = {"use_listings_cache": False, "skip_instance_cache": True}
        fs, key = fsspec.url_to_fs(f"{self.root}/{folder}", **fresh, **self.options)
        return fs.find(key)

    def remove(self, url: str) -> None:
        """Remove an object."""
        program = "import sys, fsspec; fs, key = fsspec.url_to_fs(sys.argv[1]); fs.rm(key)"
        subprocess.run([sys.executable, "-c", program, url], env={**os.environ, **self.environment}, check=True)

    def copy(self, source: str, target: str, *flags: str) -> None:
        """Copy a folder, from or to the store, only with fsspec."""
        program = (
            "import sys, fsspec; source, target = sys.argv[1:3]\n"
            "fs, _ = fsspec.url_to_fs(source if '://' in source else target)\n"
            "copy = fs.get if '://' in source else fs.put\n"
            "copy(source.rstrip('/') + '/', target.rstrip('/') + '/', recursive=True)"
        )
        command = [sys.executable, "-c", program, source, target]
        subprocess.run(command, env={**os.environ, **self.environment}, check=True)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    port = free_port()
    yield from served(port, sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))


def of_s3(endpoint: str, cache: Path) -> Store:
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return Store(f"s3://{BUCKET}", environment, cache, key="key", secret="secret", endpoint_url=endpoint)


@pytest.fixture
def s3(moto: str, tmp_path: Path) -> Store:
    connection = http.client.HTTPConnection(moto.removeprefix("http://"))
    connection.request("POST", "/moto-api/reset")
    connection.getresponse().read()
    connection.request("PUT", f"/{BUCKET}")
    connection.getresponse().read()
    return of_s3(moto, tmp_path / "cache")


@pytest.fixture
def unreliable_s3(s3: Store, moto: str, tmp_path: Path) -> Iterator[Store]:
    """The same store behind a proxy that drops one request in ten."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        draw = random.Random(0)
        dropped = 0

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.draw.random() < 0.1:
                type(self).dropped += 1
                self.close_connection = True
                return
            connection = http.client.HTTPConnection(moto.removeprefix("http://"))
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            if self.command != "HEAD" and not answer.getheader("Content-Length"):
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield of_s3(f"http://127.0.0.1:{server.server_port}", tmp_path / "cache")
    server.shutdown()
    server.server_close()
    assert Proxy.dropped


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[str]:
    pytest.importorskip("gcp_storage_emulator")
    pytest.importorskip("gcsfs")
    port = free_port()
    program = (
        "import sys, time; from gcp_storage_emulator.server import create_server\n"
        f"create_server('127.0.0.1', {port}, in_memory=True, default_bucket='{BUCKET}').start(); time.sleep(3600)"
    )
    yield from served(port, sys.executable, "-c", program)


@pytest.fixture
def gcs(gcs_server: str, tmp_path: Path) -> Store:
    anonymous = json.dumps({"token": "anon"})
    environment = {
        "STORAGE_EMULATOR_HOST": gcs_server,
        "FSSPEC_GS": anonymous,
        "FSSPEC_GCS": anonymous,
    }
    root = f"gs://{BUCKET}/{tmp_path.name}"  # the emulator cannot be emptied
    return Store(root, environment, tmp_path / "cache", token="anon", endpoint_url=gcs_server)
