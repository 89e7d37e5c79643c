"""elements-jax: Editable Image Elements for Controllable Synthesis (Mu et al., ECCV 2024) in JAX and Flax.

The public names below are imported on first use: `import elements_jax` loads no JAX, and `elements_jax.data` (NumPy
only) works without JAX, as the `partition` package needs.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elements_jax.data.photo import Photo as Photo
    from elements_jax.data.record import Record as Record
    from elements_jax.editing.apply import Edited as Edited
    from elements_jax.editing.apply import apply_script as apply_script
    from elements_jax.editing.edits import Canvas as Canvas
    from elements_jax.editing.edits import Transform as Transform
    from elements_jax.editing.edits import compose as compose
    from elements_jax.editing.edits import delete as delete
    from elements_jax.editing.edits import element_mask as element_mask
    from elements_jax.editing.edits import move as move
    from elements_jax.editing.edits import resize as resize
    from elements_jax.editing.edits import stack as stack
    from elements_jax.editing.edits import transform as transform
    from elements_jax.editing.script import EditScript as EditScript
    from elements_jax.elements import ImageElements as ImageElements
    from elements_jax.photograph.edit import edit_photograph as edit_photograph
    from elements_jax.photograph.file import Photograph as Photograph
    from elements_jax.pipeline.pipeline import ElementsPipeline as ElementsPipeline
    from elements_jax.pipeline.session import EditSession as EditSession

try:
    __version__ = version("elements-jax")  # set by setuptools-scm from the git tag
except PackageNotFoundError:  # a clone that is on the path but not installed
    __version__ = "0.1.0"

PHOTO = Path(__file__).with_name("weights") / "photo"
"""The bundled model of photographs, the default of the commands for them: stage 1 of the preset `photo`."""
TINY = PHOTO.with_name("tiny")
"""The bundled model of drawn scenes, with both stages: the preset `tiny`."""

_HOMES = {
    "data.photo": ["Photo"],
    "data.record": ["Record"],
    "editing.apply": ["Edited", "apply_script"],
    "editing.edits": [
        "Canvas", "Transform", "stack", "compose", "delete", "move", "resize", "element_mask", "transform"
    ],
    "editing.script": ["EditScript"],
    "elements": ["ImageElements"],
    "photograph.edit": ["edit_photograph"],
    "photograph.file": ["Photograph"],
    "pipeline.pipeline": ["ElementsPipeline"],
    "pipeline.session": ["EditSession"],
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}
__all__ = ["PHOTO", "TINY", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'elements_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"elements_jax.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
