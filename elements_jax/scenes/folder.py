"""Folders of drawn images, the input of `elements partition OUT --masks OUT/masks`."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from elements_jax.data.atomic import new_file


def write_scene(
    out: Path, name: str, image: UInt8[np.ndarray, "H W 3"], label_map: UInt8[np.ndarray, "H W"], caption: str
) -> None:
    """Write `masks/NAME.png`, the caption `NAME.txt` and then `NAME.png`: if the image exists, all files are complete.

    Raises OSError that names the file.
    """
    (out / "masks").mkdir(parents=True, exist_ok=True)
    with new_file(out / "masks" / f"{name}.png") as file:
        Image.fromarray(label_map).save(file, "PNG")
    with new_file(out / f"{name}.txt") as file:
        file.write(f"{caption}\n".encode())
    with new_file(out / f"{name}.png") as file:
        Image.fromarray(image).save(file, "PNG")
