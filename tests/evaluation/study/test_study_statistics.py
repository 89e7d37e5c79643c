"""The analysis of a user study: statistics, raters who fail checks, and bad files of answers."""

import dataclasses
import random
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given

from elements_jax.evaluation.study import analysis
from elements_jax.evaluation.study.analysis import analyse, binomial_test, clustered_interval, wilson
from elements_jax.evaluation.study.answers import Key, read_answers
from elements_jax.evaluation.study.plan import Pair, plan
from tests.evaluation.study.raters import attentive, cases, sheet, written


def key_of(forms: list[list[Pair]], ours: str = "ours") -> Key:
    names = tuple(tuple(pair.name(0) for pair in form) for form in forms)
    return Key("study", ours, names, {pair.name(0): pair for form in forms for pair in form})


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_statistics_agree_with_scipy(pair):
    successes, count = pair
    reference = scipy.stats.binomtest(successes, count)
    interval = reference.proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(successes, count), (interval.low, interval.high), atol=1e-12)
    np.testing.assert_allclose(binomial_test(successes, count), reference.pvalue, atol=1e-12)


def test_only_the_clustered_interval_covers_when_raters_differ():
    rng = np.random.default_rng(0)
    covered = Counter()
    for _ in range(60):
        chance = 0.5 + rng.choice([-0.2, 0.2], (12, 1)) + rng.choice([-0.25, 0.25], (1, 12))
        rater, case = (each.ravel() for each in np.mgrid[:12, :12])
        ours = (rng.random(chance.shape) < chance).ravel()
        low, high = clustered_interval(ours, rater, case, rng)
        covered["clustered"] += low <= 0.5 <= high
        low, high = wilson(int(ours.sum()), len(ours))
        covered["wilson"] += low <= 0.5 <= high
    assert covered["clustered"] >= 54  # of 60, at 95 %
    assert covered["wilson"] <= 48


def test_the_clustered_interval_does_not_depend_on_chunking(monkeypatch):
    rater, case = np.mgrid[:5, :8].reshape(2, -1)
    ours = np.random.default_rng(0).random(40) < 0.7
    whole = clustered_interval(ours, rater, case, np.random.default_rng(1))
    monkeypatch.setattr(analysis, "AT_ONCE", 40 * 100)
    parts = clustered_interval(ours, rater, case, np.random.default_rng(1))
    np.testing.assert_allclose(whole, parts, atol=0.03)


def test_a_planted_preference_is_recovered():
    forms = plan(cases(24), "ours", ["a", "b", "c"], lambda *_: True, length=40, checks=4, seed=0)
    key, rng = key_of(forms), random.Random(0)
    planted = {"a": 0.8, "b": 0.5, "c": 0.25}

    def choose(pair: Pair) -> str:
        share = planted.get(pair.right if pair.left == "ours" else pair.left, 1.0)
        return attentive(rng, share)(pair)

    sheets = [sheet(key, 1 + i % len(forms), f"rater {i}", choose) for i in range(60)]
    found = {each.baseline: each for each in analyse(key, sheets).preferences if each.kind == "all"}
    assert sum(each.judgments for each in found.values()) == 60 * 24
    for name, share in planted.items():
        assert found[name].judgments == 480
        assert found[name].clustered[0] <= share <= found[name].clustered[1], name
        assert abs(found[name].share - share) < 0.06
    assert found["a"].p < 1e-6 > found["c"].p
    assert found["b"].p > 0.01


def test_kinds_of_edits_are_analysed_separately():
    forms = plan(cases(20), "ours", ["a"], lambda *_: True, length=40, checks=0, seed=0)
    key = key_of(forms)
    likes_moves = lambda pair: "left" if (pair.left == "ours") == (pair.kind == "move") else "right"  # noqa: E731
    result = analyse(key, [sheet(key, form, "r", likes_moves) for form in (1, 2)])
    assert {each.kind: each.share for each in result.preferences} == {"all": 0.5, "move": 1.0, "delete": 0.0}


def test_checks_exclude_raters_who_always_pick_one_side():
    forms = plan(cases(24), "ours", ["a", "b"], lambda *_: True, length=40, checks=4, seed=0)
    key = key_of(forms)
    good = [sheet(key, form, f"good {form}", attentive(random.Random(form), 0.9)) for form in range(1, 5)]
    lazy = [sheet(key, form, f"lazy {form}", lambda _: "left") for form in range(1, 5)]
    result = analyse(key, good + lazy)
    assert [(each.worker, each.failed, each.checks) for each in result.excluded] == [
        (f"lazy {form}", 2, 4) for form in range(1, 5)
    ]
    assert result.raters == 4
    assert result.preferences == analyse(key, good).preferences

    kept = analyse(key, lazy, failures=4)
    assert kept.chosen_left == 1
    assert [each.share for each in kept.preferences if each.kind == "all"] == [0.5, 0.5]


def test_a_rater_who_fails_one_form_is_excluded_from_all():
    forms = plan(cases(8), "ours", ["a"], lambda *_: True, length=40, checks=2, seed=0)
    key = key_of(forms)
    sheets = [sheet(key, 1, "r", attentive(random.Random(0), 1)), sheet(key, 2, "r", lambda _: "left")]
    with pytest.raises(ValueError, match="no judgments: 2 files of answers, and 1 raters failed"):
        analyse(key, sheets)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": 2}, "version: input should be 1"),
        ({"study": "other"}, "study: expected the key's study, got other"),
        ({"form": 0}, "form: input should be greater"),
        ({"form": 9}, "form: expected 1 to 2, got 9"),
        ({"worker": ""}, "worker: string should have at least 1"),
        ({"answers": []}, "answers: 8 of the 8 pairs of form 1 are not answered"),
        (
            {"answers": [{"pair": "x", "choice": "left", "seconds": 1}]},
            r"answers\[0\]\.pair: 'x' is not a pair of form 1",
        ),
        (
            {"answers": [{"pair": "x", "choice": "up", "seconds": 1}]},
            r"answers\[0\]\.choice: input should be 'left' or",
        ),
        ({"answers": [{"pair": "x", "choice": "left", "seconds": -1}]}, r"answers\[0\]\.seconds: input should be"),
        ({"answers": [{"pair": "x", "choice": "left"}]}, r"answers\[0\]\.seconds: field required"),
        ({"rating": 3}, "rating: unexpected keyword"),
    ],
)
def test_bad_answers_are_named_by_file_and_field(tmp_path, change, problem):
    key = key_of(plan(cases(8), "ours", ["a"], lambda *_: True, length=40, checks=0, seed=0))
    path = written(tmp_path / "bad.json", sheet(key, 1, "r", lambda _: "left"), **change)
    with pytest.raises(ValueError, match=rf"bad\.json: {problem}"):
        read_answers([path], key)


def test_answers_given_twice_are_refused(tmp_path):
    key = key_of(plan(cases(8), "ours", ["a"], lambda *_: True, length=40, checks=0, seed=0))
    first = sheet(key, 1, "r", lambda _: "left")
    paths = [written(tmp_path / name, first) for name in ("one.json", "two.json")]
    with pytest.raises(ValueError, match=r"two\.json: worker: 'r' has already answered form 1 in .*one\.json"):
        read_answers(paths, key)
    repeated = dataclasses.replace(first, answers=first.answers + first.answers[:1])
    with pytest.raises(ValueError, match=r"three\.json: answers: pair .* is answered more than once"):
        read_answers([written(tmp_path / "three.json", repeated)], key)
