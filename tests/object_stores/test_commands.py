"""From photographs to figures with only URLs: partition, train, export, batch inference and evaluation."""

import json
import pickle
import shutil
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from elements_jax import TINY
from elements_jax.cli.main import main
from tests.helpers.jobs import contents
from tests.helpers.records import write_records
from tests.helpers.regression import TRAIN
from tests.multihost.test_survival import TOLERANCE
from tests.object_stores.conftest import Store

ON_CPU = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PJRT_NPROC": "16"}


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Store:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("records"))


def steps(store: Store) -> set[int]:
    """Return the complete checkpoints in the store."""
    ends = [key.split("/") for key in store.find("model/runs/autoencoder") if key.endswith("/commit_success.txt")]
    return {int(parts[-2]) for parts in ends if parts[-3] == "checkpoints"}


@pytest.mark.slow
def test_killed_run_in_a_store_resumes_on_another_machine(store: Store, records: Path, tmp_path: Path) -> None:
    local = tmp_path / "local"
    settings = ["tests.multihost.host", "--data", str(records), "--model", str(local)]
    store.run(*settings, STATE=str(tmp_path / "expected"), JAX_NUM_CPU_DEVICES="1", **ON_CPU)

    store.copy(str(records), f"{store.root}/records")
    command = ["tests.multihost.host", "--data", f"{store.root}/records", "--model", f"{store.root}/model"]
    # Signal 0 does nothing, but steps take longer after it.
    run = store.start(*command, SIGNAL="0 0 3", JAX_NUM_CPU_DEVICES="1", **ON_CPU)
    deadline = time.monotonic() + 200
    while not steps(store):
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    run.kill()
    run.communicate()
    assert max(steps(store)) < TRAIN.steps
    assert not [key for key in store.find("model") if key.endswith("exported.npz.unfinished")]

    another = {"ELEMENTS_CACHE": str(tmp_path / "another"), "JAX_NUM_CPU_DEVICES": "2"}
    mesh = ["--train.data-parallel", "1", "--train.fsdp", "2"]
    printed = store.run(*command, *mesh, STATE=str(tmp_path / "state"), **another, **ON_CPU)
    assert f"step {TRAIN.steps}/{TRAIN.steps}" in printed
    state, expected = (pickle.loads((tmp_path / name).read_bytes()) for name in ("state", "expected"))
    jax.tree.map(lambda *pair: np.testing.assert_allclose(*pair, **TOLERANCE), state, expected)
    assert TRAIN.steps in steps(store)
    store.copy(f"{store.root}/model", str(tmp_path / "model"))
    # The last step's export is there, and no unfinished file of orbax or the export.
    with np.load(tmp_path / "model" / "exported.npz") as exported:
        jax.tree.map(
            np.testing.assert_array_equal,
            {name: array for name, array in exported.items() if name != "index"},
            state["ema"],
        )
    assert not [key for key in store.find("model") if "tmp" in key or "unfinished" in key]


@pytest.mark.slow
def test_batch_reconstruct_and_evaluate_with_only_urls(store: Store, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    assert main(["scenes", str(photos), "--count", "6"]) == 0
    divide = ["--size", "64", "--grid", "8", "--segmenter", "slic", "--workers", "1", "--held-out", "0.5"]
    store.copy(str(photos), f"{store.root}/photos")
    store.run("elements_jax.cli", "partition", f"{store.root}/photos", f"{store.root}/records", *divide)
    store.copy(str(TINY), f"{store.root}/model")
    lines = [
        {"source_id": f"scene-000000{i}.png", "version": 1, "edits": [{"edit": "delete", "elements": [9]}]}
        for i in range(5)
    ]
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "scripts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    store.copy(str(scripts), f"{store.root}/scripts")

    inputs = [f"{store.root}/records", f"{store.root}/scripts/scripts.jsonl"]
    model = ["--model", f"{store.root}/model"]
    settings = ["--steps", "2", "--shard-size", "2"]
    batch = ["elements_jax.cli", "batch", *inputs, f"{store.root}/pictures", *model, *settings]
    assert "5 images written" in store.run(*batch, **ON_CPU)
    store.copy(f"{store.root}/pictures", str(tmp_path / "pictures"))
    found = sorted((tmp_path / "pictures").glob("shard-*/*.png"))
    assert len(found) == 5
    # A shard without its manifest does not count; it is written again with the same bytes.
    before = contents(tmp_path / "pictures")
    store.remove(f"{store.root}/pictures/shard-00001-of-00003/manifest.jsonl")
    store.run(*batch, **ON_CPU)
    store.copy(f"{store.root}/pictures", str(tmp_path / "again"))
    assert contents(tmp_path / "again") == before

    evaluate = ["evaluate", "records", f"{store.root}/records", *model, "--decoder", "light"]
    store.run("elements_jax.cli", *evaluate, "--metrics", "psnr", "--out", f"{store.root}/figures/light.json", **ON_CPU)
    picture = [f"{store.root}/photos/{lines[0]['source_id']}", f"{store.root}/decoded/{lines[0]['source_id']}"]
    store.run("elements_jax.cli", "reconstruct", *picture, *model, "--steps", "2", **ON_CPU)
    (tmp_path / "true").mkdir()
    shutil.copy(photos / lines[0]["source_id"], tmp_path / "true")
    store.copy(str(tmp_path / "true"), f"{store.root}/true")
    evaluate = ["evaluate", "folders", f"{store.root}/decoded", f"{store.root}/true", "--metrics", "psnr"]
    written = ["--out", f"{store.root}/figures/folders.json", "--pictures", f"{store.root}/figures/drawn"]
    store.run("elements_jax.cli", *evaluate, *written, **ON_CPU)
    store.copy(f"{store.root}/figures", str(tmp_path / "figures"))
    for name in ("light", "folders"):
        (number,) = json.loads((tmp_path / "figures" / f"{name}.json").read_text())["numbers"]
        assert number["metric"] == "psnr"
        assert 5 < number["value"] < 60
    assert list((tmp_path / "figures" / "drawn").glob("*.png"))
