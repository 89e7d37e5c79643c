"""Runs of every stage that are killed at any boundary of checkpoint and export end like a run that was never killed.

A kill leaves the files of that moment. So one run copies its folder at every boundary of its first checkpoint, and one
of the copies, made in the middle of the export, is trained to the end.
"""

import shutil
from pathlib import Path

import jax
import pytest

from elements_jax.checkpoints.model_folder import save_network, write_config
from elements_jax.cli import train as cli
from elements_jax.config import ModelConfig
from elements_jax.data.lock import locked
from elements_jax.models.networks import Networks
from train.checkpoint import Checkpoints
from train.config import AutoencoderTrainConfig, DiffusionTrainConfig, VAETrainConfig
from train.start import start_text

SETTINGS = {"steps": 3, "batch_size": 4, "learning_rate": 1e-3, "warmup": 1, "checkpoint_every": 2, "sample_count": 2}
STAGES = {
    "vae": VAETrainConfig(**SETTINGS),
    "adversarial": VAETrainConfig(**SETTINGS, adversarial_weight=0.5, adversarial_start=1, discriminator_levels=1),
    "autoencoder": AutoencoderTrainConfig(**SETTINGS),
    "diffusion": DiffusionTrainConfig(**SETTINGS, text_from_scratch=True),
    "unfrozen": DiffusionTrainConfig(**SETTINGS, text_from_scratch=True, encoder="unfrozen"),
}
COMMAND = {"adversarial": "vae", "unfrozen": "diffusion"}


@pytest.fixture
def compiled_once(tmp_path):
    """Programs are kept for the runs of one test, which differ only in their start."""
    names = ("jax_enable_compilation_cache", "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (True, str(tmp_path / "programs"), 0), strict=True):
        jax.config.update(name, value)
    jax.experimental.compilation_cache.compilation_cache.reset_cache()
    yield
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)
    jax.experimental.compilation_cache.compilation_cache.reset_cache()


def start(name: str, folder: Path, small: ModelConfig, records: Path) -> None:
    """Make the model folder before the stage, with its input networks and some of its own to start from."""
    write_config(folder, small)
    own = {"vae": ["vae"], "autoencoder": ["encoder", "decoder"], "diffusion": ["vae", "encoder", "decoder", "unet"]}
    for each in own[COMMAND.get(name, name)]:
        save_network(folder, each, getattr(Networks(small), each).init(jax.random.key(1)))
    if COMMAND.get(name, name) == "diffusion":
        start_text(small, 0, folder, records)


def train(name: str, folder: Path, records: Path, small) -> None:
    cli.run(COMMAND.get(name, name), cli.Job(data=(records,), model=folder, train=STAGES[name], config=small))


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a model except those of its runs."""
    paths = (path for path in folder.rglob("*") if path.is_file() and "runs" not in path.relative_to(folder).parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "autoencoder")) for name in STAGES]
)
def test_a_kill_at_any_boundary_changes_nothing(name, small, records, tmp_path, monkeypatch, compiled_once):
    folder, copies = tmp_path / "model", []
    start(name, folder, small, records)
    save, replaced = Checkpoints.save, Path.replace
    before, saves = contents(folder), 0

    def snapshot(moment: str) -> None:
        if saves == 1 and moment not in dict(copies):
            copies.append((moment, tmp_path / f"copy-{len(copies)}"))
            shutil.copytree(folder, copies[-1][1])

    def save_and_copy(checkpoints, state, place):
        nonlocal saves
        saves += 1
        snapshot("before the checkpoint is complete")
        save(checkpoints, state, place)
        snapshot("after the checkpoint")

    def replace_and_copy(path, target):
        done = replaced(path, target)
        if "runs" not in target.parts:
            snapshot(f"after {'a manifest' if 'manifest' in target.name else 'a file'} is exported")
        return done

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", save_and_copy)
        patched.setattr(Path, "replace", replace_and_copy)
        train(name, folder, records, small)
    assert len(copies) == 4
    for moment, copy in copies:  # only resumable steps are exported
        assert list(copy.glob("runs/*/checkpoints/2/commit_success.txt")) or contents(copy) == before, moment
    killed = dict(copies)["after a file is exported"]
    train(name, killed, records, small)
    assert contents(killed) == contents(folder)


def test_a_second_training_of_the_same_run_is_refused(small, records, tmp_path):
    with (
        locked(tmp_path / "runs" / "vae", "elements train vae"),
        pytest.raises(ValueError, match=r"runs/vae is in use by `elements train vae`, process \d+ on "),
    ):
        train("vae", tmp_path, records, small)
    assert not (tmp_path / "elements").exists()
