"""Bounds of the fields of configurations and commands, checked when one is made, before anything is computed."""

import math
from typing import Any

ANY_SIZE = 1 << 31
"""Bound of numbers that have no natural one."""
COUNT = (1, ANY_SIZE)
SEED = (0, 2**32 - 1)
"""Of every random draw: other seeds would be these under another name."""


class FieldError(ValueError):
    """A field of a dataclass that does not fit, or several that do not fit each other.

    Args:
        owner: the dataclass, or its type.
        names: of the fields.
        expected: what follows the names in a sentence: "must be at least 1, got 0".
    """

    def __init__(self, owner: Any, names: tuple[str, ...], expected: str):
        self.owner: type = owner if isinstance(owner, type) else type(owner)
        self.names, self.expected = names, expected
        super().__init__(self.sentence(names))

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return FieldError, (self.owner, self.names, self.expected)

    def sentence(self, names: tuple[str, ...]) -> str:
        """What is wrong, with the fields under names of their own, such as options."""
        *others, last = names
        return f"{', '.join(others)} and {last} {self.expected}" if others else f"{last} {self.expected}"


def require_within(config: Any, **bounds: Any) -> None:
    """Check numbers, or tuples of numbers, of a dataclass; None passes, and a field that it does not have.

    Args:
        bounds: for each field the least and the largest value; an infinite bound excludes infinity itself.

    Raises FieldError, which is a ValueError, naming the field, what was expected, and the value.
    """
    for name, (least, most) in bounds.items():
        value = getattr(config, name, None)
        for number in value if isinstance(value, tuple) else () if value is None else (value,):
            # Not a number compares false.
            if not (least <= number <= most and math.isfinite(number)):
                raise FieldError(config, (name,), f"must be {_described(least, most)}, got {value}")


def require_above_zero(config: Any, *names: str) -> None:
    """Check that numbers are positive and finite; None passes. Raises FieldError as `require_within`."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise FieldError(config, (name,), f"must be positive, got {value}")


def _described(least: float | int, most: float | int) -> str:
    if most in (math.inf, ANY_SIZE):
        return f"at least {least}"
    return f"from {least} to {most}"
