"""Result files: PNGs with the script and settings that made them, and nothing that differs between runs."""

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
    """Encode a PNG with script and settings in its text chunks, from which `EditScript.from_file` reads the script."""
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
