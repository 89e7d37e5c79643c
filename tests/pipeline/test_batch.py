"""Batch inference gives the pipeline's images, script by script, however often it is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from elements_jax import __version__
from elements_jax.cli.main import main
from elements_jax.data.index import RecordIndex
from elements_jax.data.tfrecord import shard_path, write_tfrecord
from elements_jax.diffusion.preserve import Preserve
from elements_jax.diffusion.samplers import ddim_sample
from elements_jax.editing.apply import apply_script
from elements_jax.editing.edits import Canvas, edited_region, stack
from elements_jax.editing.script import EditScript
from elements_jax.editing.script_list import ScriptLines
from elements_jax.pipeline.batch import Job, run
from elements_jax.pipeline.pipeline import ElementsPipeline
from tests.helpers.records import record, write_records

ROOT = Path(__file__).parents[2]  # where `python -m` finds the packages


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of records in two splits, "0" to "23" and "100" to "107"."""
    return write_records(tmp_path_factory.mktemp("records"))


@pytest.fixture
def model(model_folder: Path, pipeline: ElementsPipeline, monkeypatch: pytest.MonkeyPatch) -> str:
    """The model's name for commands; it is opened and compiled once in this process."""
    monkeypatch.setattr(ElementsPipeline, "from_pretrained", lambda *_, **__: pipeline)
    return str(model_folder)


def example_lines(count: int) -> list[dict[str, Any]]:
    """Return scripts with every kind of edit and with none, of both splits, some on the same record."""
    edits = [
        [{"edit": "delete", "elements": [0]}],
        [],
        [{"edit": "move", "elements": [1], "by": [0.25, 0.0]}, {"edit": "resize", "elements": [1], "scale": 0.5}],
        [{"edit": "delete", "elements": [3]}, {"edit": "compose", "image": "103", "elements": [2], "by": [0.5, 0.0]}],
    ]
    return [
        {"source_id": str(100 + i // 3 % 8), "version": 1, "edits": edits[i % 4], "prompt": "a red square", "seed": i}
        for i in range(count)
    ]


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def seven(tmp_path: Path) -> Path:
    lines = example_lines(7)
    lines[2]["name"] = "third-é"
    return write_lines(tmp_path / "scripts.jsonl", lines)


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def pictures(out: Path) -> dict[str, np.ndarray]:
    """Return the pixels of all images by name, as integers."""
    found = {}
    for path in out.glob("shard-*/*.png"):
        with Image.open(path) as picture:
            found[path.stem] = np.asarray(picture).astype(int)
    return found


def manifest(out: Path) -> dict[str, dict[str, Any]]:
    paths = sorted(out.glob("shard-*/manifest.jsonl"))
    lines = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return {line["name"]: line for line in lines}


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


def test_names_scripts_that_fail_and_writes_the_others(tmp_path, records, model, capsys):
    lines = example_lines(5)
    lines[1]["edits"] = [{"edit": "delete", "elements": [2]}, {"edit": "delete", "elements": [2]}]
    lines[4]["edits"] = [{"edit": "compose", "image": "0", "elements": [0], "by": [3, 0]}]
    path, out = write_lines(tmp_path / "scripts.jsonl", lines), tmp_path / "out"
    command = ["batch", str(records), str(path), str(out), "--model", model, "--shard-size", "4"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert f"3 images written to {out}\n2 scripts failed; manifest.jsonl of their shard says why\n" in printed
    assert "scripts.jsonl line 2: edits[1] (delete): element 2 is empty or was deleted by an earlier edit\n" in printed
    assert "scripts.jsonl line 5: edits[0] (compose): only 0 of 1 elements fit" in printed
    assert [line["status"] for line in manifest(out).values()] == ["written", "failed", "written", "written", "failed"]
    assert manifest(out)["0000002"]["reason"].endswith("element 2 is empty or was deleted by an earlier edit")
    assert sorted(pictures(out)) == ["0000001", "0000003", "0000004"]
    before = contents(out)
    assert main(command) == 0  # it does not retry
    assert f"3 images written to {out}\n3 of them in an earlier run\n" in capsys.readouterr().out
    assert contents(out) == before

    write_lines(path, lines[1:2])
    assert main([*command, "--overwrite"]) == 1
    assert "no script of" in capsys.readouterr().err


def test_an_unreadable_record_fails_only_its_own_scripts(tmp_path, model, records):
    broken = record(1)
    small = record(2, image_size=24)
    folder = tmp_path / "records"
    folder.mkdir()
    damaged = broken.to_example("png").replace(b"IDAT", b"IDOT")
    examples = [record(0).to_example("png"), damaged, small.to_example("png")]
    write_tfrecord(shard_path(folder, "train", 0, 1), examples)
    path = write_lines(
        tmp_path / "scripts.jsonl",
        [{"version": 1, "source_id": str(i)} for i in range(3)]
        + [{"version": 1, "source_id": "0", "edits": [{"edit": "compose", "image": "1", "elements": [0]}]}],
    )
    assert main(["batch", str(folder), str(path), str(tmp_path / "out"), "--model", model]) == 0
    found = manifest(tmp_path / "out")
    assert found["0000001"]["status"] == "written"
    for name in ("0000002", "0000004"):
        assert (
            "tfrecord-00000-of-00001 record 1: field 'image' must be a JPEG or PNG in RGB: it is not an image"
            in found[name]["reason"]
        )
    assert (
        "the model takes images of 16 x 16 px in 4 elements, but record '2' has images of 24 x 24 px in 4 elements"
        in found["0000003"]["reason"]
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON: "),
        ("[]", "line 2: expected an object"),
        ("\xff", "line 2: not UTF-8: "),
        ({"source_id": "0"}, "line 2: version: expected 1"),
        ({"version": 1}, "line 2: source_id: expected the id of a record"),
        ({"version": 1, "source_id": "24"}, "line 2: no record has source_id '24'"),
        ({"version": 1, "source_id": "0", "name": "../a"}, "line 2: name: expected letters, digits"),
        ({"version": 1, "source_id": "0", "name": "a" * 201}, "line 2: name: expected letters, digits"),
        ({"version": 1, "source_id": "0", "name": "first"}, "line 2: name: 'first' is already used by line 1"),
        ({"version": 1, "source_id": "0", "colour": 1}, "line 2: colour: unknown field"),
        (
            {"version": 1, "source_id": "0", "edits": [{"edit": "delete", "elements": []}]},
            "line 2: edits[0].elements: expected a list of element numbers",
        ),
        (
            {"version": 1, "source_id": "0", "edits": [{"edit": "compose", "image": "x", "elements": [0]}]},
            "line 2: no record has source_id 'x'",
        ),
    ],
)
def test_wrong_lines_are_named_before_anything_is_computed(line, message, tmp_path, records, capsys):
    first = {"version": 1, "source_id": "0", "name": "first"}
    text = line if isinstance(line, str) else json.dumps(line)
    path = tmp_path / "scripts.jsonl"
    path.write_bytes("\n".join([json.dumps(first), text, ""]).encode("latin-1"))
    assert main(["batch", str(records), str(path), str(tmp_path / "out"), "--model", "is not even read"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: 1 of 2 scripts cannot be run:\n  {path} {message}")
    assert not (tmp_path / "out").exists()


def test_lines_are_read_by_their_position(tmp_path):
    path = tmp_path / "scripts.jsonl"
    lines = [json.dumps({"version": 1, "source_id": "ü", "seed": seed}, ensure_ascii=False) for seed in range(3)]
    path.write_bytes(f"\n{lines[0]}\r\n   \n{lines[1]}\n{lines[2]}".encode())
    scripts = ScriptLines(path, {"ü"})
    assert len(scripts) == 3
    assert [(line.name, line.script.seed) for line in scripts.read([2, 0, 1])] == [
        ("0000005", 2),
        ("0000002", 0),
        ("0000004", 1),
    ]
    assert scripts.where(1) == f"{path} line 4"


def test_all_wrong_lines_are_counted_and_the_first_named(tmp_path):
    path = write_lines(tmp_path / "scripts.jsonl", [{"version": 2, "source_id": "0"}] * 30)
    with pytest.raises(ValueError, match=r"30 of 30 scripts cannot be run:\n") as error:
        ScriptLines(path, {"0"})
    assert str(error.value).count("version: expected 1") == 20
    assert str(error.value).endswith("... and 10 more")
    with pytest.raises(ValueError, match="contains no script"):
        ScriptLines(write_lines(path, []), {})


def test_finds_records_by_source_id_which_must_be_unique(tmp_path, records):
    index = RecordIndex(records)
    assert set(index) == {*map(str, range(24)), *map(str, range(100, 108))}
    np.testing.assert_array_equal(index["104"].image, record(104).image)
    with pytest.raises(ValueError, match="contains no records"):
        RecordIndex(tmp_path)
    write_tfrecord(shard_path(tmp_path, "train", 0, 1), [record(i).to_example() for i in (3, 4, 3)])
    with pytest.raises(ValueError, match=r"source_id '3' must name one record, but names two: .* record 0 and .* 2"):
        RecordIndex(tmp_path)


def test_records_of_another_size_are_refused_at_once(tmp_path, seven, model, capsys):
    write_tfrecord(
        shard_path(tmp_path, "train", 0, 1), [record(i, image_size=24).to_example() for i in range(100, 108)]
    )
    assert main(["batch", str(tmp_path), str(seven), str(tmp_path / "out"), "--model", model]) == 1
    assert "the model takes images of 16 x 16 px in 4 elements, but record '100' has" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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
