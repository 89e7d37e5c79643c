"""Cases, raters and their files of answers, for tests of the user study."""

import dataclasses
import json
import random
from pathlib import Path

from elements_jax.evaluation.results import Case
from elements_jax.evaluation.study.answers import Answer, Answers, Key
from elements_jax.evaluation.study.plan import Pair


def cases(count: int) -> list[Case]:
    return [Case(f"{i:04}", ("move", "delete")[i % 2], f"edit {i}") for i in range(count)]


def sheet(key: Key, form: int, worker: str, choose) -> Answers:
    """Answer a form: `choose` returns a side for a pair."""
    answers = tuple(Answer(name, choose(key.pairs[name]), 2.5) for name in key.forms[form - 1])
    return Answers(1, key.study, form, worker, "", "", answers)


def attentive(rng: random.Random, share: float, bias: dict[str, float] | None = None):
    """Return a rater who passes checks and prefers ours with some probability, by case if `bias` says so."""

    def choose(pair: Pair) -> str:
        if pair.check:
            return pair.check
        prefers_ours = rng.random() < share + (bias or {}).get(pair.case, 0)
        return "left" if (pair.left == "ours") == prefers_ours else "right"

    return choose


def written(path: Path, sheet: Answers, **changes) -> Path:
    path.write_text(json.dumps({**dataclasses.asdict(sheet), **changes}))
    return path
