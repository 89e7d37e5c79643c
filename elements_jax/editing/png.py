"""A result: a picture as a PNG that carries all that made it, and nothing that differs from run to run."""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from elements_jax import __version__
from elements_jax.editing.script import EditScript


def encode_png(picture: UInt8[np.ndarray, "H W 3"], script: EditScript, settings: Mapping[str, Any]) -> bytes:
    """A PNG with script and settings in its text chunks, where `EditScript.from_file` finds the script again."""
    text = {
        "Software": f"elements-jax {__version__}",
        "script": script.to_json(),
        "prompt": script.prompt,
        "seed": script.seed,
        **settings,
    }
    chunks = PngInfo()
    for name, value in text.items():
        chunks.add_text(name, value if isinstance(value, str) else json.dumps(value))
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", pnginfo=chunks)
    return file.getvalue()
