"""Types of command line arguments. Not in `object_store`, because worker processes do without `tyro`."""

from pathlib import Path
from typing import Annotated

import tyro

from elements_jax.data.object_store import AnyPath, as_path, is_url

PathOrURL = Annotated[
    AnyPath,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH|URL",
        instance_from_str=lambda arguments: as_path(arguments[0]),
        is_instance=lambda value: isinstance(value, Path) or is_url(value),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""A command line argument: a path or the URL of an object store."""
