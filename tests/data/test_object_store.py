"""URLs as paths, with a store in memory: copies, uploads, retries, and the contents after a failure."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from elements_jax.data import object_store
from elements_jax.data.atomic import new_file, new_folder
from elements_jax.data.object_store import (
    AnyPath,
    as_path,
    is_url,
    local_copy,
    objects_below,
    require_writable,
    retried,
    with_local_paths,
)

pytest.importorskip("upath")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AnyPath]:
    monkeypatch.setenv("ELEMENTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(object_store.time, "sleep", lambda _: None)
    root = as_path(f"memory://{tmp_path.name}")
    yield root
    root.fs.store.clear()


def test_a_text_is_a_path_or_a_url() -> None:
    assert as_path("a/b") == Path("a/b")
    assert not is_url(Path("a/b"))
    assert not is_url("c:/photos")
    assert is_url("s3://bucket/photos")
    with pytest.raises(OSError, match="unknown scheme nope://"):
        as_path("nope://a/b")


def test_a_file_appears_when_it_is_complete(store: AnyPath) -> None:
    with contextlib.suppress(RuntimeError), new_file(store / "file") as file:
        file.write(b"half")
        raise RuntimeError
    assert not (store / "file").exists()
    with new_file(store / "file") as file:
        file.write(b"whole")
        assert not (store / "file").exists()
    assert (store / "file").read_bytes() == b"whole"


def test_the_last_file_of_a_folder_is_uploaded_last(store: AnyPath, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded, upload = [], object_store.upload

    def fails_later(local: Path, path: AnyPath) -> None:
        if len(uploaded) == 2:
            raise OSError("gone")
        uploaded.append(path.name)
        upload(local, path)

    def write() -> None:
        with new_folder(store / "shard", "a.jsonl") as folder:
            for name in ("b.png", "a.jsonl", "c.png"):
                (folder / name).write_bytes(b"content")

    monkeypatch.setattr(object_store, "upload", fails_later)
    with pytest.raises(OSError, match="gone"):
        write()
    assert uploaded == ["b.png", "c.png"]
    monkeypatch.undo()
    write()
    assert set(objects_below(store / "shard")) == {"a.jsonl", "b.png", "c.png"}


def test_a_copy_follows_the_store(store: AnyPath, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "below/b", "runs/c"):
        (store / "model" / name).write_bytes(name.encode())
    copy = local_copy(store / "model", leave_out="runs")
    assert (copy / "below" / "b").read_bytes() == b"below/b"
    assert not (copy / "runs").exists()

    downloaded, download = [], object_store.download

    def recorded(path: AnyPath, local: Path) -> Path:
        downloaded.append(path.name)
        return download(path, local)

    monkeypatch.setattr(object_store, "download", recorded)
    (store / "model" / "a").write_bytes(b"A")
    (store / "model" / "below" / "b").unlink()
    (store / "model" / "new").write_bytes(b"new")
    assert local_copy(store / "model", leave_out="runs") == copy
    assert sorted(downloaded) == ["a", "new"]
    assert {path.name for path in copy.rglob("*") if path.is_file() and not path.name.startswith(".")} == {"a", "new"}
    assert local_copy(store / "model" / "a").read_bytes() == b"A"
    with pytest.raises(FileNotFoundError, match=r"memory://.*/nothing: nothing exists there"):
        local_copy(store / "nothing")


def test_requests_that_may_succeed_are_retried(store: AnyPath) -> None:
    tries = []

    def fails(times: int, error: Exception) -> str:
        tries.append(error)
        if len(tries) <= times:
            raise error
        return "done"

    assert retried(store, lambda: fails(3, ConnectionError("reset"))) == "done"
    tries.clear()
    with pytest.raises(OSError, match=rf"{store}.*: reset"):
        retried(store, lambda: fails(9, RuntimeError("reset")))
    assert len(tries) == object_store.ATTEMPTS
    tries.clear()
    with pytest.raises(PermissionError, match=rf"{store}.*: denied"):
        retried(store, lambda: fails(9, PermissionError("denied")))
    assert len(tries) == 1


def test_a_command_works_on_copies_and_its_results_are_uploaded(store: AnyPath) -> None:
    @dataclass(frozen=True)
    class Inner:
        scripts: AnyPath

    @dataclass(frozen=True)
    class Command:
        photo: AnyPath
        out: AnyPath
        inner: Inner
        steps: int = 3

    (store / "a.jpg").write_bytes(b"photo")
    (store / "scripts").write_bytes(b"scripts")
    command = Command(store / "a.jpg", store / "results" / "a.png", Inner(store / "scripts"))
    with with_local_paths(command) as local:
        assert local.photo.read_bytes() + local.inner.scripts.read_bytes() == b"photoscripts"
        assert local.steps == 3
        local.out.write_bytes(b"result")
        assert local.out.name == "a.png"
    assert (store / "results" / "a.png").read_bytes() == b"result"
    with with_local_paths(Command(store / "a.jpg", store / "folder", Inner(Path("scripts")))) as local:
        (local.out / "below").mkdir(parents=True)
        (local.out / "below" / "b").write_bytes(b"b")
    assert (store / "folder" / "below" / "b").read_bytes() == b"b"
    with with_local_paths(command, keep=("out",)) as local:
        assert local.out == command.out


def test_a_probe_leaves_nothing(store: AnyPath) -> None:
    require_writable(store / "records")
    assert not store.fs.store


@dataclass(frozen=True)
class _Forbidden(Exception):
    """As gcsfs's HttpError, which is no OSError."""

    code: int = 401


@pytest.mark.parametrize("error", [_Forbidden(), OSError("Forbidden: b/bucket/o\nnobody has no access")])
def test_a_refusal_is_not_tried_again(store: AnyPath, error: Exception) -> None:
    asked = []

    def refused() -> None:
        asked.append(error)
        raise error

    with pytest.raises(PermissionError, match=f"^{store}/a: [^\n]*$"):
        retried(store / "a", refused)
    assert len(asked) == 1


@dataclass(frozen=True)
class _Command:
    records: AnyPath
    out: AnyPath


def test_what_is_written_is_tried_before_anything_is_read(store: AnyPath, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: AnyPath) -> None:
        raise PermissionError(f"{folder}: no")

    monkeypatch.setattr(object_store, "require_writable", refused)
    for out, tried in ((store / "new" / "a.png", store / "new"), (store / "new", store / "new")):
        command = _Command(records=store / "nothing", out=out)
        for keep in ((), ("out",)):
            with pytest.raises(PermissionError, match=f"^{tried}: no$"), with_local_paths(command, keep):
                pass
