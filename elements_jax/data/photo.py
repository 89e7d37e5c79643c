"""A photograph segmented into elements, as input of a model."""

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image


@dataclass(frozen=True, eq=False)
class Photo:
    """A model's input: a photograph, segmented into elements."""

    image: UInt8[np.ndarray, "S S 3"]
    label_map: Integer[np.ndarray, "S S"]
    """Each pixel's element, or DROPPED."""
    box: tuple[int, int, int, int]
    """Left, top, right and bottom of the photograph; margins surround it."""

    def __repr__(self) -> str:
        return f"Photo({self.image.shape[1]} x {self.image.shape[0]} px, {len(np.unique(self.label_map))} labels)"

    def _repr_png_(self) -> bytes:
        """Draw the photograph with lines between its elements, for notebooks."""
        factor = max(1, 512 // len(self.image))
        picture, labels = (
            np.kron(array, np.ones(shape, array.dtype))
            for array, shape in ((self.image, (factor, factor, 1)), (self.label_map, (factor, factor)))
        )
        picture[1:][labels[1:] != labels[:-1]] = picture[:, 1:][labels[:, 1:] != labels[:, :-1]] = (255, 235, 60)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        return file.getvalue()
