"""Hostile requests: from other pages and host names, too large, or with false contents."""

import contextlib
import json
import re
import select
import socket
import struct
import urllib.request
import zlib
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from elements_jax.editor import routes
from elements_jax.editor.images import Images
from elements_jax.pipeline.session import EditSession
from tests.editor.conftest import DELETE, LOCAL, SMALL_LIMITS, app_of, encode, noise, script, served, upload


def refusal(response: Any, status: int) -> str:
    """Return the sentence of a refusal, which is its only content."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    (error,) = response.json().values()
    assert response.json() == {"error": error}
    assert 0 < len(error) < 500
    return error


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:80"])
def test_this_machine_by_any_of_its_names(client: TestClient, host: str) -> None:
    assert client.get("/api/model", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "", "a@b"])
def test_other_hosts_are_refused(client: TestClient, host: str) -> None:
    assert "localhost" in refusal(client.get("/api/model", headers={"Host": host}), 400)
    refusal(client.get("/", headers={"Host": host}), 400)


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:8001", "https://localhost:8000", "null"])
def test_other_origins_are_refused(client: TestClient, origin: str) -> None:
    headers = {"Origin": origin}
    assert "origin" in refusal(client.post("/api/images", content=b"x", headers=headers), 403)
    refusal(client.delete("/api/jobs/0", headers=headers), 403)
    assert client.get("/api/model", headers=headers).status_code == 200  # which its page cannot read


def test_the_own_origin_and_none_are_taken(client: TestClient) -> None:
    content = encode(noise(16, 16))
    for headers in ({}, {"Origin": LOCAL}):
        assert client.post("/api/images", content=content, headers=headers).status_code == 201


def test_a_proxy_serves_the_page_below_a_path(editing: EditSession) -> None:
    app = app_of(editing, names=["Photos.example"])
    with TestClient(app, base_url="http://photos.example", root_path="/editor") as behind:
        for path in re.findall(r'(?:src|href)="([^"#]+)"', behind.get("/editor/").text):
            assert behind.get(f"/editor/{path}").status_code == 200, path
        content = encode(noise(300, 300)).ljust(3 * 2**20, b"\0")  # more than the limit for JSON
        for origin in ("https://photos.example", "http://photos.example:8080"):
            headers = {"Origin": origin}
            assert behind.post("/editor/api/images", content=content, headers=headers).status_code == 201
        refusal(
            behind.post("/editor/api/images", content=content, headers={"Origin": "https://photos.example.evil"}), 403
        )
        refusal(behind.post("/editor/api/images", content=content, headers={"Origin": "http://["}), 403)
        assert "photos.example" in refusal(behind.get("/editor/", headers={"Host": "other.example"}), 400)


def test_other_machines_connect_by_address_if_allowed(editing: EditSession, client: TestClient) -> None:
    with TestClient(app_of(editing, remote=True), base_url=LOCAL) as remote:
        for host in ("192.168.1.7:8000", "[fe80::1]:8000", "localhost"):
            assert remote.get("/api/model", headers={"Host": host}).status_code == 200
        for host in ("evil.example", "192.168.1.7.evil.example", "192.168.1.7:port"):
            refusal(remote.get("/api/model", headers={"Host": host}), 400)
    refusal(client.get("/api/model", headers={"Host": "192.168.1.7:8000"}), 400)


def test_every_response_carries_the_security_headers(client: TestClient) -> None:
    for response in (
        client.get("/docs"),
        client.get("/api/model"),
        client.get("/api/jobs/0"),
        client.get("/", headers={"Host": "evil.example"}),
    ):
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert "Access-Control-Allow-Origin" not in response.headers


def test_json_is_compressed_and_events_are_not(client: TestClient) -> None:
    assert client.get("/openapi.json", headers={"Accept-Encoding": "gzip"}).headers["content-encoding"] == "gzip"
    id = client.post("/api/jobs", json={"image": upload(client), "script": script(DELETE)}).json()["id"]
    events = client.get(f"/api/jobs/{id}/events", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in events.headers


def png_of_size(width: int, height: int) -> bytes:
    """Return a PNG whose header claims a large size, without any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(501, 500), (20_000, 20_000), (2**31 - 1, 2**31 - 1), (250_001, 1)])
def test_a_bomb_is_refused_by_its_header(client: TestClient, width: int, height: int) -> None:
    assert "megapixels" in refusal(client.post("/api/images", content=png_of_size(width, height)), 413)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<!doctype html><script>alert(1)</script>",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\x89PNG\r\n\x1a\n",
        png_of_size(0, 7),
        png_of_size(7, 7),
        encode(noise(200, 200), "jpeg")[:5000],
        encode(noise(20, 20), "webp")[:100],
        encode(noise(20, 20), "ppm"),
        b"II*\x00\xff\xff\xff\x7f",
        b"\xff\xd8\xff\xe1\xff\xff" + b"Exif\x00\x00II*\x00" + b"\xff" * 100,
    ],
)
def test_rejects_files_that_are_not_images(client: TestClient, content: bytes) -> None:
    refusal(client.post("/api/images", content=content), 415)


def test_bodies_are_limited_while_they_come(client: TestClient) -> None:
    refusal(client.post("/api/images", content=b"x" * 200_001), 413)
    refusal(client.post("/api/scripts", content=b"x" * 200_001), 413)
    for path in ("objects", "jobs"):
        huge = b'{"image": "' + b"x" * 3_000_000 + b'"}'
        refusal(client.post(f"/api/{path}", content=huge, headers={"Content-Type": "application/json"}), 413)

    # Without a length, the body is refused when it passes the limit.
    refusal(client.post("/api/images", content=iter([b"x" * 10_000] * 21)), 413)
    refusal(client.post("/api/images", content=iter([b"x" * 10_000] * 20)), 415)


def test_a_body_without_end_is_not_read_to_its_end(editing: EditSession) -> None:
    """A real server answers while the client is still sending."""
    with served(app_of(editing, limits=SMALL_LIMITS)) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            start = f"POST /api/images HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sendall(start.encode())
            sent = 0
            with contextlib.suppress(ConnectionError):
                while sent < 50_000_000 and not select.select([connection], [], [], 0)[0]:
                    connection.sendall(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
                    sent += 10_000
            assert connection.recv(100).startswith(b"HTTP/1.1 413")
            assert sent < 50_000_000


def test_a_body_that_does_not_come_ends(editing: EditSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "UPLOAD_SECONDS", 0.2)
    with served(app_of(editing)) as address:
        host, port = address.removeprefix("http://").split(":")
        for path in ("images", "scripts"):
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                start = f"POST /api/{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\n"
                connection.sendall(start.encode())
                assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_slow_bodies_keep_no_upload_waiting(editing: EditSession) -> None:
    with served(app_of(editing)) as address, contextlib.ExitStack() as slow:
        host, port = address.removeprefix("http://").split(":")
        for _ in range(20):
            connection = slow.enter_context(socket.create_connection((host, int(port)), timeout=20))
            connection.sendall(f"POST /api/images HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n\r\nx".encode())
        request = urllib.request.Request(f"{address}/api/images", encode(noise(16, 16)))
        with urllib.request.urlopen(request, timeout=20) as response:
            assert response.status == 201


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"null", 422),
        (b"[]", 422),
        (b'{"image": ' + DEEP + b"}", 400),
        (b'{"image": "\xff"}', 400),
        (b'{"image": "\\ud800", "script": {"version": 1}}', 422),
        (b'{"image": ' + b"9" * 5000 + b"}", 400),
    ],
)
def test_odd_json_is_refused(client: TestClient, content: bytes, status: int) -> None:
    for path in ("objects", "jobs"):
        response = client.post(f"/api/{path}", content=content, headers={"Content-Type": "application/json"})
        refusal(response, status)


def test_broken_json_is_named_by_its_character(client: TestClient) -> None:
    response = client.post("/api/jobs", content=b'{"image": }', headers={"Content-Type": "application/json"})
    assert refusal(response, 422) == "invalid JSON at character 10"


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", DEEP, b"\xff", b'{"version": 2}', encode(noise(4, 4)), png_of_size(2**31 - 1, 2**31 - 1)],
)
def test_rejects_bodies_that_are_not_scripts(client: TestClient, content: bytes) -> None:
    refusal(client.post("/api/scripts", content=content), 422)


MOVE = {"edit": "move", "object": {"point": [0, 0]}, "by": [0, 0]}


@pytest.mark.parametrize(
    ("edits", "fields", "named"),
    [
        ([MOVE | {"by": [float("nan"), 0]}], {}, "script: edits[0].by: expected"),
        ([MOVE | {"by": [float("inf"), 0]}], {}, "script: edits[0].by: expected"),
        ([MOVE | {"by": [1e300, 0]}], {}, "script: edits[0].by: expected"),
        ([MOVE | {"object": {"point": [-1, 0]}}], {}, "script: edits[0].object: expected"),
        ([MOVE | {"object": None}], {}, "script: edits[0]: expected"),
        ([{"edit": "format", "elements": [0]}], {}, "script: edits[0]: expected an object"),
        ([MOVE] * 1001, {}, "at most 1000 edits, not 1001"),
        ([], {"seed": 2**32}, "script: seed: expected"),
        ([], {"sampling": {"steps": 10**9}}, "script: sampling.steps: expected"),
        ([], {"tolerance": float("nan")}, "script: tolerance: expected"),
        ([], {"version": 2}, "script: version: expected 1"),
        ([], {"path": "x"}, "script: path: unknown field"),
        ([{"edit": "continue", "image": "../../etc/passwd"}], {}, "'../../etc/passwd', which is not in images"),
        ([{"edit": "compose", "image": "/etc/passwd", "elements": [0]}], {}, "'/etc/passwd', which is not in images"),
        ([MOVE | {"object": {"mask": "/etc/passwd"}}], {}, "'/etc/passwd', which is not in images"),
    ],
)
def test_absurd_scripts_are_refused(client: TestClient, edits: list[Any], fields: dict[str, Any], named: str) -> None:
    body = {"image": upload(client), "script": script(*edits, **fields), "variants": 2}
    content = json.dumps(body).encode()  # with NaN, which JSON does not have
    response = client.post("/api/jobs", content=content, headers={"Content-Type": "application/json"})
    assert named in refusal(response, 422)


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        ("jobs", {"script": script(), "variants": 0}, "variants: "),
        ("jobs", {"script": script(), "variants": 9}, "variants: "),
        ("jobs", {"script": script(seed=2**32 - 1), "variants": 2}, "largest seed"),
        ("jobs", {"script": script(), "images": {str(n): "x" for n in range(1001)}}, "images: "),
        ("jobs", {"script": script(), "surplus": 1}, "surplus: "),
        ("objects", {}, "object: "),
        ("objects", {"object": None}, "object: "),
        ("objects", {"object": {"point": [2, 0]}}, "object.point.0: "),
        ("objects", {"object": {"point": [float("nan"), 0]}}, "object.point.0: "),
        ("objects", {"object": {"box": [0.5, 0, 0.4, 1]}}, "object: "),
        ("objects", {"object": {"mask": "/etc/passwd"}}, "'/etc/passwd' is not in images"),
    ],
)
def test_absurd_requests_are_refused(client: TestClient, path: str, fields: dict[str, Any], named: str) -> None:
    content = json.dumps({"image": upload(client)} | fields).encode()
    response = client.post(f"/api/{path}", content=content, headers={"Content-Type": "application/json"})
    assert named in refusal(response, 422)


def test_forms_and_unknown_things(client: TestClient) -> None:
    """Another page may send a form without a preflight request."""
    body = json.dumps({"image": upload(client), "script": script()}).encode()
    refusal(client.post("/api/jobs", content=body, headers={"Content-Type": "text/plain"}), 422)
    unknown = {"image": "0" * 32}
    for path, more in (("objects", {"object": {"point": [0, 0]}}), ("jobs", {"script": script()})):
        assert "upload it again" in refusal(client.post(f"/api/{path}", json=unknown | more), 404)
    named = {"image": upload(client), "images": {"bird.png": "0" * 32}, "script": script()}
    refusal(client.post("/api/jobs", json=named), 404)
    nowhere = ("/api/images/0/view", "/api/images/0/pieces", "/api", "/none")
    for path in (*nowhere, *(f"/api/jobs/0{end}" for end in ("", "/0.png", "/0.png/view", "/events"))):
        refusal(client.get(path), 404)
    for path in ("/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py", "/static//etc/passwd"):
        refusal(client.get(path), 404)
    refusal(client.put("/api/jobs"), 405)


def test_images_are_forgotten_by_number_and_by_size(client: TestClient, app: FastAPI) -> None:
    editor = app.state.editor
    uploads = [editor.images[upload(client, noise(16, 16, seed=seed))] for seed in range(5)]
    size = max(each.bytes for each in uploads)
    for images in (Images(3, 10**9), Images(10**9, 3 * size + size // 2)):
        for each in uploads[:3]:
            images.keep(each)
        images[uploads[0].id]  # used again, so that the second is the oldest
        images.keep(uploads[3])
        assert len(images) == 3
        with pytest.raises(KeyError):
            images[uploads[1].id]
        assert images[uploads[0].id] is uploads[0]
