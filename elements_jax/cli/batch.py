"""`elements batch`."""

import itertools
from dataclasses import dataclass
from typing import Annotated

import tyro

from elements_jax.bounds import COUNT, require_within
from elements_jax.cli.arguments import Model, Out, Records, Scripts
from elements_jax.editing.script import DEFAULT_SAMPLING, Sampling

SHOWN = 10
"""Failures named on the terminal; the manifests name all."""


@dataclass(frozen=True)
class Batch:
    """Run many edit scripts on records, and write a picture for each, with all that made it in its text chunks.

    Each shard of scripts becomes a folder OUT/shard-*, which appears when it is complete. The same command again does
    the missing ones. manifest.jsonl in each says what became of every script, a line each: written, or failed, and why.
    A batch is split over all devices of this machine; of several, each does its part of the shards.
    """

    records: Records
    """Folder of records, as `elements partition` writes it."""
    scripts: Scripts
    """JSON Lines: in each line an edit script, and `source_id`, the record that it edits, and, if its picture is not to
    be named by the line's number, `name`. A compose edit names its image by its source_id."""
    out: Out
    """Folder for the pictures."""
    model: Model
    """Model folder, or the name of a repository on the Hugging Face hub."""
    batch_size: int = 1
    """Pictures that each device decodes at once. An accelerator is fastest with as many as its memory holds."""
    shard_size: int = 256
    """Scripts in a shard, the most that is lost when the job is killed. Best a multiple of what all devices decode at
    once, since the last batch of a shard is filled up."""
    preserve: bool = False
    """Keep the pixels outside edited regions, as in `elements edit`."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Start again where another job, or this one with other scripts, records, settings or model, has written."""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = DEFAULT_SAMPLING

    def __post_init__(self) -> None:
        require_within(self, batch_size=COUNT, shard_size=COUNT)

    def run(self) -> None:
        """Check the scripts, then decode what is missing."""
        self.sampling.checked()
        from elements_jax.parallel import hosts

        hosts.initialize_distributed()
        import jax

        from elements_jax.data.index import RecordIndex
        from elements_jax.editing.script_list import ScriptLines
        from elements_jax.parallel.sharding import make_mesh
        from elements_jax.pipeline import batch
        from elements_jax.pipeline.pipeline import ElementsPipeline
        from elements_jax.pipeline.session import decode_arguments

        records = RecordIndex(self.records)
        scripts = ScriptLines(self.scripts, records)
        mesh = make_mesh(-1, 1, jax.local_devices())
        pipeline = ElementsPipeline.from_pretrained(self.model, mesh=mesh)
        config = pipeline.config.diffusion
        job = batch.Job(
            scripts,
            records,
            self.out,
            pipeline,
            sampling=decode_arguments(self.sampling, config),
            preserve=self.preserve,
            settings={
                "model": self.model,
                "weights": pipeline.checksum(),
                **self.sampling.settings(config),
                "preserve": self.preserve,
            },
            shard_size=self.shard_size,
            batch_size=self.batch_size * mesh.size,
        )
        # With --overwrite those of another job may be there.
        there = [number for number in job.own_shards if job.shard_path(number).is_dir() and not self.overwrite]
        count = batch.run(job, self.overwrite)
        hosts.barrier("all shards are written")  # a host that ends early would end the others
        print(f"{count['written']} pictures written to {self.out}")
        if there:
            print(f"{sum(len(job.places(number)) for number in there)} scripts of them were run before")
        if count["failed"]:
            print(f"{count['failed']} scripts failed; {batch.MANIFEST} of their shard says why")
            failed = (outcome.reason for outcome in batch.outcomes(job) if outcome.status == "failed")
            for reason in itertools.islice(failed, SHOWN):
                print(f"  {reason}")
            if not count["written"]:
                raise ValueError(f"no script of {self.scripts} could be run")
