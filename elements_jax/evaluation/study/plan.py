"""Who sees which pair, and on which side: the forms of a study.

A form is what one rater goes through. It shows every case once, against one of the baselines, so that nobody learns
from one pair what to say of the next; over all forms every case meets every baseline. Forms come in twos that differ in
sides and order alone: where both are answered equally often, a liking for one side cancels in every pair.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from elements_jax.evaluation.results import Case

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
UNEDITED, SCRAMBLED = "unedited", "scrambled"
"""What an attention check shows on its wrong side: the input, or its tiles in another order."""


@dataclass(frozen=True)
class Pair:
    """One case by two methods. An attention check has no second method, but `UNEDITED` or `SCRAMBLED` there."""

    case: str
    kind: str
    left: str
    right: str
    check: Side | None = None
    """The side that anyone who looks will take; None if the pair is not an attention check."""

    @property
    def mirrored(self) -> "Pair":
        """With its sides swapped."""
        check = None if self.check is None else SIDES[self.check == "left"]
        return replace(self, left=self.right, right=self.left, check=check)

    def name(self, seed: int) -> str:
        """What the page calls it; tells nothing of the methods."""
        return hashlib.sha256(f"{seed} {self.case} {self.left} {self.right}".encode()).hexdigest()[:12]


Form = list[Pair]
Shown = Callable[[str, Case], bool]
"""Whether a method has a picture of a case."""


def plan(
    cases: Sequence[Case],
    ours: str,
    baselines: Sequence[str],
    shown: Shown,
    *,
    length: int,
    checks: int,
    seed: int,
) -> list[Form]:
    """The forms of a study.

    Args:
        shown: tells which pictures there are; where one of a pair is missing, the pair is left out.
        length: the most cases of a form; more are split evenly among several.
        checks: attention checks in a form, half of them right on either side.

    Raises ValueError where there is nothing to compare, or too little for the checks.
    """
    rng = random.Random(seed)
    have = [case for case in cases if shown(ours, case)]
    for baseline in baselines:
        if not any(shown(baseline, case) for case in have):
            raise ValueError(f"no case has both a picture by {ours!r} and one by {baseline!r}")
    if not baselines or not have:
        raise ValueError(f"nothing to compare: no pictures by {ours!r}, or by no other method")
    if checks < 0 or checks % 2 or checks > len(have):
        raise ValueError(f"attention checks must be an even number up to that of cases ({len(have)}), got {checks}")

    rng.shuffle(have)
    parts = -(-len(have) // length)
    forms = []
    for part in (have[i::parts] for i in range(parts)):
        for turn in range(len(baselines)):
            form = _pairs(part, ours, [*baselines[turn:], *baselines[:turn]], shown, rng)
            form += _checks(rng.sample(have, checks), ours, shown, rng)
            forms += [rng.sample(form, len(form)), [pair.mirrored for pair in rng.sample(form, len(form))]]
    return forms


def _pairs(cases: Sequence[Case], ours: str, baselines: Sequence[str], shown: Shown, rng: random.Random) -> list[Pair]:
    """Each case against the next baseline in turn; each baseline is left and right equally often, to one."""
    pairs = []
    for i, baseline in enumerate(baselines):
        met = [case for case in cases[i :: len(baselines)] if shown(baseline, case)]
        swap = rng.random() < 0.5
        for case in met:
            pair = Pair(case.name, case.kind, ours, baseline)
            pairs.append(pair.mirrored if swap else pair)
            swap = not swap
    return pairs


def _checks(cases: Sequence[Case], ours: str, shown: Shown, rng: random.Random) -> list[Pair]:
    """A check of each case, by turns right on the left and on the right.

    The right side is the truth, or ours where the truth is not known. The wrong one is scrambled, or, where the true
    result is another picture beyond doubt, the input as it was.
    """
    pairs = []
    swap = rng.random() < 0.5
    for case in cases:
        known = shown("truth", case)
        plain = known and case.kind in ("move", "delete") and rng.random() < 0.5
        pair = Pair(case.name, case.kind, "truth" if known else ours, UNEDITED if plain else SCRAMBLED, "left")
        pairs.append(pair.mirrored if swap else pair)
        swap = not swap
    return pairs
