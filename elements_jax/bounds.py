"""Bounds of configuration and command fields, checked on construction, before anything is computed."""

import math
from typing import Any

ANY_SIZE = 1 << 31
"""Upper bound for numbers without a natural one."""
COUNT = (1, ANY_SIZE)
SEED = (0, 2**32 - 1)
"""Bounds of every seed: a larger one would only alias one of these."""


class FieldError(ValueError):
    """An invalid field of a dataclass, or several fields that contradict each other.

    Args:
        owner: the dataclass, or its type.
        names: the names of the fields.
        expected: the rest of the sentence after the names, such as "must be at least 1, got 0".
    """

    def __init__(self, owner: Any, names: tuple[str, ...], expected: str):
        self.owner: type = owner if isinstance(owner, type) else type(owner)
        self.names, self.expected = names, expected
        super().__init__(self.sentence(names))

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return FieldError, (self.owner, self.names, self.expected)

    def sentence(self, names: tuple[str, ...]) -> str:
        """The error message with other names for the fields, such as those of options."""
        *others, last = names
        return f"{', '.join(others)} and {last} {self.expected}" if others else f"{last} {self.expected}"


def require_within(config: Any, **bounds: Any) -> None:
    """Check numbers, or tuples of numbers, of a dataclass. None passes, and so does a field that does not exist.

    Args:
        bounds: the smallest and largest value of each field. An infinite bound excludes infinity itself.

    Raises FieldError (a ValueError) that names the field, the expectation and the value.
    """
    for name, (least, most) in bounds.items():
        value = getattr(config, name, None)
        for number in value if isinstance(value, tuple) else () if value is None else (value,):
            # NaN compares false.
            if not (least <= number <= most and math.isfinite(number)):
                raise FieldError(config, (name,), f"must be {_described(least, most)}, got {value}")


def require_above_zero(config: Any, *names: str) -> None:
    """Check that numbers are positive and finite; None passes. Raises FieldError like `require_within`."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 < value < math.inf:
            raise FieldError(config, (name,), f"must be positive, got {value}")


def _described(least: float | int, most: float | int) -> str:
    if most in (math.inf, ANY_SIZE):
        return f"at least {least}"
    return f"from {least} to {most}"
