"""Batch inference finds scripts and records, and names those that cannot be run."""

import json

import numpy as np
import pytest

from elements_jax.cli.main import main
from elements_jax.data.index import RecordIndex
from elements_jax.data.tfrecord import shard_path, write_tfrecord
from elements_jax.editing.script_list import ScriptLines
from tests.helpers.pipeline.batch import (
    contents,
    example_lines,
    manifest,
    pictures,
    write_lines,
)
from tests.helpers.records import record


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
