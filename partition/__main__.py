"""`python -m partition SOURCE OUT`, which is `elements partition`, and its subcommands `inspect` and `steps`."""

import sys
from collections.abc import Sequence
from typing import Any

from elements_jax.cli.command import orderly_termination, parsed, run_to_end
from elements_jax.data.lock import locked
from partition.inspection.command import Inspect, inspect
from partition.job.engines import run_locally, run_on_beam
from partition.job.job import Job, begin, check, finish
from partition.job.ray_engine import run_on_ray
from partition.job.spark_engine import run_on_spark

_ENGINES = {"local": run_locally, "ray": run_on_ray, "spark": run_on_spark, "beam": run_on_beam}
SHOWN = 10
"""Failures named on the terminal; the summary names more, and the manifest all."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, do the job and return the exit code: 1 if the job failed or wrote no image, otherwise as
    `command.run_to_end`."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] == "inspect":
        return run_to_end(lambda: inspect(parsed(Inspect, argv[1:], "elements partition inspect")))
    if argv and argv[0] == "steps":
        from partition.inspection.steps import Steps, draw_steps  # needs PyTorch, unlike the others' --help

        return run_to_end(lambda: draw_steps(parsed(Steps, argv[1:], "elements partition steps")))
    return run_to_end(lambda: _run(argv))


def _run(argv: Sequence[str]) -> int:
    job = parsed(Job, argv, "elements partition")
    check(job)
    with orderly_termination(), locked(job.out, f"elements partition --split {job.split}"):
        begin(job)
        if numbers := job.unfinished():
            if len(numbers) < len(job.shards):
                print(f"{len(job.shards) - len(numbers)} of {len(job.shards)} shards are already done")
            _ENGINES[job.engine](job, numbers)
        summary = finish(job)
    _print(job, summary)
    return 0 if summary["written"] else 1


def _print(job: Job, summary: dict[str, Any]) -> None:
    splits = ", ".join(f"{count} in split {split}" for split, count in summary["splits"].items())
    print(f"{summary['written']} images written to {job.out}" + (f" ({splits})" if splits else ""))
    for title, key in {
        "elements an image": "elements",
        "dropped pixels, %": "dropped_percent",
        "object masks": "object_masks",
    }.items():
        if spread := summary[key]:
            print(f"  {title:18} {spread['mean']:.5g} on average ({spread['min']:.4g} to {spread['max']:.4g})")
    for reason, count in summary["filtered_because"].items():
        print(f"  filtered {count}: {reason}")
    if summary["ignored"]:
        listed = ", ".join(f"{count} {suffix}" for suffix, count in summary["ignored"].items())
        print(f"  ignored files, by suffix: {listed}")
    for reason, count in summary["masks_left_out"].items():
        print(f"  skipped {count} annotations: {reason}")
    if summary["written"] and job.mask_sources() and not summary["object_masks"]["max"]:
        needed = "files of --masks must have the photographs' names, and columns be mask or masks"
        print(f"  no photograph has an object mask: {needed}")
    if summary["failed"]:
        print(f"{summary['failed']} images failed; {job.out / 'manifest'} names all")
    for source_id, reason in list(summary["failed_because"].items())[:SHOWN]:
        print(f"  {source_id}: {reason}")


if __name__ == "__main__":
    sys.exit(main())
