"""Methods on edits: the commands, their results folder, resuming, and errors."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from elements_jax.cli.main import main
from elements_jax.editing.apply import Edited
from elements_jax.editing.edits import stack
from elements_jax.editing.script import Delete, EditScript, Move, Resize, Sampling
from elements_jax.evaluation import results
from elements_jax.evaluation.methods.method import Prepared, canvas_of, make_methods, prepare
from elements_jax.evaluation.methods.pixel_editing import pixel_edit
from elements_jax.evaluation.run import kind_of
from elements_jax.pipeline.pipeline import ElementsPipeline
from tests.helpers.scenes import scene_record

LINES = [
    {"name": "left", "edits": [{"edit": "move", "elements": [9], "by": [-0.125, 0]}], "instruction": "move it"},
    {
        "name": "gone",
        "edits": [{"edit": "delete", "elements": [9, 10]}, {"edit": "resize", "elements": [1], "scale": 0.5}],
    },
    {"name": "twice", "edits": [{"edit": "delete", "elements": [3]}, {"edit": "delete", "elements": [3]}]},
]
METHODS = ["ours", "pixels", "sdedit-0.5"]


@pytest.fixture
def model(scene_model: Path, scene_pipeline: ElementsPipeline, monkeypatch: pytest.MonkeyPatch) -> str:
    """The model's name for commands; it is opened and compiled once for all tests."""
    monkeypatch.setattr(ElementsPipeline, "from_pretrained", lambda *_, **__: scene_pipeline)
    return str(scene_model)


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    path = tmp_path / "scripts.jsonl"
    lines = ({"source_id": "scene-0000001.png", "version": 1, "seed": i, **line} for i, line in enumerate(LINES))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def compare(records: Path, scripts: Path, out: Path, model: str, *more: str) -> int:
    return main(["compare", str(records), str(scripts), str(out), "--model", model, "--batch-size", "2", *more])


def stamps(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}


def test_scripts_become_a_results_folder_and_a_run_resumes(scene_records, scripts, model, tmp_path, capsys):
    out = tmp_path / "out"
    assert compare(scene_records, scripts, out, model, "--methods", *METHODS, "--others") == 0
    said = capsys.readouterr().out
    assert "2 edits by ours, pixels, sdedit-0.5" in said
    assert "twice: edits[1] (delete): element 3 is empty or was deleted by an earlier edit" in said.replace(
        "[0]", "[1]"
    )
    cases = results.read_cases(out)
    assert [(case.name, case.kind, case.instruction) for case in cases] == [
        ("left", "move", "move it"),
        ("gone", "mixed", ""),
    ]
    assert results.methods(out) == METHODS
    image = scene_record(1).image
    for case in cases:
        np.testing.assert_array_equal(results.picture(out, "input", case), image)
        assert results.region(out, case).any()
        assert results.picture(out, "drawing", case).shape == (512, 512, 3)
        for method in METHODS:
            with Image.open(results.path_of(out, method, case)) as png:
                assert EditScript.from_json(png.text["script"]) == case.script
                assert png.text["method"] == method
    before = stamps(out)
    results.path_of(out, "ours", cases[1]).unlink()
    assert compare(scene_records, scripts, out, model, "--methods", *METHODS, "--others") == 0
    after = stamps(out)
    assert after.keys() == before.keys()
    assert [path.parent.name for path in after if after[path] != before[path] and path.name == "left.png"] == []

    assert compare(scene_records, scripts, out, model, "--methods", "ours", "--steps", "1") == 1
    assert "out/ours was made with other settings" in capsys.readouterr().err
    scripts.write_text(scripts.read_text().replace("-0.125", "0.125"))
    assert compare(scene_records, scripts, out, model, "--methods", "pixels") == 1
    assert "contains results of other edits (3 edits" in capsys.readouterr().err


def test_our_image_equals_the_pipelines(scene_records, scripts, model, scene_pipeline, tmp_path):
    out = tmp_path / "out"
    assert compare(scene_records, scripts, out, model, "--methods", "ours") == 0
    record = scene_record(1)
    for case in results.read_cases(out):
        prepared = prepare(results.Task(case), lambda _: canvas_of(scene_pipeline, record))
        elements = stack([prepared.edited.canvas] * 2).elements
        expected = scene_pipeline.decode_batch(elements, [case.prompt] * 2, seeds=[case.script.seed] * 2)[0]
        np.testing.assert_array_equal(results.picture(out, "ours", case), expected)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--methods", "sd-inpaint"], "sd-inpaint needs Stable Diffusion Inpainting, whose UNet has 9 input channels"),
        (["--methods", "sdedit-2"], "unknown method 'sdedit-2': expected ours, pixels, sdedit-S"),
        (["--methods", "sdedit-0.1"], "SDEdit with strength 0.1 runs none of 2 steps"),
        (["--methods", "ours", "--batch-size", "0"], "--batch-size must be at least 1"),
    ],
)
def test_an_impossible_run_is_one_clear_error(scene_records, scripts, model, tmp_path, capsys, more, problem):
    assert compare(scene_records, scripts, tmp_path / "out", model, *more) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {problem}")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_model_that_does_not_inpaint_is_refused(scene_model, scene_pipeline):
    with pytest.raises(ValueError, match="is not Stable Diffusion Inpainting"):
        make_methods(["sd-inpaint"], scene_pipeline, "model", Sampling(), None, str(scene_model))


def test_sdedit_of_a_model_with_elements_passes_none(scene_pipeline):
    """Its images depend only on pixels and prompt, not on the elements' contents."""
    (sdedit,) = make_methods(["sdedit-0.5"], scene_pipeline, "model", Sampling(), None, None).values()
    record = scene_record(1)
    canvas = canvas_of(scene_pipeline, record)
    others = dataclasses.replace(canvas, elements=jax.tree.map(jnp.zeros_like, canvas.elements))
    cases = []
    for prompt, start in (("a red square", canvas), ("a blue square", canvas), ("a red square", others)):
        script = EditScript((Delete((0,)),), prompt)
        task = results.Task(results.Case(prompt, "delete", "", record.source_id, prompt, script))
        edited = Edited(start, start)
        cases.append(Prepared(task, edited, pixel_edit(script, canvas, lambda name, _: canvas)))
    red, blue, with_others = sdedit.run(cases)
    assert red.std() > 1
    assert (red != blue).any()
    np.testing.assert_array_equal(red, with_others)


def test_kinds_of_scripts():
    assert kind_of(EditScript((Move((0,), (0.1, 0.0)), Move((1,), (0.1, 0.0))))) == "move"
    assert kind_of(EditScript((Resize((0,), 0.5),))) == "shrink"
    assert kind_of(EditScript((Resize((0,), (2.0, 1.5)),))) == "enlarge"
    assert kind_of(EditScript((Resize((0,), (2.0, 0.5)),))) == "resize"
    assert kind_of(EditScript((Delete((0,)), Move((1,), (0.1, 0.0))))) == "mixed"


def test_the_scenes_benchmark_scores_every_method_of_its_folder(scene_records, model, tmp_path, capsys):
    out = tmp_path / "bench"
    command = ["scenes-benchmark", str(scene_records), str(out), "--model", model, "--no-lpips"]
    command += ["--scenes", "2", "--batch-size", "2"]
    assert main([*command, "--methods", "pixels"]) == 0
    for case in results.read_cases(out):
        results.save(out, "oracle", case, results.picture(out, "truth", case))  # images of another project
    assert main([*command, "--methods", "pixels", "ours"]) == 0
    said = capsys.readouterr().out
    scores = json.loads((out / "scores.json").read_text())["edits"]
    assert set(scores["all"]["methods"]) == {"ours", "pixels", "oracle", "unedited", "flat"}
    oracle = scores["all"]["methods"]["oracle"]
    assert oracle["region"]["psnr"] == oracle["picture"]["psnr"] == pytest.approx(100)
    assert oracle["picture"]["ssim"] == pytest.approx(1)
    assert oracle["won"] == 1
    assert "all, psnr: oracle > " in said

    results.path_of(out, "oracle", results.read_cases(out)[0]).unlink()
    assert main([*command, "--methods", "pixels"]) == 1
    assert "oracle: 1 images are missing" in capsys.readouterr().err
    assert main([*command, "--methods", "pixels", "--split", "test"]) == 1
    assert "has no split 'test'; it has val" in capsys.readouterr().err
