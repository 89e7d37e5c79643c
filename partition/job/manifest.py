"""The outcome of every image of a job, one line of JSON each, in one file per shard; and their summary."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from elements_jax.data.atomic import new_file
from elements_jax.data.object_store import AnyPath, local_file

SHOWN = 100
"""Failures that the summary lists; the manifest has them all."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of an image. Fields that do not apply are left out of its line."""

    source_id: str
    status: Literal["written", "filtered", "failed", "ignored"]
    reason: str | None = None
    """Why the image was filtered or failed; for an ignored file, its suffix."""
    split: str | None = None
    """The split to which it was written."""
    elements: int | None = None
    dropped_percent: float | None = None
    """Share of pixels that belong to no element."""
    object_masks: int | None = None
    masks_left_out: dict[str, int] | None = None
    """Annotations that gave no object mask, by reason."""
    first_left_out: str | None = None
    """The first of them: its file, its number in the file, and the error."""


def manifest_path(out: AnyPath, split: str, number: int, shards: int) -> AnyPath:
    """Return the path of a shard's manifest. It is written last, so it marks the shard as finished."""
    return out / "manifest" / f"{split}-{number:05d}-of-{shards:05d}.jsonl"


def write_manifest(path: AnyPath, outcomes: Iterable[Outcome]) -> None:
    """Write the manifest of a shard, completely or not at all."""
    with new_file(path) as file:
        for outcome in outcomes:
            line = {name: value for name, value in asdict(outcome).items() if value is not None}
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def read_manifest(path: AnyPath) -> Iterator[Outcome]:
    """Yield the outcomes in a manifest. Raises ValueError naming the file and the invalid line."""
    with local_file(path) as local, local.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield Outcome(**json.loads(line))
            except (ValueError, TypeError) as error:
                names = ", ".join(field.name for field in fields(Outcome))
                raise ValueError(f"{path} line {number}: expected an object of {names}: {error}") from error


def lengths(manifests: Iterable[AnyPath]) -> dict[str, Counter[int]]:
    """Return the number of records in each shard of each split, from the manifests of all shards."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for path in manifests:
        shard = int(path.name.rsplit("-", 3)[1])
        for outcome in read_manifest(path):
            if outcome.split is not None:
                counts[outcome.split][shard] += 1
    return counts


def summarise(manifests: Sequence[AnyPath]) -> dict[str, Any]:
    """Count a job's images from the manifests of its shards: written, filtered and failed, and why."""
    written, reasons, left_out, ignored = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    failures: dict[str, str | None] = {}
    status = Counter[str](written=0, filtered=0, failed=0)
    numbers: dict[str, list[float]] = {"elements": [], "dropped_percent": [], "object_masks": []}  # sum, least, most
    for outcome in (outcome for path in manifests for outcome in read_manifest(path)):
        if outcome.status == "ignored":
            ignored[str(outcome.reason)] += 1
            continue
        status[outcome.status] += 1
        if outcome.status == "written":
            written[str(outcome.split)] += 1
            left_out.update(outcome.masks_left_out or {})
            for name, found in numbers.items():
                value = getattr(outcome, name)
                total, least, most = found or (0, value, value)
                found[:] = total + value, min(least, value), max(most, value)
        elif outcome.status == "filtered":
            reasons[str(outcome.reason)] += 1
        elif len(failures) < SHOWN:
            failures[outcome.source_id] = outcome.reason
    return {
        **status,
        "splits": dict(sorted(written.items())),
        "filtered_because": dict(reasons.most_common()),
        "failed_because": failures,
        "ignored": dict(ignored.most_common()),
        "masks_left_out": dict(left_out.most_common()),
        **{
            name: {"mean": found[0] / status["written"], "min": found[1], "max": found[2]} if found else {}
            for name, found in numbers.items()
        },
    }
