"""The table of the scenes benchmark, on a results folder with known scores."""

import re
from pathlib import Path

import numpy as np
import pytest

from elements_jax.evaluation import results
from elements_jax.evaluation.results import Case
from elements_jax.evaluation.scenes.scores import as_text, ordering, rows, score, write

CASES = [
    Case("0-variation", "variation", "make it blue"),
    Case("1-move", "move", "move it"),
    Case("2-move", "move", ""),
]
GREY = np.full((16, 16, 3), 100, np.uint8)


def grey(value: int) -> np.ndarray:
    return np.full_like(GREY, value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results with errors of 51 in the input, of 0, 25 and 102 by `mine`, and of 51 by pixel editing."""
    results.write_cases(tmp_path, CASES)
    half = np.zeros((16, 16), bool)
    half[:, :8] = True
    for case, off in zip(CASES, (0, 25, 102), strict=True):
        results.save(tmp_path, "truth", case, GREY)
        results.save(tmp_path, "region", case, half)
        for method, value in (("input", 151), ("pixels", 151), ("mine", 100 + off)):
            results.save(tmp_path, method, case, np.where(half[..., None], grey(value), GREY))
    return tmp_path


def test_scores_cover_the_region_and_the_image(folder):
    scores = score(folder, None)["edits"]
    assert list(scores) == ["move", "variation", "all"]
    assert [scores[kind]["count"] for kind in scores] == [2, 1, 3]
    unedited, mine = (scores["move"]["methods"][name] for name in ("unedited", "mine"))
    assert unedited["region"]["psnr"] == pytest.approx(-20 * np.log10(51 / 255), abs=1e-4)
    assert unedited["picture"]["psnr"] == pytest.approx(-20 * np.log10(51 / 255) + 10 * np.log10(2), abs=1e-4)
    of_each = [-20 * np.log10(25 / 255), -20 * np.log10(102 / 255)]
    assert mine["region"]["psnr"] == pytest.approx(np.mean(of_each), abs=1e-4)
    assert scores["variation"]["methods"]["mine"]["region"]["psnr"] == pytest.approx(100)
    flat = scores["all"]["methods"]["flat"]["region"]["psnr"]
    assert flat == pytest.approx(-20 * np.log10(25.5 / 255), abs=1e-4)  # half of the input is off by 51


def test_won_is_nearer_than_both_the_input_and_pixel_editing(folder):
    scores = score(folder, None)["edits"]
    won = {kind: scores[kind]["methods"]["mine"]["won"] for kind in scores}
    assert won == {"move": 0.5, "variation": 1.0, "all": pytest.approx(2 / 3)}
    assert scores["all"]["methods"]["pixels"]["won"] == 0


def test_the_table_and_the_orderings_say_the_same(folder):
    scores = score(folder, None)
    head, lines = rows(scores)
    assert head[:5] == ["edit", "count", "method", "psnr region", "ssim region"]
    assert len(lines) == 3 * 4
    assert all(len(line) == len(head) for line in lines)
    best = max((line for line in lines if line[0] == "variation"), key=lambda line: float(line[3]))[2]
    assert f"variation, psnr: {best} ~ " in "\n".join(ordering(scores))  # one image says nothing of others
    assert as_text(scores).count("\n") == len(lines) + 1 + len(ordering(scores))
    assert write(folder, scores).read_text().startswith("{")


def test_intervals_resample_images_and_mark_what_may_be_chance(tmp_path):
    cases = [Case(f"{i}-{kind}", kind, "", str(i)) for i in range(20) for kind in ("move", "delete")]
    results.write_cases(tmp_path, cases)
    rng = np.random.default_rng(0)
    for case in cases:
        shared = 10 * (int(case.source_id) % 3)
        for part, value in (
            ("truth", 100),
            ("input", 160),
            ("good", 102 + shared),
            ("twin", 102 + shared),
            ("bad", 130 + shared),
        ):
            pixels = grey(value) + rng.integers(0, 2, GREY.shape).astype(np.uint8)
            results.save(tmp_path, part, case, pixels)
        results.save(tmp_path, "region", case, np.ones((16, 16), bool))
    found = score(tmp_path, None)
    order = ordering(found)
    assert order[0].startswith("move, psnr: ")
    assert re.fullmatch(r"all, psnr: (good ~ twin|twin ~ good) > bad > .*", order[4])
    low, high = found["edits"]["all"]["methods"]["good"]["interval"]["psnr"]
    values = [psnr_of(tmp_path, case) for case in cases]
    error = 1.96 * np.std(values, ddof=1) / 20**0.5  # two edits of an image are nearly equal: 20 values, not 40
    assert (low + high) / 2 == pytest.approx(np.mean(values), abs=0.1 * error)
    assert (high - low) / 2 == pytest.approx(error, rel=0.15)
    row = next(row for row in rows(found)[1] if row[0] == "all" and row[2] == "good")
    assert row[3] == f"{np.mean(values):.2f} ±{(high - low) / 2:.2f}"


def psnr_of(folder: Path, case: Case) -> float:
    error = results.picture(folder, "good", case) / 255 - results.picture(folder, "truth", case) / 255
    return float(-10 * np.log10((error**2).mean()))


def test_a_folder_without_truths_is_refused(folder):
    for case in CASES:
        results.path_of(folder, "truth", case).unlink()
    with pytest.raises(ValueError, match="no case has a truth"):
        score(folder, None)
