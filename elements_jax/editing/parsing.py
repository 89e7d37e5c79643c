"""The JSON of an edit script, before its fields are read."""

import json
from typing import Any


class EditError(ValueError):
    """An edit script cannot be read or applied; the message names the field and what was expected."""


def parse_object(text: str) -> dict[str, Any]:
    """Parse a script's JSON into its fields. Raises EditError for text that is not a JSON object."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            names = [name for name, _ in pairs]
            raise EditError(f"{next(name for name in names if names.count(name) > 1)}: given twice")
        return fields

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except EditError:
        raise
    except (ValueError, RecursionError) as error:
        raise EditError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise EditError("expected an object with the field edits")
    return value
