"""The forms of a study: which rater sees which pair, and on which side.

A form is shown to one rater. It shows every case once, against one of the baselines, so that no pair gives away
another; over all forms every case meets every baseline. Forms come in pairs that differ only in sides and order:
if both are answered equally often, a bias for one side cancels in every pair.
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
"""The wrong side of an attention check: the input, or its tiles in another order."""


@dataclass(frozen=True)
class Pair:
    """One case by two methods. An attention check has `UNEDITED` or `SCRAMBLED` in place of the second method."""

    case: str
    kind: str
    left: str
    right: str
    check: Side | None = None
    """The correct side of an attention check; None for other pairs."""

    @property
    def mirrored(self) -> "Pair":
        """Return the pair with its sides swapped."""
        check = None if self.check is None else SIDES[self.check == "left"]
        return replace(self, left=self.right, right=self.left, check=check)

    def name(self, seed: int) -> str:
        """Return the pair's name on the page, which does not reveal the methods."""
        return hashlib.sha256(f"{seed} {self.case} {self.left} {self.right}".encode()).hexdigest()[:12]


Form = list[Pair]
Shown = Callable[[str, Case], bool]
"""Tells whether a method has an image of a case."""


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
    """Plan the forms of a study.

    Args:
        shown: tells which images exist; a pair with a missing image is omitted.
        length: maximum number of cases per form; more are split evenly among several forms.
        checks: attention checks per form; on half of them the left side is correct.

    Raises ValueError if there is nothing to compare, or too little for the checks.
    """
    rng = random.Random(seed)
    have = [case for case in cases if shown(ours, case)]
    for baseline in baselines:
        if not any(shown(baseline, case) for case in have):
            raise ValueError(f"no case has images of both {ours!r} and {baseline!r}")
    if not baselines or not have:
        raise ValueError(f"nothing to compare: no images of {ours!r}, or of no other method")
    if checks < 0 or checks % 2 or checks > len(have):
        expected = f"attention checks must be an even number, at most the number of cases ({len(have)})"
        raise ValueError(f"{expected}, got {checks}")

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
    """Pair each case with the next baseline in turn; each baseline is left and right equally often, up to one."""
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
    """Make a check of each case; the correct side alternates.

    The correct side is the truth, or ours if the truth is unknown. The wrong side is scrambled or, if the true result
    clearly differs from it, the unedited input.
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
