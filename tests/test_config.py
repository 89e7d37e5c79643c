"""Configurations out of bounds are rejected when they are made or read, with one error that names the field."""

import dataclasses
import json
import math

import pytest

from elements_jax.checkpoints.model_folder import read_config, write_config
from elements_jax.config import (
    DecoderConfig,
    DiffusionConfig,
    ElementsConfig,
    EncoderConfig,
    ModelConfig,
    TextConfig,
    UNetConfig,
    VAEConfig,
)
from tests.helpers.records import SMALL

PARTS = (ElementsConfig, EncoderConfig, DecoderConfig, VAEConfig, TextConfig, UNetConfig, DiffusionConfig)
NUMBERS = [
    pytest.param(part, field.name, id=f"{part.__name__}.{field.name}")
    for part in PARTS
    for field in dataclasses.fields(part)
    if field.type in (int, float) or "int" in str(field.type)
]


@pytest.mark.parametrize(("part", "name"), NUMBERS)
def test_every_number_has_its_bounds(part, name):
    value = getattr(part(), name)
    for odd in (-101.0, math.nan, math.inf) if isinstance(value, float) else (-1, 1 << 40):
        changed = (odd, *value[1:]) if isinstance(value, tuple) else odd
        with pytest.raises(ValueError, match=rf"{name} must be "):
            part(**{name: changed})


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        (EncoderConfig, {"norm_groups": 7}, "norm_groups must divide base_channels = 128, got 7"),
        (DecoderConfig, {"self_heads": 7}, "self_heads must divide channels = 512, got 7"),
        (DecoderConfig, {"cross_heads": 3}, "cross_heads must divide channels = 512, got 3"),
        (
            VAEConfig,
            {"block_out_channels": (32, 48)},
            "norm_groups must divide block_out_channels",
        ),
        (TextConfig, {"heads": 5}, "heads must divide hidden_size = 768, got 5"),
        (UNetConfig, {"heads": 7}, r"heads must divide block_out_channels = \(320, 640, 1280, 1280\), got 7"),
        (UNetConfig, {"norm_groups": 48}, "norm_groups must divide block_out_channels"),
    ],
)
def test_numbers_that_do_not_divide_each_other_are_refused(part, fields, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        part(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"elements": ElementsConfig(image_size=520)}, "image_size must be a multiple of 64, .* got 520"),
        ({"decoder": DecoderConfig(query_grid=48)}, "query_grid must divide the image size 512, got 48"),
        (
            {"decoder": DecoderConfig(nearest=5), "elements": ElementsConfig(grid=2)},
            "nearest must be at most the 4 elements, got 5",
        ),
        ({"elements": ElementsConfig(patch_size=24)}, "patch_size must be a multiple of 16, .* got 24"),
    ],
)
def test_sizes_that_networks_do_not_divide_are_refused(fields, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        ModelConfig(**fields)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("unet", "heads"), "4"),
        (("unet", "heads"), None),
        (("unet", "heads"), 0),
        (("unet", "heads"), 2.0),
        (("unet", "heads"), True),
        (("unet", "layers_per_block"), 10**6),
        (("unet", "attention_levels"), [True, False]),
        (("unet", "attention_levels"), [1]),
        (("unet", "block_out_channels"), []),
        (("vae", "scaling_factor"), 0),
        (("vae", "scaling_factor"), math.nan),
        (("vae", "block_out_channels"), 8),
        (("vae", "middle_attention"), "yes"),
        (("decoder", "self_heads"), -2),
        (("text", "layers"), 10**6),
        (("diffusion", "prediction"), "x"),
        (("diffusion", "sample_steps"), 1001),
        (("dtype",), "float16"),
        (("elements",), None),
    ],
)
def test_a_file_with_wrong_values_names_the_field(tmp_path, path, value):
    write_config(tmp_path, SMALL)
    file = tmp_path / "elements" / "config.json"
    content = json.loads(file.read_text())
    inner = content
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"elements/config.json is not a model configuration: .*{path[-1]}") as error:
        ModelConfig.load(file)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("part", "name"),
    [("decoder", "nearest"), ("diffusion", "draft_error"), ("unet", "beside_latent"), ("vae", "middle_attention")],
)
def test_fields_missing_from_older_files_have_defaults(tmp_path, part, name):
    SMALL.save(tmp_path / "config.json")
    content = json.loads((tmp_path / "config.json").read_text())
    del content[part][name]
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert ModelConfig.load(tmp_path / "config.json") == SMALL


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        ("unet/config.json", "attention_head_dim", "8"),
        ("unet/config.json", "block_out_channels", 320),
        ("unet/config.json", "down_block_types", None),
        ("vae/config.json", "scaling_factor", "0.2"),
        ("scheduler/scheduler_config.json", "beta_start", -1),
    ],
)
def test_a_stable_diffusion_with_wrong_values_is_one_error(tmp_path, file, name, value):
    write_config(tmp_path, SMALL)
    (tmp_path / "elements" / "config.json").unlink()
    content = json.loads((tmp_path / file).read_text())
    assert name in content
    (tmp_path / file).write_text(json.dumps(content | {name: value}))
    with pytest.raises(ValueError, match=str(tmp_path)):
        read_config(tmp_path)


def test_a_file_reads_back(tmp_path):
    write_config(tmp_path, SMALL)
    assert ModelConfig.load(tmp_path / "elements" / "config.json") == SMALL == SMALL.checked()
