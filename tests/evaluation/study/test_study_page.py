"""The user study's forms, its page, which keeps the methods secret, and its commands."""

import dataclasses
import json
import random
import re
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from elements_jax.cli.evaluation.study import main
from elements_jax.evaluation import results
from elements_jax.evaluation.results import Case
from elements_jax.evaluation.study.answers import read_key
from elements_jax.evaluation.study.make import make, scramble
from elements_jax.evaluation.study.plan import plan
from tests.evaluation.study.raters import attentive, cases, sheet, written
from tests.helpers.scene_results import METHODS, write_scene_results

SETTINGS = {"ours": "ours", "baselines": (), "length": 40, "checks": 4, "seed": 0, "finish": ""}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results")
    write_scene_results(path)
    return path


@pytest.fixture(scope="session")
def study(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "study"
    make(folder, out, **SETTINGS)
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(4, 30), st.integers(1, 4), st.integers(3, 40), st.sampled_from([0, 2, 4]), st.integers(0, 99))
def test_forms_are_balanced(count, baselines, length, checks, seed):
    names = [f"baseline-{i}" for i in range(baselines)]
    forms = plan(cases(count), "ours", names, lambda *_: True, length=length, checks=checks, seed=seed)
    shown = Counter()
    for form in forms:
        compared = [pair for pair in form if not pair.check]
        assert len({pair.case for pair in compared}) == len(compared) <= length, "a case once in a form"
        sides = Counter(pair.check for pair in form if pair.check)
        assert sides["left"] == sides["right"] == checks / 2
        for name in names:
            left = sum(pair.left == name for pair in compared)
            assert abs(left - sum(pair.right == name for pair in compared)) <= 1
        shown.update((pair.case, pair.left, pair.right) for pair in compared)
    assert shown == {
        (case.name, *sides): 1 for case in cases(count) for name in names for sides in (("ours", name), (name, "ours"))
    }, "every pair in both orders, equally often"


def test_a_pair_with_a_missing_picture_is_left_out():
    def shown(method: str, case: Case) -> bool:
        return not (method == "a" and case.name < "0003")

    forms = plan(cases(6), "ours", ["a", "b"], shown, length=40, checks=0, seed=1)
    asked = {(pair.case, pair.left, pair.right) for form in forms for pair in form}
    assert len(asked) == 2 * (3 + 6)
    assert all(case >= "0003" for case, *sides in asked if "a" in sides)


def test_the_page_does_not_reveal_the_methods(folder, study):
    key = read_key(study / "key.json")
    page = study / "page"
    assert not (page / "key.json").exists()
    told = (page / "index.html").read_bytes() + b"".join(map(bytes, map(Path.read_bytes, page.glob("pictures/*"))))
    told += " ".join(path.name for path in page.rglob("*")).encode()
    for word in (*METHODS, "scrambled", "unedited", "truth", *(case.name for case in results.read_cases(folder))):
        assert not re.search(rb"\b%b\b" % word.encode(), told), word
    used = {pair.left for pair in key.pairs.values()} | {pair.right for pair in key.pairs.values()}
    assert used == {*METHODS, "truth", "scrambled", "unedited"}


def test_text_in_a_results_picture_does_not_reach_the_page(tmp_path):
    write_scene_results(tmp_path / "results", 1)
    case = results.read_cases(tmp_path / "results")[0]
    path = results.path_of(tmp_path / "results", "ours", case)
    chunks = PngInfo()
    chunks.add_text("script", "made by this project")
    Image.fromarray(results.picture(tmp_path / "results", "ours", case)).save(path, pnginfo=chunks)
    make(tmp_path / "results", tmp_path / "study", **{**SETTINGS, "checks": 2})
    pictures = list((tmp_path / "study" / "page" / "pictures").iterdir())
    assert pictures
    assert not any(b"made by" in picture.read_bytes() for picture in pictures)


def test_each_trial_shows_the_pictures_that_the_key_says(folder, study):
    key = read_key(study / "key.json")
    page = study / "page"
    index = (page / "index.html").read_text()
    told = json.loads(index.partition('type="application/json">')[2].partition("</script>")[0])
    by_name = {case.name: case for case in results.read_cases(folder)}
    assert told["study"] == key.study
    for form, trials in zip(key.forms, told["forms"], strict=True):
        assert form == tuple(trial["pair"] for trial in trials)
        for trial in trials:
            pair = key.pairs[trial["pair"]]
            case = by_name[pair.case]
            assert trial["instruction"] == case.instruction
            for side in ("left", "right"):
                with Image.open(page / "pictures" / trial[side]) as picture:
                    shown = np.asarray(picture)
                method = getattr(pair, side)
                original = results.picture(folder, "input" if method in ("unedited", "scrambled") else method, case)
                np.testing.assert_array_equal(shown, scramble(original, 0) if method == "scrambled" else original)


def test_pictures_of_another_size_are_brought_to_the_inputs(tmp_path):
    write_scene_results(tmp_path / "results", 1)
    for case in results.read_cases(tmp_path / "results"):
        results.save(tmp_path / "results", "pixels", case, np.zeros((100, 80, 3), np.uint8))
    make(tmp_path / "results", tmp_path / "study", **{**SETTINGS, "checks": 0})
    sizes = set()
    for path in (tmp_path / "study" / "page" / "pictures").iterdir():
        with Image.open(path) as picture:
            sizes.add(picture.size)
    assert sizes == {(64, 64), (512, 512)}  # results; drawings


def test_the_seed_determines_the_study(folder, study, tmp_path):
    make(folder, tmp_path / "again", **SETTINGS)
    other = make(folder, tmp_path / "other", **{**SETTINGS, "seed": 1})
    for path in sorted(study.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(study)).read_bytes()
    assert other.study != read_key(study / "key.json").study


def test_an_instruction_cannot_leave_its_element(tmp_path):
    cases = write_scene_results(tmp_path / "results", 1)
    results.write_cases(tmp_path / "results", [dataclasses.replace(case, instruction="</script><b>") for case in cases])
    make(tmp_path / "results", tmp_path / "study", **{**SETTINGS, "checks": 0})
    assert "</script><b>" not in (tmp_path / "study" / "page" / "index.html").read_text()


@given(st.integers(4, 33), st.integers(4, 33), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_scrambling_keeps_the_pixels_and_moves_every_tile(height, width, seed):
    image = np.arange(height * width * 3).reshape(height, width, 3).astype(np.uint8)
    result = scramble(image, seed)
    np.testing.assert_array_equal(np.sort(result.ravel()), np.sort(image.ravel()))
    tile = height // 4, width // 4
    for y in range(4):
        for x in range(4):
            at = slice(y * tile[0], (y + 1) * tile[0]), slice(x * tile[1], (x + 1) * tile[1])
            positions = np.arange(height * width).reshape(height, width, 1).repeat(3, 2)
            assert not np.array_equal(scramble_positions(positions, seed)[at], positions[at])


def scramble_positions(positions: np.ndarray, seed: int) -> np.ndarray:
    low, high = (scramble((positions >> shift & 255).astype(np.uint8), seed).astype(int) for shift in (0, 8))
    return low + (high << 8)


def test_the_commands_go_from_results_to_a_table(folder, tmp_path, capsys):
    out = tmp_path / "study"
    assert main(["make", str(folder), str(out), "--baselines", "pixels", "--checks", "2", "--finish", "Mail it."]) == 0
    key = read_key(out / "key.json")
    files = [
        str(written(tmp_path / f"{i}.json", sheet(key, i, f"r{i}", attentive(random.Random(i), 0.9)))) for i in (1, 2)
    ]
    files.append(str(written(tmp_path / "lazy.json", sheet(key, 1, "lazy", lambda _: "right"))))
    assert main(["analyse", str(out / "key.json"), *files]) == 0
    printed = capsys.readouterr().out
    assert "2 raters, 24 judgments" in printed
    assert "lazy: failed 1 of 2 checks" in printed
    report = json.loads((out / "analysis.json").read_text())
    assert report["study"] == key.study
    assert [each["kind"] for each in report["preferences"]][:2] == ["all", "delete"]
    assert report["preferences"][0]["judgments"] == 24


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--ours", "mine"], "no images of 'mine'; it has ours, pixels, sd-inpaint, sdedit-0.5"),
        (["--baselines", "ours"], "'ours' cannot be compared with itself"),
        (["--checks", "3"], "attention checks must be an even number, at most the number of cases (12), got 3"),
        (["--length", "0"], "--length must be from 1 to 10000, got 0"),
    ],
)
def test_an_invalid_study_is_one_line_on_stderr_and_no_files(folder, tmp_path, capsys, arguments, problem):
    assert main(["make", str(folder), str(tmp_path / "out"), *arguments]) == 1
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_study_is_never_overwritten(folder, study, capsys):
    before = (study / "key.json").read_bytes()
    assert main(["make", str(folder), str(study), "--seed", "5"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (study / "key.json").read_bytes() == before


def test_a_damaged_picture_leaves_no_half_study(tmp_path, capsys):
    cases = write_scene_results(tmp_path / "results", 2)
    results.path_of(tmp_path / "results", "pixels", cases[-1]).write_bytes(b"no picture")
    assert main(["make", str(tmp_path / "results"), str(tmp_path / "out")]) == 1
    assert f"pixels/{cases[-1].name}.png: not a readable image" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]
