"""Bounds of a configuration's numbers, checked when it is made, before anything is computed."""

import math
from typing import Any

ANY_SIZE = 1 << 31
"""Bound of numbers that have no natural one."""
COUNT = (1, ANY_SIZE)
SEED = (0, 2**32 - 1)
"""Of every random draw: other seeds would be these under another name."""


def require_within(config: Any, **bounds: Any) -> None:
    """Check numbers, or tuples of numbers, of a configuration; None passes, and a field that it does not have.

    Args:
        bounds: for each field the least and the largest value; an infinite bound excludes infinity itself.

    Raises ValueError naming the field, what was expected, and the value.
    """
    for name, (least, most) in bounds.items():
        value = getattr(config, name, None)
        for number in value if isinstance(value, tuple) else () if value is None else (value,):
            # Not a number compares false.
            if not (least <= number <= most and math.isfinite(number)):
                raise ValueError(f"{name} must be {_described(least, most)}, got {value}")


def require_options(command: Any, **bounds: Any) -> None:
    """The same of a command, whose fields are options. Raises ValueError naming the option."""
    try:
        require_within(command, **bounds)
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        raise ValueError(f"--{name.replace('_', '-')} {rest}") from None


def require_above_zero(config: Any, *names: str) -> None:
    """Check that numbers are positive and finite; None passes. Raises ValueError as `require_within`."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, got {value}")


def _described(least: float | int, most: float | int) -> str:
    if most in (math.inf, ANY_SIZE):
        return f"at least {least}"
    return f"from {least} to {most}"
