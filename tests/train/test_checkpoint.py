"""Starting a run from its own complete checkpoints, or from those of another run."""

import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import checkpoint
from train.checkpoint import Checkpoints, StreamPosition, resume
from train.state import State

STREAM = {"records": 24, "identity": "12ab", "folders": ["photos"], "seed": 0}


def state(step: int) -> State:
    return State(params={"w": jnp.arange(3000.0) * step}, opt_state=(), ema={}, step=jnp.int32(step))


LIKE = jax.eval_shape(lambda: state(0))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "run"
    with Checkpoints(folder) as checkpoints:
        for step in (2, 4, 6):
            checkpoints.save(state(step), STREAM | {"examples": 8 * step})
    return folder


@pytest.fixture
def run(tmp_path, written):
    """A run with checkpoints of steps 2, 4 and 6."""
    return shutil.copytree(written, tmp_path / "run")


def assert_is(found: tuple[State, StreamPosition], step: int) -> None:
    restored, place = found
    jax.tree.map(np.testing.assert_array_equal, restored, state(step))
    assert place == STREAM | {"examples": 8 * step}


def test_a_step_without_its_commit_file_is_ignored(run):
    (run / "checkpoints" / "6" / "commit_success.txt").unlink()
    with Checkpoints(run) as checkpoints:
        assert_is(checkpoints.restore(LIKE, STREAM), 4)
        checkpoints.save(state(6), STREAM | {"examples": 48})
    with Checkpoints(run) as checkpoints:
        assert_is(checkpoints.restore(LIKE, STREAM), 6)


def test_a_step_that_the_disk_has_no_room_for_is_not_begun(run, monkeypatch):
    folder = run / "checkpoints"
    before, room = sorted(folder.rglob("*")), shutil.disk_usage(run)
    wanted = rf"^{folder}: step 8 is not saved: it takes 0.0 MB, and 0.0 MB are free$"
    with Checkpoints(run) as checkpoints:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: room._replace(free=12_003))  # 3000 numbers and the step
        with pytest.raises(OSError, match=wanted):
            checkpoints.save(state(8), STREAM | {"examples": 64})
        assert sorted(folder.rglob("*")) == before
        monkeypatch.setattr(shutil, "disk_usage", lambda path: room._replace(free=12_004))
        checkpoints.save(state(8), STREAM | {"examples": 64})
        assert_is(checkpoints.restore(LIKE, STREAM), 8)


def test_a_step_that_cannot_be_written_is_one_error_naming_it(run, monkeypatch):
    """As if another process had filled the disk. orbax gives an error of several lines for every array."""

    def save(self, *_: object, **__: object) -> None:
        raise ValueError('RESOURCE_EXHAUSTED: Error writing "w": No space left on device [os_error_code=28]\nmore')

    with Checkpoints(run) as checkpoints:
        monkeypatch.setattr(type(checkpoints._manager), "save", save)
        with pytest.raises(OSError, match=rf"^{run}/checkpoints: step 8 is not saved: No space left on device$"):
            checkpoints.save(state(8), STREAM | {"examples": 64})


def test_a_run_without_a_whole_step_has_none(run):
    for path in run.glob("checkpoints/*/commit_success.txt"):
        path.unlink()
    with Checkpoints(run) as checkpoints:
        assert checkpoints.restore(LIKE, STREAM) is None


@pytest.mark.filterwarnings("ignore:(?s).*_read_array_index:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("cut", ["place", "state/_METADATA", "state/manifest.ocdbt", "largest"])
def test_a_step_whose_files_are_cut_away_is_one_clear_error(run, cut):
    folder = run / "checkpoints" / "6"
    if cut == "place":
        shutil.rmtree(folder / cut)
    elif cut == "largest":
        path = max(folder.rglob("ocdbt.process_0/d/*"), key=lambda path: path.stat().st_size)
        path.write_bytes(path.read_bytes()[:100])
    else:
        (folder / cut).unlink()
    with Checkpoints(run) as checkpoints, pytest.raises(ValueError, match="checkpoints: step 6 is damaged: ") as error:
        checkpoints.restore(LIKE, STREAM)
    assert "\n" not in str(error.value)
    del error
    gc.collect()  # orbax's unfinished reads would warn during later tests
    shutil.rmtree(folder)
    with Checkpoints(run) as checkpoints:
        assert_is(checkpoints.restore(LIKE, STREAM), 4)


@pytest.mark.parametrize("change", [{"records": 25}, {"seed": 1}, {"identity": "34cd"}])
def test_a_place_in_another_stream_is_refused(run, change):
    [(name, value)] = change.items()
    message = (
        "step 6 belongs to another data set, or another order of it: drawings here, photos there:\n"
        f"  {name}: expected {value}, found {STREAM[name]}$"
    )
    with Checkpoints(run) as checkpoints, pytest.raises(ValueError, match=message):
        checkpoints.restore(LIKE, STREAM | change | {"folders": ["drawings"]})
    with Checkpoints(run) as checkpoints:  # the same records, moved
        checkpoints.restore(LIKE, STREAM | {"folders": ["drawings"]})


def test_resumes_another_run_from_its_newest_or_a_named_step(run):
    assert_is(resume(run, LIKE, STREAM), 6)
    assert_is(resume(run / "checkpoints" / "2", LIKE, STREAM), 2)


def test_what_cannot_be_resumed_is_named(run, tmp_path):
    (run / "checkpoints" / "6" / "commit_success.txt").unlink()
    with pytest.raises(ValueError, match=r"checkpoints/6: there is no complete checkpoint"):
        resume(run / "checkpoints" / "6", LIKE, STREAM)
    with pytest.raises(ValueError, match=f"{tmp_path}: expected a run's folder, which has checkpoints/"):
        resume(tmp_path, LIKE, STREAM)


@pytest.mark.filterwarnings("ignore:(?s).*_read_array_index:pytest.PytestUnraisableExceptionWarning")
def test_a_flipped_bit_in_an_array_is_found(tmp_path):
    noise = jax.random.normal(jax.random.key(0), (64, 500))
    saved = state(4) | {"params": {"w": noise, "half": noise[0].astype(jnp.bfloat16)}}
    with Checkpoints(tmp_path) as checkpoints:
        for step in (2, 4):
            checkpoints.save(saved | {"step": jnp.int32(step)}, STREAM | {"examples": 8 * step})
    path = max((tmp_path / "checkpoints" / "4").rglob("ocdbt.process_0/d/*"), key=lambda path: path.stat().st_size)
    content = path.read_bytes()
    errors = []
    for place in np.linspace(1000, len(content) - 1000, 6).astype(int):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with Checkpoints(tmp_path) as checkpoints:
            try:
                restored, _ = checkpoints.restore(jax.eval_shape(lambda: saved), STREAM)
                jax.tree.map(np.testing.assert_array_equal, restored, saved)
            except ValueError as error:
                errors.append(str(error))
    gc.collect()
    assert len(errors) >= 4  # some bytes belong to no array
    assert all("checkpoints: step 4 is damaged: " in error for error in errors)
    assert all("Remove the folder 4, and the run resumes from step 2" in error for error in errors)


def test_a_changed_place_is_found(run):
    path = run / "checkpoints" / "6" / "place" / "metadata"
    content = path.read_text()
    assert '"examples": 48' in content
    path.write_text(content.replace('"examples": 48', '"examples": 49'))
    with Checkpoints(run) as checkpoints, pytest.raises(ValueError, match="step 6 is damaged: the place in the data"):
        checkpoints.restore(LIKE, STREAM)


def test_checksums_find_any_change_of_one_bit_and_swapped_words():
    rng = np.random.default_rng(0)
    array = rng.standard_normal((3, 5, 7)).astype(np.float32)
    words = array.view(np.uint32).reshape(-1)
    expected = int(checkpoint._checksums({"a": array})["a"])
    places = np.arange(words.size, dtype=np.uint64)
    plain = int((words.astype(np.uint64) * (places * 0x9E3779B1 % 2**32 | 1)).sum() % 2**32)
    assert expected == plain
    for place, bit in zip(rng.integers(0, words.size, 40), rng.integers(0, 32, 40), strict=True):
        changed = words.copy()
        changed[place] ^= np.uint32(1) << np.uint32(bit)
        assert int(checkpoint._checksums({"a": changed.reshape(3, 5, 7).view(np.float32)})["a"]) != expected
    swapped = array[:, ::-1].copy()
    assert int(checkpoint._checksums({"a": swapped})["a"]) != expected
