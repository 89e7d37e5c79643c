"""Commands of one process with only URLs: the same files as on a disk, and a cache that resumes."""

import json
import signal
from pathlib import Path

import jax.numpy as jnp
import pytest
from jax.tree_util import Partial

from elements_jax.cli.main import main
from elements_jax.data.object_store import as_path
from elements_jax.metrics import fid
from tests.helpers.jobs import contents
from tests.object_stores.conftest import Store
from train.input import cache as module


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:
    store: Store = request.getfixturevalue(request.param)
    store.enter(monkeypatch)
    return store


def run(command: str) -> None:
    assert main(command.split()) == 0


def names(store: Store, folder: str) -> set[str]:
    """Return the names of all objects of a folder."""
    return {key.rpartition("/")[2] for key in store.find(folder)}


def test_a_killed_cache_resumes(
    store: Store, records: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.copy(str(records), f"{store.root}/records")
    store.copy(str(model_folder), f"{store.root}/model")
    command = f"cache {store.root}/records {store.root}/cached --model {store.root}/model"
    computed: list[str] = []
    examples, killed = module._examples, True

    def interrupted(source, *arguments):
        for number, example in enumerate(examples(source, *arguments)):
            if killed and "-val" in source.where(0) and number == 5:
                raise KeyboardInterrupt
            yield example
        computed.append(source.where(0).rpartition("/")[2])

    monkeypatch.setattr(module, "_examples", interrupted)
    assert main(command.split()) == 128 + signal.SIGINT
    assert names(store, "cached") == {"elements-train.tfrecord-00000-of-00001", module.MADE_OF}
    killed = False
    run(command)
    assert computed == [
        "elements-train.tfrecord-00000-of-00001 record 0",
        "elements-val.tfrecord-00000-of-00001 record 0",
    ]
    run(f"cache {records} {tmp_path / 'local'} --model {model_folder}")
    store.copy(f"{store.root}/cached", str(tmp_path / "found"))
    (tmp_path / "local" / ".lock").unlink()
    assert contents(tmp_path / "found") == contents(tmp_path / "local")


def test_a_photograph_is_encoded_and_edited(
    store: Store, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script takes an object from another photograph, named relative to the script."""
    edits = [{"edit": "compose", "image": "scene-0000001.png", "elements": [9], "by": [0.1, 0.1]}]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "edit.json").write_text(json.dumps({"version": 1, "edits": edits}))
    store.copy(str(tmp_path / "photos"), f"{store.root}/photos")
    for root in (tmp_path, store.root):
        photo = f"{root}/photos/scene-0000000.png"
        run(f"scenes {root}/photos --count 2")
        run(f"encode {photo} {root}/out/encoded.npz --model {model_folder}")
        run(f"edit {photo} --script {root}/photos/edit.json --out {root}/out/edited.png")
    for folder in ("photos", "out"):
        store.copy(f"{store.root}/{folder}", str(tmp_path / "found" / folder))
        assert contents(tmp_path / "found" / folder) == contents(tmp_path / folder)
    assert names(store, "out") == {"encoded.npz", "encoded-numbers.png", "edited.png"}
    capsys.readouterr()
    assert main(["edit", photo, "--script", f"{store.root}/photos/edit.json"]) == 1
    assert capsys.readouterr().err == f"error: --out must be given with a URL, {photo}\n"
    assert main(["edit", photo, "--script", f"{store.root}/photos/edit.json", "--out", photo]) == 1
    assert capsys.readouterr().err == f"error: {photo} is also an input; choose another output file\n"


def test_statistics_serve_as_a_reference(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight means of each image take the place of Inception."""

    def extractor(path: Path) -> Partial:
        assert path.read_bytes() == b"weights"
        return Partial(lambda image: image.reshape(len(image), 8, -1).astype(jnp.float32).mean(-1))

    monkeypatch.setattr("elements_jax.cli.evaluation.evaluate.extractor", extractor)
    monkeypatch.setattr(fid, "FEATURES", 8)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "inception.pth").write_bytes(b"weights")
    store.copy(str(tmp_path / "weights"), f"{store.root}/weights")
    values = []
    for root in (tmp_path, store.root):
        run(f"scenes {root}/photos --count 6")
        run(f"scenes {root}/others --count 6 --first 6")
        inception = f"--inception {root}/weights/inception.pth"
        run(f"evaluate statistics {root}/photos {root}/out/statistics.npz {inception}")
        options = f"{inception} --metrics psnr --reference {root}/out/statistics.npz --out {root}/out/fid.json"
        run(f"evaluate folders {root}/photos {root}/photos {options}")
        values.append(json.loads(as_path(f"{root}/out/fid.json").read_text())["numbers"])
    assert values[0] == values[1]
