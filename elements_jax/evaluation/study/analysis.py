"""Analysis of a study: how often ours is preferred to each baseline, with confidence intervals.

There are two intervals. Wilson's assumes independent judgments. The clustered one resamples both raters and cases (the
pigeonhole bootstrap; Owen 2007, The Annals of Applied Statistics 1, 386-411), because judgments of the same rater or
case are correlated; it is the one to quote. The p-value is that of the exact two-sided binomial test of equal
preference; it, too, assumes independent judgments.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

import numpy as np
from jaxtyping import Bool, Float, Int

from elements_jax.evaluation.study.answers import Answers, Key

CONFIDENCE = 0.95
DRAWS = 4000
"""Number of bootstrap samples."""
AT_ONCE = 10_000_000
"""Maximum number of bootstrap weights in memory at once."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Judgment:
    """One rater's choice between ours and a baseline."""

    worker: str
    case: str
    kind: str
    baseline: str
    ours: bool
    """Whether ours was preferred."""
    left: bool
    """Whether the left side was chosen."""
    seconds: float


@dataclass(frozen=True)
class Preference:
    """The preference of ours to one baseline."""

    baseline: str
    kind: str
    """Kind of edits, or "all"."""
    judgments: int
    ours: int
    """Number of judgments that preferred ours."""
    share: float
    wilson: Interval
    clustered: Interval
    p: float


@dataclass(frozen=True)
class Excluded:
    """A rater who failed attention checks."""

    worker: str
    failed: int
    checks: int


@dataclass(frozen=True)
class Analysis:
    """The analysis of a complete study."""

    study: str
    raters: int
    """Number of raters whose judgments count."""
    excluded: tuple[Excluded, ...]
    judgments: int
    chosen_left: float
    """Share of judgments for the left side. It cancels out, but reveals inattentive raters."""
    median_seconds: float
    preferences: tuple[Preference, ...]


def analyse(key: Key, answers: Sequence[Answers], *, failures: int = 0, seed: int = 0) -> Analysis:
    """Analyse the answers of a study.

    Args:
        failures: attention checks that a rater may fail, over all forms answered.
        seed: seed of the bootstrap.

    Raises ValueError if no rater is left.
    """
    excluded = [rater for rater in _checked(key, answers) if rater.failed > failures]
    out = {rater.worker for rater in excluded}
    judgments = [each for sheet in answers if sheet.worker not in out for each in _judgments(key, sheet)]
    if not judgments:
        raise ValueError(f"no judgments: {len(answers)} files of answers, and {len(out)} raters failed checks")
    preferences = []
    for baseline in dict.fromkeys(sorted(each.baseline for each in judgments)):
        met = [each for each in judgments if each.baseline == baseline]
        for kind in ("all", *sorted({each.kind for each in met})):
            of_kind = [each for each in met if kind in ("all", each.kind)]
            preferences.append(preference(baseline, kind, of_kind, np.random.default_rng(seed)))
    return Analysis(
        key.study,
        len({each.worker for each in judgments}),
        tuple(excluded),
        len(judgments),
        sum(each.left for each in judgments) / len(judgments),
        median(each.seconds for each in judgments),
        tuple(preferences),
    )


def _checked(key: Key, answers: Sequence[Answers]) -> list[Excluded]:
    """Evaluate every rater's attention checks."""
    outcomes: dict[str, list[bool]] = {}
    for sheet in answers:
        failed = outcomes.setdefault(sheet.worker, [])
        for answer in sheet.answers:
            if right := key.pairs[answer.pair].check:
                failed.append(answer.choice != right)
    return [Excluded(worker, sum(failed), len(failed)) for worker, failed in sorted(outcomes.items())]


def _judgments(key: Key, sheet: Answers) -> Iterable[Judgment]:
    for answer in sheet.answers:
        pair = key.pairs[answer.pair]
        if pair.check is None:
            left = answer.choice == "left"
            ours_left = pair.left == key.ours
            baseline = pair.right if ours_left else pair.left
            yield Judgment(sheet.worker, pair.case, pair.kind, baseline, left == ours_left, left, answer.seconds)


def preference(baseline: str, kind: str, judgments: Sequence[Judgment], rng: np.random.Generator) -> Preference:
    """Compute the preference of ours from at least one judgment."""
    count, ours = len(judgments), sum(each.ours for each in judgments)
    clustered = clustered_interval(
        np.array([each.ours for each in judgments]),
        _numbered([each.worker for each in judgments]),
        _numbered([each.case for each in judgments]),
        rng,
    )
    return Preference(
        baseline, kind, count, ours, ours / count, wilson(ours, count), clustered, binomial_test(ours, count)
    )


def _numbered(names: Sequence[str]) -> Int[np.ndarray, " n"]:
    return np.unique(names, return_inverse=True)[1].reshape(-1)


def wilson(successes: int, count: int) -> Interval:
    """Return Wilson's score interval of a proportion (Wilson 1927)."""
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, spread = successes / count, z**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


def binomial_test(successes: int, count: int) -> float:
    """Return the exact two-sided p-value of a fair coin: twice the smaller tail, as the distribution is symmetric."""
    tail = sum(math.comb(count, k) for k in range(min(successes, count - successes) + 1))
    return min(1.0, float(2 * tail / 2**count))


def clustered_interval(
    ours: Bool[np.ndarray, " n"],
    rater: Int[np.ndarray, " n"],
    case: Int[np.ndarray, " n"],
    rng: np.random.Generator,
) -> Interval:
    """Return the percentile interval of the share of `ours` when raters and cases, numbered from 0, are resampled."""
    shares: list[Float[np.ndarray, " draws"]] = []
    step = max(1, min(DRAWS, AT_ONCE // len(ours)))
    for start in range(0, DRAWS, step):
        draws = min(step, DRAWS - start)
        weights = np.ones((draws, len(ours)))
        for cluster in (rater, case):
            number = int(cluster.max()) + 1
            weights *= rng.multinomial(number, np.full(number, 1 / number), size=draws)[:, cluster]
        total = weights.sum(axis=1)
        drawn = total > 0  # the resample may contain no judgment
        shares.append((weights @ ours)[drawn] / total[drawn])
    low, high = np.percentile(np.concatenate(shares), (50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)))
    return float(low), float(high)


def table(analysis: Analysis) -> str:
    """Format the analysis for the terminal."""
    lines = [
        f"{analysis.raters} raters, {analysis.judgments} judgments, {analysis.median_seconds:.1f} s each (median), "
        f"left chosen in {analysis.chosen_left:.1%}"
    ]
    lines.append(f"{len(analysis.excluded)} raters excluded" + (":" if analysis.excluded else ""))
    lines += [f"  {each.worker}: failed {each.failed} of {each.checks} checks" for each in analysis.excluded]
    rows = [["against", "edits", "judgments", "ours preferred", "95 % clustered", "95 % Wilson", "p"]]
    for each in analysis.preferences:
        intervals = (f"{low:.1%} to {high:.1%}" for low, high in (each.clustered, each.wilson))
        p = "< 0.001" if each.p < 0.001 else f"{each.p:.3f}"
        rows.append([each.baseline, each.kind, str(each.judgments), f"{each.share:.1%}", *intervals, p])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
