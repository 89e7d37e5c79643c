"""Runs methods on edits and writes a results folder.

Complete images are kept, so that the same command resumes an interrupted run, and methods can be added later.
OUT/compare.json records the settings; other edits, or other settings of a method, are refused.
"""

import functools
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from elements_jax import __version__
from elements_jax.data.atomic import new_file
from elements_jax.data.lock import locked
from elements_jax.data.record import Record
from elements_jax.editing.edits import Canvas
from elements_jax.editing.png import encode_png
from elements_jax.editing.script import EditError, EditScript, Resize
from elements_jax.editing.script_list import ScriptLine
from elements_jax.evaluation.methods.external import external_input_paths, write_needs
from elements_jax.evaluation.methods.method import Method, Prepared, canvas_of, prepare
from elements_jax.evaluation.results import CASES, Case, Task, path_of, save, write_cases
from elements_jax.parallel.sharding import pad_batch
from elements_jax.pipeline.pipeline import ElementsPipeline, require_fit

STATE = "compare.json"
OPEN = 64
"""Number of cached canvases: cases of the same few images are consecutive."""


@dataclass(frozen=True)
class Failure:
    """A case that failed and is omitted from the results, and the reason."""

    name: str
    reason: str


def run(
    out: Path,
    tasks: Sequence[Task],
    methods: Mapping[str, Method],
    pipeline: ElementsPipeline,
    records: Mapping[str, Record],
    identity: str,
    batch_size: int,
    others: bool = False,
) -> list[Failure]:
    """Write the missing parts of a results folder and return the failed cases.

    `records` are those named in scripts, by source_id, and `identity` identifies them. `others` also writes the inputs
    of external methods.

    Raises ValueError if the folder contains other edits or images made with other settings, or if records do not fit
    the model; and the errors of the methods.
    """
    with locked(out, "elements compare"):
        _begin(out, tasks, methods, identity)
        return _run(out, tasks, methods, pipeline, records, batch_size, others)


def _run(
    out: Path,
    tasks: Sequence[Task],
    methods: Mapping[str, Method],
    pipeline: ElementsPipeline,
    records: Mapping[str, Record],
    batch_size: int,
    others: bool,
) -> list[Failure]:
    """Write the missing parts."""

    @functools.lru_cache(OPEN)
    def open_canvas(source_id: str) -> Canvas:
        if source_id not in records:
            raise EditError(f"no record has source_id {source_id!r}")
        record = records[source_id]
        require_fit(record, pipeline.config.elements)
        return canvas_of(pipeline, record)

    failures = list[Failure]()
    with tqdm(desc="compare", total=len(tasks), unit="case", smoothing=0.05) as bar:
        for batch in _batches(out, tasks, methods, batch_size, others, open_canvas, failures, bar):
            for name, method in methods.items():
                todo = [case for case in batch if not path_of(out, name, case.task.case).is_file()]
                if todo:
                    for case, picture in zip(todo, method.run(pad_batch(todo, batch_size)), strict=False):
                        _write(out, name, case, picture, method.settings)
            for case in batch:
                _write_parts(out, case)
                if others:
                    write_needs(out, case)
    failed = {failure.name for failure in failures}
    write_cases(out, [task.case for task in tasks if task.case.name not in failed])
    return failures


def _batches(
    out: Path,
    tasks: Sequence[Task],
    methods: Mapping[str, Method],
    batch_size: int,
    others: bool,
    open_canvas: Callable[[str], Canvas],
    failures: list[Failure],
    bar: tqdm,
) -> Iterator[list[Prepared]]:
    """Yield prepared cases with missing parts; cases that cannot be prepared go to `failures`."""

    def prepared() -> Iterator[Prepared]:
        for task in tasks:
            bar.update()
            parts = ["input", *["truth"] * (task.truth is not None), "region", "drawing"]
            paths = [path_of(out, name, task.case) for name in (*parts, *methods)]
            if all(path.exists() for path in paths + others * external_input_paths(out, task.case)):
                continue
            try:
                yield prepare(task, open_canvas)
            except EditError as error:
                failures.append(Failure(task.case.name, str(error)))

    cases = prepared()
    while batch := list(itertools.islice(cases, batch_size)):
        yield batch


def _write(out: Path, method: str, case: Prepared, picture: np.ndarray, settings: Mapping[str, Any]) -> None:
    """Write a method's image with its settings in the text chunks."""
    path = path_of(out, method, case.task.case)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        made_by = {"method": method, "source_id": case.task.case.source_id, **settings}
        file.write(encode_png(picture, case.script, made_by))


def _write_parts(out: Path, case: Prepared) -> None:
    """Write the files of the case itself."""
    save(out, "input", case.task.case, case.image)
    save(out, "region", case.task.case, case.region)
    save(out, "drawing", case.task.case, case.drawing())
    if case.task.truth is not None:
        save(out, "truth", case.task.case, case.task.truth)


def _begin(out: Path, tasks: Sequence[Task], methods: Mapping[str, Method], records: str) -> None:
    """Check that the folder has the same edits and settings, and record those of new methods."""
    path, edits = out / STATE, zlib.crc32("\n".join(task.case.to_json() for task in tasks).encode())
    state = {"code": __version__, "records": records, "edits": f"{len(tasks)} edits, {edits:08x}"}
    wanted = json.loads(json.dumps({name: method.settings for name, method in methods.items()}, default=dict))
    before: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"methods": {}, **state}
    if not path.is_file() and (out / CASES).is_file():
        raise ValueError(f"{out} contains results that this command did not write: choose another folder")
    for name, value in state.items():
        if before[name] != value:
            raise ValueError(
                f"{out} contains results of other {name} ({before[name]}, now {value}): use another folder or remove it"
            )
    for name, settings in wanted.items():
        if before["methods"].get(name, settings) != settings:
            raise ValueError(
                f"{out / name} was made with other settings ({before['methods'][name]}, now {settings}): remove it and "
                f"its entry in {path}, or choose another folder"
            )
    out.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        content = {**state, "methods": before["methods"] | wanted}
        file.write(json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")


def task_of(line: ScriptLine) -> Task:
    """Return the case of a script for batch inference, whose truth is unknown."""
    script, kind = line.script, kind_of(line.script)
    return Task(Case(line.name, kind, line.instruction, line.source_id, script.prompt, script, line.object))


def kind_of(script: EditScript) -> str:
    """Return move, shrink, enlarge, resize, delete, duplicate or compose if all edits have that kind; else "mixed"."""
    kinds = set[str]()
    for edit in script.edits:
        kind: str = edit.edit
        if isinstance(edit, Resize):
            scales = np.broadcast_to(edit.scale, 2)
            kind = "shrink" if (scales < 1).all() else "enlarge" if (scales > 1).all() else "resize"
        kinds.add(kind)
    return kinds.pop() if len(kinds) == 1 else "mixed"
