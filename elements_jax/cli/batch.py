"""`elements batch`."""

import itertools
from dataclasses import dataclass
from typing import Annotated

import tyro

from elements_jax.bounds import COUNT, require_within
from elements_jax.cli.arguments import Model, Out, Records, Scripts
from elements_jax.editing.script import DEFAULT_SAMPLING, Sampling

SHOWN = 10
"""Number of failures listed on the terminal; the manifests list all."""


@dataclass(frozen=True)
class Batch:
    """Run many edit scripts on records and write one image per script, with its settings in the PNG text chunks.

    Each shard of scripts becomes a folder OUT/shard-*, which appears when it is complete. Run the same command again to
    resume. The manifest.jsonl of a shard has one line per script: written, or failed and why. Each batch is split over
    all devices of the machine, and several machines share the shards.
    """

    records: Records
    """Folder of records written by `elements partition`."""
    scripts: Scripts
    """JSON Lines: each line is an edit script plus `source_id`, the record to edit, and optionally `name`, the output's
    name (by default the line number). A compose edit names its image by source_id."""
    out: Out
    """Folder for the images."""
    model: Model
    """Model folder, or name of a repository on the Hugging Face hub."""
    batch_size: int = 1
    """Images decoded at once per device. An accelerator is fastest with as many as fit in memory."""
    shard_size: int = 256
    """Scripts per shard: the most work lost if the job is killed. Best a multiple of the images that all devices decode
    at once, because the last batch of a shard is padded."""
    preserve: bool = False
    """Keep the pixels outside edited regions, as in `elements edit`."""
    overwrite: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Replace the output of another job, or of this one with other scripts, records, settings or model."""
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = DEFAULT_SAMPLING

    def __post_init__(self) -> None:
        require_within(self, batch_size=COUNT, shard_size=COUNT)

    def run(self) -> None:
        """Check the scripts, then decode the missing shards."""
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
        # With --overwrite, shards of another job may exist.
        there = [number for number in job.own_shards if job.shard_path(number).is_dir() and not self.overwrite]
        count = batch.run(job, self.overwrite)
        hosts.barrier("all shards are written")  # a host that exits early would stop the others
        print(f"{count['written']} images written to {self.out}")
        if earlier := sum(outcome.status == "written" for outcome in batch.outcomes(job, there)):
            print(f"{earlier} of them in an earlier run")
        if count["failed"]:
            print(f"{count['failed']} scripts failed; {batch.MANIFEST} of their shard says why")
            failed = (outcome.reason for outcome in batch.outcomes(job, job.own_shards) if outcome.status == "failed")
            for reason in itertools.islice(failed, SHOWN):
                print(f"  {reason}")
            if not count["written"]:
                raise ValueError(f"no script of {self.scripts} could be run")
