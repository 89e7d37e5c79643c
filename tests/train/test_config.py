import dataclasses
import math
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from configs import PRESETS, ablations, sd15, tiny, vae_baselines
from elements_jax.cli import train as cli
from train.config import DiffusionTrainConfig, Preset, TrainConfig
from train.preemption import Preemption
from train.state import learning_rate


@pytest.fixture
def jobs(monkeypatch):
    """Jobs that the command line requested, without running them."""
    asked = []

    def run(stage, job, began):
        asked.append((stage, job))
        return job.train.steps

    monkeypatch.setattr(cli, "run", run)
    return asked


def test_a_run_stopped_by_a_signal_says_so(monkeypatch, capsys):
    monkeypatch.setattr(cli, "run", lambda stage, job, began: 7)
    monkeypatch.setattr(Preemption, "ended", signal.SIGTERM)
    assert cli.main(["vae", "tiny", "--data", "records", "--model", "model"]) == 143  # as after SIGTERM
    assert "after step 7, which is saved" in capsys.readouterr().out


def test_the_command_line_takes_a_preset_unchanged(jobs):
    cli.main(["diffusion", "sd15", "--data", "records", "--model", "models/sd15"])
    [(stage, job)] = jobs
    assert stage == "diffusion"
    assert (job.data, job.model) == ((Path("records"),), Path("models/sd15"))
    assert (job.train, job.config) == (sd15.DIFFUSION, sd15.MODEL)


def test_the_command_line_overrides_any_field(jobs):
    arguments = "--data r --model m --train.steps 7 --train.betas 0.8 0.9 --train.schedule constant"
    cli.main(["diffusion", "tiny", *arguments.split(), "--train.drop-text", "0", "--config.unet.heads", "8"])
    [(_, job)] = jobs
    expected = dataclasses.replace(tiny.DIFFUSION, steps=7, betas=(0.8, 0.9), schedule="constant", drop_text=0.0)
    assert job.train == expected
    assert job.config == dataclasses.replace(tiny.MODEL, unet=dataclasses.replace(tiny.MODEL.unet, heads=8))


def test_help_documents_every_knob(jobs, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["diffusion", "tiny", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for config, prefix in ((tiny.DIFFUSION, "train"), (tiny.MODEL.unet, "config.unet")):
        for field in dataclasses.fields(config):
            assert f"--{prefix}.{field.name.replace('_', '-')}" in shown
    assert "Probability that only the text is dropped" in shown
    assert re.search(r"newest\s.*checkpoint\s.*--resume;\s.*--init\s.*random", shown, re.DOTALL)
    assert not jobs


@pytest.mark.parametrize("arguments", [["gan", "tiny"], ["vae", "huge"], ["vae", "tiny", "--data", "r"], []])
def test_a_wrong_command_line_is_refused_with_usage(arguments, jobs, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "elements train" in (streams := capsys.readouterr()).err + streams.out
    assert not jobs


def test_sd15_holds_the_papers_numbers():
    stage_1, stage_2 = sd15.AUTOENCODER, sd15.DIFFUSION
    assert (stage_1.learning_rate, stage_1.weight_decay, stage_1.betas) == (1e-4, 0.01, (0.9, 0.95))
    assert stage_1.batch_size == 128
    assert stage_1.steps == pytest.approx(30 * 2.9e6 / 128, rel=0.01)
    assert (stage_2.learning_rate, stage_2.weight_decay, stage_2.betas) == (6.4e-5, 0.01, (0.9, 0.999))
    assert (stage_2.batch_size, stage_2.steps) == (64, 180_000)
    assert (stage_2.drop_text, stage_2.drop_elements, stage_2.drop_both) == (0.3, 0.1, 0.1)
    assert stage_2.random_partition
    assert not stage_2.text_from_scratch


def differing(one, other) -> dict:
    """Return the fields of a dataclass that differ from another's."""
    names = (field.name for field in dataclasses.fields(one))
    return {name: getattr(one, name) for name in names if getattr(one, name) != getattr(other, name)}


@pytest.mark.parametrize("base", [sd15, tiny], ids=["sd15", "tiny"])
def test_rows_of_table_1_differ_from_the_papers_model_in_a_field(base):
    name = base.__name__.removeprefix("configs.")
    rows = {row.removeprefix(f"{name}_"): preset for row, preset in ablations.PRESETS.items() if row.startswith(name)}
    assert {row: differing(preset.diffusion, base.DIFFUSION) for row, preset in rows.items()} == {
        "joint": {"encoder": "joint"},
        "unfrozen": {"encoder": "unfrozen"},
        "own_partition": {"random_partition": False},
    }
    assert all(preset == Preset(model=base.MODEL, diffusion=preset.diffusion) for preset in rows.values())


@pytest.mark.parametrize("base", [sd15, tiny], ids=["sd15", "tiny"])
def test_baselines_of_table_2_have_the_bottleneck_of_elements(base):
    name = base.__name__.removeprefix("configs.")
    rows = {
        row.removeprefix(f"{name}_"): preset for row, preset in vae_baselines.PRESETS.items() if row.startswith(name)
    }
    assert rows.keys() == {"ae", "vae_kl", "vae_kl_adv"}
    for preset in rows.values():
        assert differing(preset.model, base.MODEL).keys() == {"vae"}
        assert (preset.autoencoder, preset.diffusion) == (None, None)
        elements, vae = preset.model.elements, preset.model.vae
        assert preset.model.latent_size == elements.grid
        assert vae.latent_channels == elements.content_channels
    ae = rows["ae"].vae
    assert (ae.reconstruction, ae.kl_weight, ae.perceptual_weight, ae.adversarial_weight) == ("l2", 0, 0, 0)
    assert differing(rows["vae_kl"].vae, ae) == {"kl_weight": 1e-6}
    losses = {"reconstruction": "l1", "perceptual_weight": 1, "adversarial_weight": 0.5}
    assert differing(rows["vae_kl_adv"].vae, rows["vae_kl"].vae) == losses


def test_a_preset_without_the_stage_says_which_it_has(jobs, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["diffusion", "tiny_ae", "--data", "r", "--model", "m"])
    assert stop.value.code == 2
    assert "tiny_ae is a preset of vae, not of diffusion" in capsys.readouterr().err
    cli.main(["diffusion", "tiny_joint", "--data", "r", "--model", "m"])
    assert [job.train for _, job in jobs] == [PRESETS["tiny_joint"].diffusion]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="at most 1"):
        DiffusionTrainConfig(steps=1, batch_size=2, learning_rate=1, drop_text=0.9, drop_elements=0.2)
    with pytest.raises(ValueError, match="batch_size must be 2 or more"):
        DiffusionTrainConfig(steps=1, batch_size=1, learning_rate=1)


def test_learning_rate_rises_then_stays():
    rate = learning_rate(TrainConfig(steps=100, batch_size=1, learning_rate=2e-3, warmup=10))
    np.testing.assert_allclose([rate(s) for s in (0, 5, 10, 99)], [0, 1e-3, 2e-3, 2e-3], rtol=1e-6)


def test_learning_rate_falls_along_a_cosine():
    config = TrainConfig(steps=110, batch_size=1, learning_rate=2e-3, warmup=10, schedule="cosine", final_fraction=0.1)
    rate = learning_rate(config)
    half = 2e-4 + 0.5 * (2e-3 - 2e-4)
    np.testing.assert_allclose([rate(s) for s in (0, 5, 10, 60, 110)], [0, 1e-3, 2e-3, half, 2e-4], rtol=1e-5)


def test_an_error_of_the_users_making_is_one_line(tmp_path, capsys):
    (tmp_path / "records").mkdir()
    code = cli.main(["vae", "tiny", "--data", str(tmp_path / "records"), "--model", str(tmp_path / "model")])
    assert code == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'records'}: no records of split 'train'")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 0) for name in ("steps", "batch_size", "accumulate", "log_every", "sample_every", "sample_count")),
        *((name, 0) for name in ("checkpoint_every", "keep", "keep_every", "fsdp", "data_parallel")),
        *((name, -1) for name in ("workers", "warmup", "max_consecutive_skips", "seed", "weight_decay", "travel")),
        *(
            (name, math.nan)
            for name in ("learning_rate", "weight_decay", "clip_norm", "ema_decay", "minutes", "travel")
        ),
        ("learning_rate", math.inf),
        ("learning_rate", -1e-3),
        ("ema_decay", 1.5),
        ("ema_decay", 1.0),
        ("betas", (0.9, 1.0)),
        ("betas", (math.nan, 0.9)),
        ("final_fraction", 2.0),
        ("seed", 2**32),
        ("profile", (5, 3)),
        ("drop_text", -0.1),
        ("element_dropout", 1.5),
        ("own_mask_probability", math.nan),
    ],
)
def test_every_setting_has_its_bounds(name, value):
    with pytest.raises(ValueError, match=rf"{name}.* must (be|sum)"):
        dataclasses.replace(tiny.DIFFUSION, **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("kl_weight", -1.0), ("perceptual_crop", 0), ("adversarial_weight", math.inf), ("discriminator_levels", 0)],
)
def test_settings_of_one_stage_have_their_bounds(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be"):
        dataclasses.replace(tiny.VAE, **{name: value})
