"""Public benchmarks: small folders in their layouts are edited as required, and written as their scorers read them."""

import json
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from elements_jax.cli.evaluation import benchmark
from elements_jax.cli.evaluation.benchmark import main
from elements_jax.data.record import DROPPED
from elements_jax.editing.script import Move, Resize
from elements_jax.evaluation.public.datasets import (
    Motion,
    bounds,
    edits_of,
    geobench_2d,
    motion_onto,
    objmove_a,
    read_mask,
    under,
    within,
)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def mask_of(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[rows, columns] = 255
    return mask


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def objmove(tmp_path: Path) -> Path:
    """Five samples of 40 x 30 pixels: an object in the upper left quarter that goes to the lower right one."""
    folder = tmp_path / "ObjMove-A"
    for number in range(1, 6):
        sample = folder / f"real_{number:03}"
        save(sample / "src_input.jpg", photograph(30, 40))
        save(sample / "tar_input.jpg", photograph(30, 40))
        save(sample / "src_mask_hr.png", mask_of(30, 40, slice(3, 15), slice(2, 20)))
        save(sample / "tar_box_mask.png", mask_of(30, 40, slice(18, 30), slice(22, 40)))
    return folder


PARAMETERS = {
    "0": [128, -64, 0, 0, 0, 0, 1, 1, 1],  # a move
    "1": [0, 0, 0, 0, 0, 0, 0.5, 0.5, 0.5],  # a resize
    "2": [0, 0, 0, 0, 0, 45, 1, 1, 1],  # a rotation
}


@pytest.fixture
def geobench(tmp_path: Path) -> Path:
    """One photograph with one object and three edits."""
    folder = tmp_path / "GeoBenchMeta"
    save(folder / "Geo-Bench-2D/source_img/7.png", photograph(64, 64))
    save(folder / "Geo-Bench-2D/source_mask/7/0.png", mask_of(64, 64, slice(0, 30), slice(0, 30)))
    fields = {
        "ori_img_path": "Geo-Bench-2D/source_img/7.png",
        "ori_mask_path": "Geo-Bench-2D/source_mask/7/0.png",
        "tgt_mask_path": "Geo-Bench-2D/target_mask/7/0/0.png",
        "edit_prompt": "slightly move the dog",
        "obj_label": "dog",
    }
    instance = {edit: {**fields, "edit_param": numbers} for edit, numbers in PARAMETERS.items()}
    annotation = {"7": {"instances": {"0": instance}, "4v_caption": "a dog"}}
    (folder / "annotation_2d.json").write_text(json.dumps(annotation))
    return folder


def test_objmove_a_moves_the_object_into_its_box(objmove):
    tasks = objmove_a(objmove)
    assert [task.name for task in tasks] == [f"real_{number:03}" for number in range(1, 6)]
    motion = tasks[0].motion(read_mask(tasks[0].mask))
    np.testing.assert_allclose(motion.scale, (1, 1))
    np.testing.assert_allclose(motion.shift, (20 / 40, 15 / 30))
    np.testing.assert_allclose(motion.anchor, (11 / 40, 9 / 30))


def test_geobench_gives_moves_and_resizes_and_counts_the_rest(geobench):
    tasks, others = geobench_2d(geobench)
    assert others == 1
    move, resize = (task.motion(read_mask(task.mask)) for task in tasks)
    assert (move.scale, move.shift) == ((1, 1), (0.25, -0.125))
    assert (resize.scale, resize.shift, resize.anchor) == ((0.5, 0.5), (0, 0), (15 / 64, 15 / 64))


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.3, 1.8), st.integers(-8, 8), st.integers(-8, 8))
def test_a_motion_onto_a_box_of_its_own_shape_fills_it(height, width, factor, dx, dy):
    mask = np.zeros((64, 48), bool)
    mask[20 : 20 + height, 15 : 15 + width] = True
    target = np.zeros((64, 48), bool)
    target[20 + dy : 20 + dy + 2 * height, 15 + dx : 15 + dx + 2 * width] = True
    motion = motion_onto(mask, target)
    np.testing.assert_allclose(motion.scale, (2, 2))
    (x, y), (new_x, new_y) = motion.anchor, bounds(target)[0]
    np.testing.assert_allclose(motion.shift, (new_x - x, new_y - y))


POINTS = st.tuples(st.floats(0, 1), st.floats(0, 1))


@given(st.floats(0.2, 3), POINTS, POINTS, POINTS)
def test_the_edits_carry_a_point_where_the_motion_carries_it(factor, anchor, to, point):
    box, size = (0, 8, 64, 56), 64  # a 4:3 photograph, with margins above and below
    shift = to[0] - anchor[0], to[1] - anchor[1]
    motion = Motion((factor, factor), shift, anchor)
    expected = [a + factor * (p - a) + s for a, p, s in zip(anchor, point, shift, strict=True)]
    at = np.array(within(point, box, size))
    for edit in edits_of(motion, (3,), box, size):
        if isinstance(edit, Move):
            at = at + edit.by
        else:
            at = np.array(edit.anchor) + np.multiply(edit.scale, at - edit.anchor)
    np.testing.assert_allclose(at, within((expected[0], expected[1]), box, size), atol=1e-9)


def test_shrinking_comes_first_and_growing_last():
    box = (0, 0, 64, 64)
    kinds = lambda scale, shift=(0.1, 0.0): [  # noqa: E731
        type(edit) for edit in edits_of(Motion((float(scale), float(scale)), shift, (0.5, 0.5)), (1,), box, 64)
    ]
    assert kinds(0.5) == [Resize, Move]
    assert kinds(2.0) == [Move, Resize]
    assert kinds(1.0) == [Move]
    assert kinds(2.0, (0.0, 0.0)) == [Resize]


def test_selects_elements_with_half_their_pixels_under_the_mask():
    label_map = np.full((8, 8), DROPPED, np.uint16)
    label_map[1:7] = (np.arange(8) // 2)[None]  # four columns of elements, and margins above and below
    box = (0, 1, 8, 7)
    assert under(mask_of(60, 80, slice(0, 60), slice(0, 40)) > 0, label_map, box) == (0, 1)
    assert under(mask_of(60, 80, slice(0, 60), slice(0, 30)) > 0, label_map, box) == (0, 1)
    assert under(mask_of(60, 80, slice(0, 20), slice(40, 80)) > 0, label_map, box) == (2,)  # less than half of any
    label_map[:] = DROPPED
    with pytest.raises(ValueError, match="is on no element"):
        under(np.ones((60, 80), bool), label_map, box)


def test_objmove_a_is_done_as_its_scorer_reads_it(objmove, tmp_path, model_folder, capsys, monkeypatch):
    """A fake decoder shows the label map of the edited elements; the next test has the real one."""
    batches = []

    def label_maps(jobs, editing, batch_size):
        batches.append((len(jobs), batch_size))
        maps = np.stack([np.asarray(job.edited.canvas.label_map) for job in jobs])
        return np.repeat(60 * maps[..., None], 3, axis=-1).astype(np.uint8)

    monkeypatch.setattr(benchmark, "decode", label_maps)
    out = tmp_path / "results"
    out.mkdir()
    (out / "real_001_result.png").write_bytes(b"done before")
    arguments = ["objmove-a", str(objmove), str(out), "--model", str(model_folder), "--segmenter", "grid"]
    assert main([*arguments, "--batch-size", "2", "--limit", "4"]) == 0
    assert "3 results written" in capsys.readouterr().out
    assert batches == [(2, 2), (1, 2)]
    assert sorted(path.name for path in out.glob("*.png")) == [f"real_{n:03}_result.png" for n in (1, 2, 3, 4)]
    assert (out / "real_001_result.png").read_bytes() == b"done before"
    for number in (2, 3, 4):
        with Image.open(out / f"real_{number:03}_result.png") as picture:
            assert (picture.size, picture.mode) == ((40, 30), "RGB")
            shown = np.asarray(picture)[..., 0]
        assert (shown[19:, 24:] < 20).all(), "the first of four elements lies in the lower right quarter"
        assert (shown[:11, :16] > 220).all(), "and nothing where it was"
    assert main([*arguments, "--seed", "1"]) == 1
    assert "contains results made with other settings (seed)" in capsys.readouterr().err


def test_geobench_2d_is_done_as_its_scorer_reads_it(geobench, tmp_path, model_folder, capsys):
    out = tmp_path / "results"
    arguments = ["--model", str(model_folder), "--segmenter", "grid", "--preserve", "--batch-size", "3", "--steps", "1"]
    assert main(["geobench-2d", str(geobench), str(out), *arguments]) == 0
    assert "2 moves and resizes; 1 other edits are skipped" in capsys.readouterr().out
    report = json.loads((out / "generated_results_elements_2d.json").read_text())
    original = json.loads((geobench / "annotation_2d.json").read_text())
    cases = report["7"]["instances"]["0"]
    assert list(cases) == ["0", "1"]
    for edit, fields in cases.items():
        path = Path(fields.pop("gen_img_path"))
        assert path.parts[-4:] == ("Gen_results_elements", "7", "0", f"{edit}.png")
        assert fields == original["7"]["instances"]["0"][edit]
        with Image.open(path) as picture:
            assert picture.size == (512, 512)


def test_the_annotation_has_the_name_of_their_code_too(geobench):
    (geobench / "annotation_2d.json").rename(geobench / "annotations_2d.json")
    assert len(geobench_2d(geobench)[0]) == 2


def test_names_impossible_cases_and_runs_the_others(objmove, tmp_path, model_folder, capsys):
    save(objmove / "real_001" / "src_mask_hr.png", mask_of(30, 40, slice(0), slice(0)))
    save(objmove / "real_002" / "src_mask_hr.png", mask_of(40, 30, slice(9), slice(9)))
    (objmove / "real_003" / "tar_box_mask.png").write_bytes(b"no picture")
    arguments = ["--model", str(model_folder), "--segmenter", "grid"]
    assert main(["objmove-a", str(objmove), str(tmp_path / "out"), *arguments, "--limit", "3"]) == 1
    said = capsys.readouterr()
    assert "real_001/src_mask_hr.png: expected white pixels on the object" in said.out
    assert "real_002/src_mask_hr.png: 30 x 40 does not match the photograph's 40 x 30" in said.out
    assert "real_003/tar_box_mask.png: not a readable mask" in said.out
    assert "all 3 edits failed" in said.err
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"edit_param": [1, 2]}, r"7\.instances\.0\.0\.edit_param: expected nine numbers, got \[1, 2\]"),
        ({"edit_param": [0] * 6 + [0, 1, 1]}, r"7\.instances\.0\.0\.edit_param: expected factors above 0"),
        ({"ori_img_path": 3}, r"7\.instances\.0\.0\.ori_img_path: expected a path"),
    ],
)
def test_a_bad_annotation_is_named(geobench, change, problem):
    path = geobench / "annotation_2d.json"
    annotation = json.loads(path.read_text())
    annotation["7"]["instances"]["0"]["0"].update(change)
    path.write_text(json.dumps(annotation))
    with pytest.raises(ValueError, match=rf"annotation_2d\.json: {problem}"):
        geobench_2d(geobench)
    path.write_text(json.dumps({"7": []}))
    with pytest.raises(ValueError, match=r"annotation_2d\.json: 7: expected an object with an object instances"):
        geobench_2d(geobench)


def test_errors_name_a_folder_that_is_not_a_benchmark(tmp_path):
    with pytest.raises(ValueError, match="expected ObjMove-A"):
        objmove_a(tmp_path)
    with pytest.raises(ValueError, match=r"expected GeoBenchMeta, with annotation_2d\.json or annotations_2d\.json"):
        geobench_2d(tmp_path)
