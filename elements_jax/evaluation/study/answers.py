"""Files of a study: the key, and the answers that raters send back.

{"version": 1, "study": "9f0c...", "form": 2, "worker": "rater-7f3a", "started": "2024-10-01T09:30:00.000Z",
 "finished": "...", "answers": [{"pair": "5d41...", "choice": "left", "seconds": 3.2}, ...]}
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from elements_jax.data.atomic import read_file
from elements_jax.evaluation.study.plan import Pair, Side


@dataclass(frozen=True)
class Key:
    """The contents of a study."""

    study: str
    """Hash of the study, which every file of answers names."""
    ours: str
    forms: tuple[tuple[str, ...], ...]
    """The names of the pairs in each form."""
    pairs: dict[str, Pair]
    version: Literal[1] = 1
    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Answer:
    """The judgment of one pair."""

    pair: str
    choice: Side
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Seconds since its images were loaded."""
    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Answers:
    """The answers of one rater to a form."""

    version: Literal[1]
    study: str
    form: Annotated[int, Field(ge=1)]
    """Number of the form, from 1."""
    worker: Annotated[str, Field(min_length=1, max_length=200)]
    started: str
    finished: str
    answers: tuple[Answer, ...]
    __pydantic_config__ = ConfigDict(extra="forbid")


Read = TypeVar("Read")


def read_key(path: Path) -> Key:
    """Read a study's key. Raises ValueError that names the file and the field, or OSError."""
    return _read(Key, path)


def read_answers(paths: Sequence[Path], key: Key) -> list[Answers]:
    """Read the answers of a study. Raises ValueError that names the file and the field, or OSError.

    Answers to another study, to pairs of another form or to only some pairs are refused, and so is the same form
    answered twice by the same worker.
    """
    files: dict[tuple[str, int], Path] = {}
    read = []
    for path in paths:
        answers = _read(Answers, path)
        _check(answers, key, path)
        if (answers.worker, answers.form) in files:
            raise ValueError(
                f"{path}: worker: {answers.worker!r} has already answered form {answers.form} in "
                f"{files[answers.worker, answers.form]}"
            )
        files[answers.worker, answers.form] = path
        read.append(answers)
    return read


def _check(answers: Answers, key: Key, path: Path) -> None:
    if answers.study != key.study:
        raise ValueError(f"{path}: study: expected the key's {key.study}, got {answers.study}")
    if answers.form > len(key.forms):
        raise ValueError(f"{path}: form: expected 1 to {len(key.forms)}, got {answers.form}")
    asked = key.forms[answers.form - 1]
    for i, answer in enumerate(answers.answers):
        if answer.pair not in asked:
            raise ValueError(f"{path}: answers[{i}].pair: {answer.pair!r} is not a pair of form {answers.form}")
    given = Counter(answer.pair for answer in answers.answers)
    if twice := [pair for pair, count in given.items() if count > 1]:
        raise ValueError(f"{path}: answers: pair {twice[0]!r} is answered more than once")
    if missing := len(asked) - len(given):
        raise ValueError(
            f"{path}: answers: {missing} of the {len(asked)} pairs of form {answers.form} are not answered"
        )


def _read(kind: type[Read], path: Path) -> Read:
    try:
        return TypeAdapter(kind).validate_json(read_file(path))
    except ValidationError as error:
        raise ValueError(f"{path}: {_explain(error.errors(include_url=False, include_context=False)[0])}") from error


def _explain(error: Any) -> str:
    """Format a pydantic error with its field."""
    where = ""
    for step in error["loc"]:
        where += f"[{step}]" if isinstance(step, int) else f".{step}" if where else str(step)
    message = error["msg"][:1].lower() + error["msg"][1:]
    return f"{where}: {message}" if where else message
