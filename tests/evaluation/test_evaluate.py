"""`elements evaluate` on records and on results of edits, against values computed by hand; and its errors."""

import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from elements_jax import __version__
from elements_jax.cli.main import main
from elements_jax.editing.script import EditScript, Move
from elements_jax.evaluation import results
from elements_jax.evaluation.displacement import displacement
from elements_jax.evaluation.grids import write_grids
from elements_jax.evaluation.results import Case
from elements_jax.models.networks import Networks
from elements_jax.pipeline.pipeline import ElementsPipeline, to_uint8
from tests.helpers.evaluations import WHOLE, evaluate, psnr, refused, save, values, write_folder_pair
from tests.helpers.records import record, write_records
from tests.helpers.scenes import SCENES, scene_record

HELD_OUT = [scene_record(seed) for seed in range(4)]  # of `scene_records`


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records whose edits are evaluated."""
    return write_records(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_folder_pair(tmp_path_factory.mktemp("folders"))


def by_hand(pipeline: ElementsPipeline, decoder: str) -> np.ndarray:
    image, label_map = (np.stack([getattr(each, name) for each in HELD_OUT]) for name in ("image", "label_map"))
    elements = pipeline.encode_batch(image, label_map).elements
    if decoder == "light":
        return pipeline.reconstruct(elements)
    return pipeline.decode_batch(elements, [each.caption for each in HELD_OUT], seeds=range(4), steps=2)


@pytest.mark.parametrize("decoder", ["light", "diffusion"])
def test_records_are_reconstructed_as_by_the_pipeline(
    decoder, tmp_path, scene_records, scene_model, scene_pipeline, monkeypatch, capsys
):
    monkeypatch.setattr(ElementsPipeline, "from_pretrained", lambda *_, **__: scene_pipeline)  # compiled once
    expected = [psnr(a, each.image) for a, each in zip(by_hand(scene_pipeline, decoder), HELD_OUT, strict=True)]
    command = ["records", scene_records, "--model", scene_model, "--decoder", decoder, *WHOLE, "--batch-size", 4]
    report = evaluate(tmp_path / "report.json", *command, "--pictures", tmp_path / "pictures")
    number = report["numbers"][decoder, "all", "psnr"]
    assert number["count"] == 4
    assert number["value"] == pytest.approx(np.mean(expected), abs=1e-3)
    assert re.search(rf"{decoder} +all +4 +\d\.\d+ +{number['value']:.2f} ", capsys.readouterr().out)
    if decoder == "diffusion":
        assert number["weights"] == scene_pipeline.checksum()
        assert report["settings"]["steps"] == 2

    assert report["version"] == __version__
    assert report["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", report["commit"])
    with Image.open(tmp_path / "pictures" / f"{decoder}.png") as picture:
        assert picture.width > 2 * 160
        assert picture.height > 9 * 160

    if decoder == "light":
        filled = evaluate(tmp_path / "filled.json", *command[:-1], 3)  # 4 are 3 and 1
        np.testing.assert_allclose(values(filled), values(report), rtol=1e-3)  # 8 bits sometimes round the other way


def test_the_vae_alone_is_enough_for_itself(tmp_path, scene_records, scene_model, scene_pipeline, capsys):
    alone = tmp_path / "model"
    shutil.copytree(scene_model, alone)
    for part in ("unet", "text_encoder", "tokenizer"):
        shutil.rmtree(alone / part)
    for network in ("encoder", "decoder", "attention"):
        (alone / "elements" / f"{network}.safetensors").unlink()
    report = evaluate(tmp_path / "report.json", "records", scene_records, "--model", alone, "--decoder", "vae", *WHOLE)
    image = jnp.asarray(np.stack([each.image for each in HELD_OUT])) / 127.5 - 1

    vae = Networks(SCENES).vae

    @jax.jit
    def there_and_back(params, image):
        return vae.module(params).decode(vae.module(params).encode(image)[0])

    back = to_uint8(there_and_back(scene_pipeline.params["vae"], image))
    expected = np.mean([psnr(a, each.image) for a, each in zip(back, HELD_OUT, strict=True)])
    assert report["numbers"]["vae", "all", "psnr"]["value"] == pytest.approx(expected, abs=1e-3)

    assert main(["evaluate", "records", str(scene_records), "--model", str(alone), "--decoder", "light"]) == 1
    assert re.search(r"error: the model is not complete:\n.*no encoder\.safetensors", capsys.readouterr().err)


def test_reconstructions_of_models_stand_in_one_figure(tmp_path, scene_records, scene_model, capsys):
    results_folder = tmp_path / "results"
    command = ["records", scene_records, "--model", scene_model, "--count", 3, "--add-to", results_folder, *WHOLE]
    for decoder in ("light", "vae"):
        evaluate(tmp_path / "report.json", *command, "--decoder", decoder, "--batch-size", 2)
    cases = results.read_cases(results_folder)
    assert [case.name for case in cases] == [f"val-{number:06}" for number in range(3)]
    assert results.methods(results_folder) == ["light", "vae"]
    written = evaluate(tmp_path / "a.json", "folders", results_folder / "light", results_folder / "input", *WHOLE)
    assert values(written) == values(evaluate(tmp_path / "b.json", *command[:6], *WHOLE, "--decoder", "light"))
    page = write_grids(results_folder, tmp_path / "figure", cell=64)
    assert "Columns: Input, light, vae." in page.read_text()
    assert "already holds 'vae'" in refused(capsys, *command, "--decoder", "vae")
    assert "holds other cases" in refused(capsys, *command[:5], 2, *command[6:], "--decoder", "vae", "--name", "b")
    assert "--name must be usable as a file name" in refused(capsys, *command, "--name", "a/b")


@pytest.fixture
def edits(tmp_path: Path) -> Path:
    """Moves of two records' top left elements: perfect, by copying, and none at all; the second has no truth."""
    folder = tmp_path / "results"
    cases = []
    for i, each in enumerate([record(100), record(101)]):
        script = EditScript((Move((0,), (0.25, 0.0)),))
        cases.append(case := Case(f"{i}-move", "move", "move it", each.source_id, "", script=script))
        regions = displacement(script, each, lambda name, each=each: each)
        perfect = np.where(regions["source"][..., None], np.uint8(127), regions["pasted"])
        for name, picture in (
            ("input", each.image),
            ("region", regions["target"] | regions["source"]),
            ("perfect", perfect),
            ("pixels", regions["pasted"]),
            ("nothing", each.image),
        ):
            results.save(folder, name, case, picture)
        if i == 0:
            results.save(folder, "truth", case, perfect)
    results.write_cases(folder, cases)
    return folder


def test_methods_are_compared_on_the_same_edits(tmp_path, edits, squares, capsys):
    metrics = ["psnr", "ssim", "edited-psnr", "untouched-psnr", "arrived-ssim", "left-behind-ssim"]
    report = evaluate(tmp_path / "report.json", "results", edits, "--records", squares, "--metrics", *metrics)
    found = {key: number["value"] for key, number in report["numbers"].items() if key[1] == "all"}
    count = {key: number["count"] for key, number in report["numbers"].items()}
    assert {method for method, _, _ in found} == {"nothing", "perfect", "pixels"}
    for method in ("nothing", "perfect", "pixels"):
        assert count[method, "all", "psnr"] == count[method, "all", "edited-psnr"] == 1
        assert count[method, "all", "arrived-ssim"] == count[method, "all", "left-behind-ssim"] == 2
        assert found[method, "all", "untouched-psnr"] == pytest.approx(100)
    assert found["perfect", "all", "psnr"] == found["perfect", "all", "edited-psnr"] == pytest.approx(100)
    case = results.read_cases(edits)[0]
    expected = psnr(
        results.picture(edits, "pixels", case), results.picture(edits, "truth", case), results.region(edits, case)
    )
    assert found["pixels", "all", "edited-psnr"] == pytest.approx(expected, rel=1e-5)
    assert found["pixels", "all", "arrived-ssim"] == pytest.approx(1, abs=1e-5)
    assert found["pixels", "all", "left-behind-ssim"] == pytest.approx(1, abs=1e-5)
    assert found["nothing", "all", "left-behind-ssim"] == pytest.approx(1, abs=1e-5)
    assert found["perfect", "all", "arrived-ssim"] == pytest.approx(1, abs=1e-5)
    assert found["perfect", "all", "left-behind-ssim"] < 0.9
    assert found["nothing", "all", "arrived-ssim"] < 0.9
    printed = capsys.readouterr().out
    assert re.search(r"^pixels +all +2 .* \(1\) .* 1\.0000 +1\.0000$", printed, re.MULTILINE)

    one = evaluate(tmp_path / "one.json", "results", edits, "--methods", "pixels", "--metrics", "psnr")
    assert set(one["numbers"]) == {("pixels", "all", "psnr")}


def test_kinds_of_edits_have_their_own_rows(tmp_path, edits):
    lines = (edits / results.CASES).read_text().splitlines()
    (edits / results.CASES).write_text("\n".join([lines[0], lines[1].replace('"kind": "move"', '"kind": "delete"')]))
    (edits / "truth" / "0-move.png").unlink()
    command = ["results", edits, "--pictures", tmp_path / "pictures", "--metrics", "untouched-psnr"]
    found = evaluate(tmp_path / "report.json", *command)["numbers"]
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 3
    assert [kind for method, kind, _ in found if method == "pixels"] == ["all", "delete", "move"]


def test_errors_name_the_wrong_input(tmp_path, folders, squares, scene_records, scene_model, edits, capsys):
    pictures, truths = folders
    fewer, other = tmp_path / "fewer", tmp_path / "other"
    shutil.copytree(pictures, fewer)
    (fewer / "picture-3.png").unlink()
    assert f"{fewer} lacks 1 of 7 images: picture-3" in refused(capsys, "folders", fewer, truths)
    assert f"{fewer} lacks 1 of 7 images: picture-3" in refused(capsys, "folders", truths, fewer)
    shutil.copytree(pictures, other)
    save(other, {"picture-5": record(5, 48).image})
    expected = "picture-5: picture has 48 x 48 px, but the first image has 32 x 32: all must have the same size"
    assert expected in refused(capsys, "folders", other, truths, *WHOLE, "--batch-size", 7)
    assert expected in refused(capsys, "folders", other, truths, *WHOLE, "--batch-size", 2)
    (other / "picture-5.png").write_bytes((pictures / "picture-5.png").read_bytes()[:90])
    assert "picture-5.png: not a readable image" in refused(capsys, "folders", other, truths, *WHOLE)
    Image.fromarray(record(0, 32).image).save(other / "picture-0.jpg")
    assert "picture-0.png and picture-0.jpg have the same name" in refused(capsys, "folders", other, truths)
    assert "expected a folder of images" in refused(capsys, "folders", tmp_path / "nowhere", truths)
    assert "--count must be from 1 to 7" in refused(capsys, "folders", *folders, *WHOLE, "--count", 8)
    assert "no image has the inputs of arrived-ssim" in refused(
        capsys, "folders", *folders, "--metrics", "psnr", "arrived-ssim"
    )
    assert "--reference is for FID" in refused(capsys, "folders", *folders, "--reference", "x.npz")
    assert "--batch-size must be at least 1" in refused(capsys, "folders", *folders, "--batch-size", 0)
    assert "nowhere.pth" in refused(capsys, "folders", *folders, "--inception", tmp_path / "nowhere.pth")

    command = ["records", scene_records, "--model", scene_model, "--decoder", "light", *WHOLE]
    assert "has no split 'test'; it has val" in refused(capsys, *command, "--split", "test")
    assert "has no split 'val'; it has none" in refused(capsys, "records", tmp_path, *command[2:])
    assert "is neither a model folder" in refused(capsys, *command[:3], tmp_path, "--decoder", "vae")
    expected = (
        "the model takes images of 32 x 32 px in 64 elements, but record '100' has images of 16 x 16 px in 4 elements"
    )
    assert expected in refused(capsys, "records", squares, *command[2:])
    expected = "the model takes 32 x 32 px, not (16, 16)"
    assert expected in refused(capsys, "records", squares, *command[2:4], *WHOLE, "--decoder", "vae")

    (edits / "perfect" / "1-move.png").unlink()
    assert f"{edits / 'perfect'} lacks 1 of 2 images: 1-move" in refused(capsys, "results", edits)
    assert "has no method best; it has nothing, perfect, pixels" in refused(
        capsys, "results", edits, "--methods", "best"
    )
    missing = tmp_path / "records"
    shutil.copytree(squares, missing)
    for path in missing.glob("*val*"):
        path.unlink()
    expected = "case '0-move': no record has source_id '100'"
    arguments = ["results", edits, "--methods", "pixels", "--records", missing, "--metrics", "arrived-ssim"]
    assert expected in refused(capsys, *arguments)


def test_help_and_unknown_words(capsys):
    assert main(["evaluate", "--help"]) == 0
    assert "elements evaluate WHAT" in capsys.readouterr().out
    assert main(["evaluate", "nothing"]) == 2
    assert "elements evaluate WHAT" in capsys.readouterr().err
