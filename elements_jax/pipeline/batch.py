"""Batch inference: runs many edit scripts on records, on all devices of all hosts, with one image per script.

The scripts are split in file order into shards, and these into batches of equal size, which one program decodes. A
shard is a folder that is written completely or not at all:

    OUT/job.json                                  all settings; another job is refused
    OUT/shard-00003-of-00010/cat-left.png         an image, with its settings in the text chunks
    OUT/shard-00003-of-00010/manifest.jsonl       one line per script: written, or failed and why

Thus a job may be killed at any time, and the same command resumes it. Hosts share only OUT: each does every n-th shard
on its own devices. An image depends only on its script, the records named in it, the model and the settings; the number
of images decoded at once per device changes it by rounding, and the number of devices not at all.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from elements_jax import __version__
from elements_jax.data.atomic import new_file, new_folder, remove_folder
from elements_jax.data.index import RecordIndex
from elements_jax.data.lock import locked
from elements_jax.data.object_store import UNFINISHED, AnyPath, is_url
from elements_jax.data.record import Record
from elements_jax.diffusion.preserve import Preserve
from elements_jax.editing.apply import apply_script
from elements_jax.editing.edits import Canvas, edited_region, stack, unstack
from elements_jax.editing.png import encode_png
from elements_jax.editing.script import EditScript
from elements_jax.editing.script_list import ScriptLine, ScriptLines
from elements_jax.parallel.sharding import pad_batch
from elements_jax.pipeline.pipeline import ElementsPipeline, require_fit

MANIFEST = "manifest.jsonl"
BATCHES_AHEAD = 2
"""Batches prepared ahead: devices work in order, so that images encoded during one batch are ready after it, and are
edited during the next."""


@dataclass(frozen=True)
class Job:
    """A batch job: scripts, records, model and settings."""

    scripts: ScriptLines
    records: RecordIndex
    out: AnyPath
    pipeline: ElementsPipeline
    sampling: Mapping[str, Any]
    """Arguments of `ElementsPipeline.decode_batch`."""
    preserve: bool
    """Keep unedited pixels (`elements_jax.diffusion.preserve`)."""
    settings: Mapping[str, Any]
    """Model, sampling and preservation as recorded in every image; they identify the job."""
    shard_size: int
    batch_size: int
    """Images decoded at once; a multiple of the pipeline's devices."""

    @property
    def shards(self) -> int:
        """Number of shards over all hosts."""
        return -(-len(self.scripts) // self.shard_size)

    @property
    def own_shards(self) -> range:
        """The shards of this host."""
        return range(jax.process_index(), self.shards, jax.process_count())

    def shard_path(self, number: int) -> AnyPath:
        """Return the folder of a shard."""
        return self.out / f"shard-{number:05d}-of-{self.shards:05d}"

    def places(self, number: int) -> range:
        """Return the positions of a shard's scripts."""
        return range(len(self.scripts))[number * self.shard_size : (number + 1) * self.shard_size]

    def batches(self, number: int) -> list[range]:
        """Return them `batch_size` at a time."""
        places = self.places(number)
        return [places[start : start + self.batch_size] for start in range(0, len(places), self.batch_size)]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a script."""

    name: str
    source_id: str
    status: Literal["written", "failed"]
    reason: str | None = None
    """Why it failed; omitted from the line if it did not."""


def run(job: Job, overwrite: bool) -> Counter[str]:
    """Run the missing shards of this host, and count its written and failed scripts.

    Raises ValueError if OUT contains output of another job, unless `overwrite`, which removes it; and if the records do
    not have the model's size.
    """
    require_fit(next(iter(job.records.values())), job.pipeline.config.elements)
    # The other hosts of a job write the same folder.
    with locked(job.out, "elements batch") if jax.process_index() == 0 else nullcontext():
        return _run(job, overwrite)


def _run(job: Job, overwrite: bool) -> Counter[str]:
    begin(job, overwrite)
    missing = [number for number in job.own_shards if not (job.shard_path(number) / MANIFEST).is_file()]
    total, left = (sum(len(job.places(number)) for number in numbers) for numbers in (job.own_shards, missing))
    with tqdm(desc="batch", total=total, initial=total - left, unit="script", smoothing=0.05) as bar:
        for number, batches in itertools.groupby(_prepared(job, missing), key=lambda batch: batch.shard):
            with new_folder(job.shard_path(number), MANIFEST) as folder:
                _write(job, batches, folder, bar)
    own = {job.shard_path(number).name for number in job.own_shards}
    for abandoned in _unfinished(job):
        if abandoned.name.split(".")[1] in own:
            remove_folder(abandoned)
    return Counter(outcome.status for outcome in outcomes(job, job.own_shards))


def begin(job: Job, overwrite: bool) -> None:
    """Prepare OUT to start or resume a job. Raises ValueError if it contains shards of another job."""
    state = {
        **job.settings,
        "code": __version__,
        "shard_size": job.shard_size,
        "scripts": job.scripts.identity,
        "records": job.records.identity,
    }
    state = json.loads(json.dumps(state))
    path = job.out / "job.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    there = sorted(job.out.glob("shard-*-of-*"), key=str)
    if there and before != state:
        if not overwrite:
            names = sorted(name for name in before | state if before.get(name) != state.get(name))
            changed = ", ".join(f"{name} ({before.get(name)}, now {state.get(name)})" for name in names)
            how = f"with other settings: {changed}" if before else "by another job"
            raise ValueError(f"{there[0]} exists already, made {how}; --overwrite starts from scratch")
        if jax.process_count() > 1:
            raise ValueError(f"--overwrite works only on one host, as others may be writing; remove {job.out} yourself")
        for old in [*there, *_unfinished(job)]:
            remove_folder(old, MANIFEST)
    if not is_url(job.out):
        job.out.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        file.write(json.dumps(state, indent=1, ensure_ascii=False).encode() + b"\n")


def outcomes(job: Job, shards: Iterable[int]) -> Iterator[Outcome]:
    """Yield the outcomes of the scripts of complete shards."""
    for number in shards:
        with (job.shard_path(number) / MANIFEST).open(encoding="utf-8") as file:
            yield from (Outcome(**json.loads(line)) for line in file)


def _unfinished(job: Job) -> list[AnyPath]:
    """Return folders of shards that are being written, or whose process was killed."""
    return list(job.out.glob(f".shard-*{UNFINISHED}"))


@dataclass(frozen=True)
class _Batch:
    """Scripts of a shard that are decoded together."""

    shard: int
    scripts: list[ScriptLine]
    reasons: list[str | None]
    """Why each script failed; empty for the others."""
    decode: dict[str, Any]
    """Arguments of `decode_batch` for the others, padded with copies of the last to the batch's size; empty if all
    failed."""


def _prepared(job: Job, shards: Sequence[int]) -> Iterator[_Batch]:
    """Yield the batches of these shards in order, encoded and edited by a separate thread."""
    batches = [(number, places) for number in shards for places in job.batches(number)]
    prepare = grain.MapDataset.source(batches).map(lambda batch: _prepare(job, *batch))
    ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=BATCHES_AHEAD)
    return iter(prepare.to_iter_dataset(ahead)) if batches else iter(())


def _prepare(job: Job, shard: int, places: Sequence[int]) -> _Batch:
    scripts = job.scripts.read(places)
    # Edits differ in number and kind, so they run one by one, on the CPU, and do not wait for a device that decodes.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        records, unreadable = _read(job, dict.fromkeys(itertools.chain(*(line.source_ids for line in scripts))))
        canvases = _open(job, records)

        def canvas(source_id: str, _: Any = None) -> Canvas:
            if source_id in unreadable:
                raise unreadable[source_id]
            return canvases[source_id]

        reasons, edited = list[str | None](), []
        for place, line in zip(places, scripts, strict=True):
            try:
                before = canvas(line.source_id)
                after = apply_script(line.script, before, canvas).canvas
                edited.append((line.script, records[line.source_id], before, after))
                reasons.append(None)
            except ValueError as error:
                reasons.append(f"{job.scripts.where(place)}: {error}")
        return _Batch(shard, scripts, reasons, _arguments(job, edited) if edited else {})


def _arguments(job: Job, edited: Sequence[tuple[EditScript, Record, Canvas, Canvas]]) -> dict[str, Any]:
    """Build the arguments of `ElementsPipeline.decode_batch` from scripts, records, and canvases before and after."""
    scripts, records, before, after = zip(*pad_batch(edited, job.batch_size), strict=True)
    arguments = {
        "elements": stack(after).elements,
        "prompts": [script.prompt for script in scripts],
        "seeds": [script.seed for script in scripts],
        "negative_prompts": [script.negative_prompt for script in scripts],
    }
    if job.preserve:
        region = jnp.stack([edited_region(*pair) for pair in zip(before, after, strict=True)])
        arguments["preserve"] = Preserve(np.stack([record.image for record in records]), region)
    return arguments


def _read(job: Job, source_ids: Iterable[str]) -> tuple[dict[str, Record], dict[str, ValueError]]:
    """Read records by source_id; return also the errors of those that are unreadable or do not fit the model."""
    records, unreadable = {}, {}
    for source_id in source_ids:
        try:
            record = job.records[source_id]
            require_fit(record, job.pipeline.config.elements)
            records[source_id] = record
        except ValueError as error:
            unreadable[source_id] = error
    return records, unreadable


def _open(job: Job, records: Mapping[str, Record]) -> dict[str, Canvas]:
    """Encode records, `batch_size` at a time."""
    every, opened = list(records.values()), list[Canvas]()
    for start in range(0, len(every), job.batch_size):
        some = every[start : start + job.batch_size]
        whole = pad_batch(some, job.batch_size)
        image, label_map = (np.stack([getattr(record, name) for record in whole]) for name in ("image", "label_map"))
        opened += unstack(job.pipeline.encode_batch(image, label_map))[: len(some)]
    return dict(zip(records, opened, strict=True))


def _write(job: Job, batches: Iterable[_Batch], folder: Path, bar: tqdm) -> None:
    """Decode the batches of a shard and write its folder."""
    with ThreadPoolExecutor() as threads, (folder / MANIFEST).open("w", encoding="utf-8") as manifest:
        for batch in batches:
            good = [line for line, reason in zip(batch.scripts, batch.reasons, strict=True) if reason is None]
            if good:
                pictures = job.pipeline.decode_batch(**batch.decode, **job.sampling)
                list(threads.map(partial(_save, job, folder), good, pictures))  # without the padding
            for line, reason in zip(batch.scripts, batch.reasons, strict=True):
                outcome = asdict(Outcome(line.name, line.source_id, "failed" if reason else "written", reason))
                if reason is None:
                    del outcome["reason"]
                manifest.write(json.dumps(outcome, ensure_ascii=False) + "\n")
            bar.update(len(batch.scripts))


def _save(job: Job, folder: Path, line: ScriptLine, picture: UInt8[np.ndarray, "H W 3"]) -> None:
    """Write an image, with its settings in the text chunks."""
    png = encode_png(picture, line.script, {"source_id": line.source_id, **job.settings})
    (folder / f"{line.name}.png").write_bytes(png)
