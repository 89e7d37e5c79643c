"""A model folder in a store in memory: incomplete steps do not count, and nothing is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from elements_jax.data import object_store
from elements_jax.data.object_store import AnyPath, as_path, objects_below
from train import mirror
from train.mirror import Mirror, mirrored

pytest.importorskip("upath")

STEPS = "runs/vae/checkpoints"


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AnyPath]:
    monkeypatch.setenv("ELEMENTS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(object_store.time, "sleep", lambda _: None)
    root = as_path(f"memory://{tmp_path.name}/model")
    yield root
    root.fs.store.clear()


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_a_step_is_uploaded_when_complete_with_its_marker_last(
    url: AnyPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded, upload = [], object_store.upload
    monkeypatch.setattr(mirror, "upload", lambda local, path: (uploaded.append(path.name), upload(local, path)))
    local = tmp_path / "local"
    follows = Mirror(url, local)
    step = [f"{STEPS}/4/{name}" for name in ("commit_success.txt", "state/array", "place/commit_success.txt")]
    write(
        local,
        "elements/config.json",
        "elements/.config.json.1.unfinished",
        *step[1:],
        f"{STEPS}/4.orbax-checkpoint-tmp-1/a",
    )
    follows.push()
    assert set(objects_below(url)) == {"elements/config.json"}
    write(local, *step)
    follows.push()
    assert set(objects_below(url)) == {"elements/config.json", *step}
    assert uploaded[-1] == "commit_success.txt"
    uploaded.clear()
    follows.push()
    assert not uploaded
    # orbax removes old steps.
    for name in step:
        (local / name).unlink()
    follows.push()
    assert set(objects_below(url)) == {"elements/config.json"}


def test_a_run_starts_from_the_newest_whole_step(url: AnyPath, tmp_path: Path) -> None:
    whole = [f"{STEPS}/{number}/commit_success.txt" for number in (4, 8)]
    cut = [f"{STEPS}/12/state/array", f"{STEPS}/12/state/commit_success.txt"]
    for name in ("elements/config.json", "runs/vae/events.1", *whole, *cut):
        (url / name).write_bytes(name.encode())
    follows = Mirror(url, tmp_path / "local")
    follows.pull()
    found = {
        path.relative_to(tmp_path / "local").as_posix() for path in (tmp_path / "local").rglob("*") if path.is_file()
    }
    assert found == {"elements/config.json", "runs/vae/events.1", whole[1]}
    # The unfinished step is removed; an older step stays.
    assert set(objects_below(url)) == {"elements/config.json", "runs/vae/events.1", *whole}
    follows.push()
    assert set(objects_below(url)) == {"elements/config.json", "runs/vae/events.1", *whole}


def test_what_cannot_be_uploaded_is_kept(url: AnyPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mirrored(url) as local:
        write(local, "elements/config.json")
    assert set(objects_below(url)) == {"elements/config.json"}
    assert not list((tmp_path / "cache").iterdir())

    def refuse(local: Path, path: AnyPath) -> None:
        raise PermissionError(f"{path}: denied")

    monkeypatch.setattr(mirror, "upload", refuse)
    with pytest.raises(OSError, match=r"denied; the run's files are kept in (.*)"), mirrored(url) as local:
        write(local, "elements/new.json")
    assert (local / "elements" / "new.json").is_file()
