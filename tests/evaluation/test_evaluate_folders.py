"""`elements evaluate` on folders of images and on several devices; and FID."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from PIL import Image

from elements_jax.cli.main import main
from elements_jax.editing.png import encode_png
from elements_jax.editing.script import EditScript
from elements_jax.evaluation.inputs import folder_pair
from elements_jax.metrics import fid
from elements_jax.metrics.fid import Statistics
from tests.helpers.evaluations import WHOLE, evaluate, psnr, values, write_folder_pair
from tests.helpers.photographs import swapped_profile
from tests.helpers.records import record

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_folder_pair(tmp_path_factory.mktemp("folders"))


def test_folders_are_compared_picture_by_picture(tmp_path, folders):
    pictures, truths = folders
    command = ["folders", pictures, truths, "--metrics", "psnr", "mse", "lpips-alex"]
    report = evaluate(tmp_path / "report.json", *command)
    pairs = [[np.asarray(Image.open(folder / f"picture-{i}.png")) for folder in (pictures, truths)] for i in range(7)]
    expected = np.mean([psnr(*pair) for pair in pairs])
    assert report["numbers"]["noisy", "all", "psnr"]["value"] == pytest.approx(expected, rel=1e-5)
    assert all(number["count"] == 7 for number in report["numbers"].values())
    assert 0.01 < report["numbers"]["noisy", "all", "lpips-alex"]["value"] < 1
    three = evaluate(tmp_path / "three.json", *command, "--batch-size", 3)
    np.testing.assert_allclose(values(three), values(report), rtol=1e-5)
    first = evaluate(tmp_path / "first.json", *command, "--count", 2)
    assert first["numbers"]["noisy", "all", "psnr"]["value"] == pytest.approx(
        np.mean([psnr(*pair) for pair in pairs[:2]]), rel=1e-5
    )


DEVICES = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
from elements_jax.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


def test_four_devices_give_the_same_numbers(tmp_path, folders):
    command = ["folders", *folders, "--metrics", "mse", "psnr", "ssim"]
    one = evaluate(tmp_path / "one.json", *command, "--batch-size", 2)
    out = tmp_path / "four.json"
    arguments = [sys.executable, "-c", DEVICES, "4", "evaluate", *command, "--batch-size", "2", "--out", out]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PJRT_NPROC": "16"}
    subprocess.run(list(map(str, arguments)), env=environment, cwd=ROOT, check=True)
    four = json.loads(out.read_text())
    assert four["settings"]["devices"].startswith("4 x ")
    assert [number["value"] for number in four["numbers"]] == values(one)  # bit for bit


@pytest.fixture
def eight_features(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight means of each image, in place of Inception."""

    def features(image: jax.Array) -> jax.Array:
        return image.reshape(len(image), 8, -1).astype(jnp.float32).mean(-1)

    monkeypatch.setattr("elements_jax.cli.evaluation.evaluate.extractor", lambda path: Partial(features))
    monkeypatch.setattr(fid, "FEATURES", 8)
    return Path("inception.pth")


def test_fid_is_of_all_pictures_and_warns_of_few(tmp_path, folders, eight_features, capsys):
    command = ["folders", *folders, "--metrics", "psnr", "--inception", eight_features]
    report = evaluate(tmp_path / "report.json", *command)
    number = report["numbers"]["noisy", "all", "fid"]
    features = [
        np.stack([np.asarray(Image.open(folder / f"picture-{i}.png")).reshape(8, -1).mean(-1) for i in range(7)])
        for folder in folders
    ]
    expected = fid.frechet_distance(*(Statistics(f.mean(0), np.cov(f, rowvar=False), 7) for f in features))
    assert number["count"] == 7
    assert number["value"] == pytest.approx(expected, rel=1e-4)
    assert "warning: fid uses 7 images, fewer than its 2048 features" in capsys.readouterr().out
    assert len(report["notes"]) == 1
    three = evaluate(tmp_path / "three.json", *command, "--batch-size", 3)
    np.testing.assert_allclose(values(three), values(report), rtol=1e-5)

    stored = tmp_path / "statistics.npz"
    assert main(["evaluate", "statistics", str(folders[1]), str(stored), "--inception", str(eight_features)]) == 0
    assert "statistics.npz: statistics of 7 images" in capsys.readouterr().out
    against = evaluate(tmp_path / "against.json", *command, "--reference", stored)
    np.testing.assert_allclose(values(against), values(report), rtol=1e-5)


def test_fid_of_inputs_and_reconstructions_is_named_rfid(tmp_path, scene_records, scene_model, eight_features):
    command = [
        "records",
        scene_records,
        "--model",
        scene_model,
        "--decoder",
        "light",
        *WHOLE,
        "--inception",
        eight_features,
    ]
    assert ("light", "all", "rfid") in evaluate(tmp_path / "report.json", *command)["numbers"]


def test_reads_the_model_of_results_from_their_metadata(tmp_path, folders):
    carrying = tmp_path / "carrying"
    carrying.mkdir()
    for i in range(7):
        picture = np.asarray(Image.open(folders[0] / f"picture-{i}.png"))
        (carrying / f"picture-{i}.png").write_bytes(encode_png(picture, EditScript(), {"weights": "0123abcd"}))
    report = evaluate(tmp_path / "report.json", "folders", carrying, folders[1], "--metrics", "psnr")
    assert report["numbers"]["carrying", "all", "psnr"]["weights"] == "0123abcd"


def test_folders_are_read_upright_and_on_white(tmp_path):
    """Images are turned by EXIF, laid on white, and converted to 8-bit sRGB, as everywhere else."""
    image = Image.fromarray(record(0, 32).image[:, :24])
    for name in ("upright", "turned", "clear", "white", "deep", "grey", "profile", "swapped"):
        (tmp_path / name).mkdir()
    tags = Image.Exif()
    tags[0x0112] = 6
    image.save(tmp_path / "upright" / "a.png")
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned" / "a.png", exif=tags)
    clear = image.convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "clear" / "a.png")
    Image.new("RGB", image.size, "white").save(tmp_path / "white" / "a.png")
    grey = np.asarray(image.convert("L"))
    Image.fromarray(grey).save(tmp_path / "grey" / "a.png")
    Image.fromarray(grey.astype(np.uint16) << 8).save(tmp_path / "deep" / "a.tiff")
    red, green = (Image.new("RGB", image.size, colour) for colour in ("red", "lime"))
    red.save(tmp_path / "profile" / "a.png", icc_profile=swapped_profile())
    green.save(tmp_path / "swapped" / "a.png")
    for one, other in (("turned", "upright"), ("clear", "white"), ("deep", "grey"), ("profile", "swapped")):
        (pair,) = folder_pair(tmp_path / one, tmp_path / other).read([0])
        np.testing.assert_allclose(pair["picture"], pair["truth"], atol=2 if one == "profile" else 0)
