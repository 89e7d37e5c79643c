"""Other authors' methods by diffusers' pipelines, with random weights at small widths, on a results folder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PaintByExamplePipeline,
    StableDiffusionInstructPix2PixPipeline,
)
from diffusers.pipelines.deprecated.paint_by_example import PaintByExampleImageEncoder
from PIL import Image
from transformers import CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPVisionConfig

from elements_jax.evaluation.results import Case, methods, path_of, picture, save, write_cases
from partition.diffusers_baselines import main
from tests.helpers.stable_diffusion import small_unet, write_clip_tokenizer

CASES = [Case("a", "move", "move the cat left", prompt="a cat"), Case("b", "delete", "remove the dog")]
SIDE = 32
"""Image size of the models; the test images are smaller."""


def networks(in_channels: int) -> dict:
    torch.manual_seed(0)
    return {
        "unet": small_unet(in_channels, sample_size=SIDE // 2),
        "vae": AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
        ),
        "scheduler": DDIMScheduler(steps_offset=1),
        "feature_extractor": CLIPImageProcessor(size={"shortest_edge": 224}, crop_size=224),
        "safety_checker": None,
    }


@pytest.fixture(scope="module")
def instruct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instruct")
    text = CLIPTextConfig(hidden_size=24, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4)
    tokenizer = CLIPTokenizer.from_pretrained(write_clip_tokenizer(folder / "words"))
    parts = networks(8) | {"text_encoder": CLIPTextModel(text), "tokenizer": tokenizer}
    StableDiffusionInstructPix2PixPipeline(**parts, requires_safety_checker=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def by_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by-example")
    width = {"hidden_size": 24, "intermediate_size": 48, "projection_dim": 24, "patch_size": 56}
    vision = CLIPVisionConfig(**width, num_hidden_layers=5, num_attention_heads=4)
    parts = networks(9) | {"image_encoder": PaintByExampleImageEncoder(vision, proj_size=24)}
    PaintByExamplePipeline(**parts, requires_safety_checker=False).save_pretrained(folder)
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_cases(tmp_path, CASES)
    for i, case in enumerate(CASES):
        rng = np.random.default_rng(i)
        save(tmp_path, "input", case, rng.integers(0, 256, (16, 16, 3), np.uint8))
        folder = tmp_path / "needs" / "paint-by-example" / case.name
        folder.mkdir(parents=True)
        steps = [{"mask": "0-mask.png", "example": "0-example.png"}] * (2 - i)
        (folder / "steps.json").write_text(json.dumps(steps))
        mask = np.zeros((16, 16), bool)
        mask[4:12, 4:12] = True
        Image.fromarray(mask).save(folder / "0-mask.png")
        Image.fromarray(rng.integers(0, 256, (5, 9, 3), np.uint8)).save(folder / "0-example.png")
    return tmp_path


def run(results: Path, method: str, weights: Path) -> int:
    return main([str(results), "--method", method, "--weights", str(weights), "--steps", "2", "--device", "cpu"])


@pytest.mark.filterwarnings("ignore")  # diffusers' own deprecations
@pytest.mark.parametrize("method", ["instruct-pix2pix", "paint-by-example"])
def test_a_method_adds_its_folder_and_resumes(method, results, request, capsys):
    weights = request.getfixturevalue({"instruct-pix2pix": "instruct", "paint-by-example": "by_example"}[method])
    assert run(results, method, weights) == 0
    assert methods(results) == [method]
    first = picture(results, method, CASES[0])
    assert first.shape == (16, 16, 3)
    assert first.std() > 1
    path_of(results, method, CASES[0]).unlink()
    kept = path_of(results, method, CASES[1]).stat().st_mtime_ns
    assert run(results, method, weights) == 0
    assert "1 of 2 images added" in capsys.readouterr().out
    np.testing.assert_array_equal(picture(results, method, CASES[0]), first)  # its seed determines its noise
    assert path_of(results, method, CASES[1]).stat().st_mtime_ns == kept


def test_names_missing_inputs_before_loading_a_model(results, tmp_path, capsys):
    write_cases(results, [Case("c", "move", "")])
    assert run(results, "instruct-pix2pix", tmp_path) == 1
    assert "error: case 'c' has no instruction" in capsys.readouterr().err
    assert run(results, "paint-by-example", tmp_path) == 1
    assert "run `elements compare` or `elements scenes-benchmark` with --others" in capsys.readouterr().err


def test_does_not_import_jax():
    script = "import sys; sys.modules['jax'] = None; import partition.diffusers_baselines"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
