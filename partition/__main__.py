"""`python -m partition PHOTOS OUT`, which is `elements partition`, and `python -m partition inspect RECORDS`."""

import sys
from collections.abc import Sequence
from typing import Any

import tyro

from partition import inspect
from partition.job import Job, run

SHOWN = 10
"""Skipped photos named on the terminal; the summary file has them all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and do the job. Returns the exit code: 1 if the job failed or wrote no image."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] == "inspect":
        return inspect.main(argv[1:])
    job = tyro.cli(Job, args=argv, prog="elements partition")
    try:
        summary = run(job)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _report(job, summary)
    return 0 if summary["written"] else 1


def _report(job: Job, summary: dict[str, Any]) -> None:
    skipped = summary["skipped"]
    print(f"{summary['written']} images written to {job.out} (split {job.split}), {len(skipped)} photos skipped")
    for title, key in {
        "elements an image": "elements",
        "dropped pixels, %": "dropped_percent",
        "object masks": "object_masks",
    }.items():
        if spread := summary[key]:
            print(f"  {title:18} {spread['mean']:.5g} on average ({spread['min']:.4g} to {spread['max']:.4g})")
    for source_id, reason in list(skipped.items())[:SHOWN]:
        print(f"  skipped {source_id}: {reason}")
    if len(skipped) > SHOWN:
        print(f"  and {len(skipped) - SHOWN} more, listed in {job.out / f'partition-{job.split}.json'}")


if __name__ == "__main__":
    sys.exit(main())
