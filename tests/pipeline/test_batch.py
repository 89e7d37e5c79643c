"""Batch inference gives the pipeline's images, script by script, however often it is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from elements_jax import __version__
from elements_jax.cli.main import main
from elements_jax.data.index import RecordIndex
from elements_jax.diffusion.preserve import Preserve
from elements_jax.diffusion.samplers import ddim_sample
from elements_jax.editing.apply import apply_script
from elements_jax.editing.edits import Canvas, edited_region, stack
from elements_jax.editing.script import EditScript
from elements_jax.editing.script_list import ScriptLines
from elements_jax.pipeline.batch import Job, run
from elements_jax.pipeline.pipeline import ElementsPipeline
from tests.helpers.pipeline.batch import contents, example_lines, pictures, write_lines
from tests.helpers.records import record

ROOT = Path(__file__).parents[2]  # where `python -m` finds the packages


def one_by_one(pipeline: ElementsPipeline, path: Path, preserve: bool = False) -> dict[str, np.ndarray]:
    """Return the images of a file of scripts, read, edited and decoded by hand."""

    def canvas(source_id: str) -> Canvas:
        of = record(int(source_id))
        return pipeline.encode(of.image, of.label_map)

    found = {}
    for number, text in enumerate(path.read_text().splitlines(), start=1):
        fields = json.loads(text)
        name, source_id = fields.pop("name", f"{number:07d}"), fields.pop("source_id")
        script = EditScript.from_json(json.dumps(fields))
        after = apply_script(script, canvas(source_id), lambda name, _: canvas(name)).canvas
        kept = Preserve(record(int(source_id)).image[None], edited_region(canvas(source_id), after)[None])
        elements = stack([after]).elements
        decoded = pipeline.decode_batch(
            elements, [script.prompt], seeds=[script.seed], preserve=kept if preserve else None
        )
        found[name] = decoded[0].astype(int)
    return found


def assert_same_pictures(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], tolerance: int) -> None:
    assert ours.keys() == theirs.keys()
    for name, picture in ours.items():
        np.testing.assert_allclose(picture, theirs[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("preserve", [False, True])
def test_images_equal_those_of_single_calls_bit_for_bit(preserve, tmp_path, seven, records, model, pipeline):
    options = ["--model", model, "--shard-size", "3"] + ["--preserve"] * preserve
    assert main(["batch", str(records), str(seven), str(tmp_path / "out"), *options]) == 0
    found = pictures(tmp_path / "out")
    assert_same_pictures(found, one_by_one(pipeline, seven, preserve), tolerance=0)
    assert (found["0000001"] != found["0000004"]).any()
    if preserve:  # the second script edits nothing
        np.testing.assert_array_equal(found["0000002"], record(100).image)


def test_batches_are_filled_up_and_compiled_once(tmp_path, seven, records, model_folder):
    """With 7 scripts in shards of 5, batches of 4 hold 4, 1 and 2 scripts."""
    pipeline = ElementsPipeline.from_pretrained(model_folder)
    index = RecordIndex(records)
    sampling = {"steps": 2, "sampler": ddim_sample, "guidance": 3.0}
    job = Job(
        scripts=ScriptLines(seven, index),
        records=index,
        out=tmp_path / "out",
        pipeline=pipeline,
        sampling=sampling,
        preserve=False,
        settings={},
        shard_size=5,
        batch_size=4,
    )
    assert run(job, overwrite=False) == {"written": 7}
    assert pipeline._encode._cache_size() == pipeline._decode._cache_size() == 1
    assert [len(list(path.glob("*.png"))) for path in sorted((tmp_path / "out").glob("shard-*"))] == [5, 2]
    assert_same_pictures(pictures(tmp_path / "out"), one_by_one(pipeline, seven), tolerance=1)  # rounding to 8 bits


def test_settings_are_embedded_and_a_script_can_be_run_again(tmp_path, seven, records, model, pipeline):
    out = tmp_path / "out"
    sampling = ["--steps", "3", "--guidance", "2", "--element-guidance", "1.5", "--eta", "0.5"]
    assert main(["batch", str(records), str(seven), str(out), "--model", model, *sampling]) == 0
    with Image.open(out / "shard-00000-of-00001" / "third-é.png") as picture:
        text = dict(picture.text)
    script = EditScript.from_json(text.pop("script"))
    assert script == ScriptLines(seven, RecordIndex(records)).read([2])[0].script
    assert text == {
        "Software": f"elements-jax {__version__}",
        "source_id": "100",
        "prompt": "a red square",
        "seed": "2",
        "model": model,
        "weights": pipeline.checksum(),
        "steps": "3",
        "sampler": "ddim",
        "guidance": "2.0",
        "element_guidance": "1.5",
        "eta": "0.5",
        "preserve": "false",
    }


def test_another_job_is_refused_and_the_same_one_loses_nothing(tmp_path, seven, records, model, capsys):
    out = tmp_path / "out"
    command = ["batch", str(records), str(seven), str(out), "--model", model, "--shard-size", "3"]
    assert main(command) == 0
    before = contents(out)
    assert main([*command, "--steps", "1"]) == 1
    error = capsys.readouterr().err
    assert "shard-00000-of-00003 exists already, made with other settings: steps (2, now 1)" in error
    assert "--overwrite starts from scratch" in error
    assert main([*command, "--batch-size", "2", "--overwrite"]) == 0  # the same job, so there is nothing to do
    assert contents(out) == before

    text = seven.read_text()
    seven.write_text(text.replace('"seed": 6', '"seed": 7'))
    assert main(command) == 1
    assert "made with other settings: scripts (7 scripts, " in capsys.readouterr().err
    assert contents(out) == before
    (out / ".shard-00000-of-00009.1.unfinished").mkdir()
    assert main([*command, "--overwrite"]) == 0
    assert [path.name for path in out.glob(".*")] == [".lock"]
    after = contents(out)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"job.json", "shard-00002-of-00003/0000007.png"}

    (out / "job.json").unlink()
    assert main(command) == 1
    assert "shard-00000-of-00003 exists already, made by another job; --overwrite" in capsys.readouterr().err


def test_hosts_share_the_shards(tmp_path, seven, records, model, monkeypatch, capsys):
    command = ["batch", str(records), str(seven), "--model", model, "--shard-size", "2"]
    assert main([*command, str(tmp_path / "alone")]) == 0
    monkeypatch.setattr(jax, "process_count", lambda *_: 2)
    monkeypatch.setattr("elements_jax.parallel.hosts.barrier", lambda _: None)  # there is no other host
    for host, shards in ((1, [1, 3]), (0, [0, 1, 2, 3])):
        monkeypatch.setattr(jax, "process_index", lambda *_, host=host: host)
        assert main([*command, str(tmp_path / "shared")]) == 0
        there = sorted((tmp_path / "shared").glob("shard-*"))
        assert [int(path.name[6:11]) for path in there] == shards
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
    assert main([*command, str(tmp_path / "shared"), "--steps", "1", "--overwrite"]) == 1
    assert "--overwrite works only on one host" in capsys.readouterr().err


DEVICES = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
from elements_jax.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


def test_four_devices_give_the_same_bits(tmp_path, seven, records, model):
    command = ["batch", str(records), str(seven), "--model", model, "--shard-size", "5"]
    assert main([*command, str(tmp_path / "one")]) == 0
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PJRT_NPROC": "16"}
    arguments = [sys.executable, "-c", DEVICES, "4", *command, str(tmp_path / "four")]
    subprocess.run(arguments, env=environment, cwd=ROOT, check=True)
    assert contents(tmp_path / "four") == contents(tmp_path / "one")


@pytest.mark.slow
def test_a_job_killed_at_random_equals_an_undisturbed_one(tmp_path, records, model):
    scripts = write_lines(tmp_path / "scripts.jsonl", example_lines(120))
    command = ["batch", str(records), str(scripts), "--model", model, "--shard-size", "3"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    out = tmp_path / "killed"
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    arguments = [sys.executable, "-m", "elements_jax.cli", *command, str(out)]
    process = subprocess.Popen(arguments, cwd=ROOT, **silent)
    while not list(out.glob("shard-*")):
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < len(list(out.glob("shard-*"))) < 40
    assert main([*command, str(out)]) == 0
    assert contents(out) == contents(tmp_path / "whole")
