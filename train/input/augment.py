"""Random augmentation of examples: image, label map and object mask change in the same way."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from train.input.stored import Example


class Augmentation(NamedTuple):
    """Mirrors and crops examples, each with its own draws."""

    flip: bool = False
    """Whether half of the examples are mirrored, left to right."""
    crop: float = 1.0
    """Least side of the random square that is enlarged to the image's size, as a fraction of the image's; 1 is all of
    it."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the example with another `image`, `label_map` and, if it has one, `object_mask`.

        Images are interpolated (bicubic); label maps and masks take the nearest pixel.
        """
        pixels = {name: example[name] for name in ("image", "label_map", "object_mask") if name in example}
        mirrored, scale, across, down = rng.random(4)
        if self.crop < 1:
            height, width = pixels["label_map"].shape
            side = self.crop + scale * (1 - self.crop)
            left, top = across * (1 - side) * width, down * (1 - side) * height
            box = (left, top, left + side * width, top + side * height)
            image = Image.fromarray(pixels.pop("image")).resize((width, height), Image.Resampling.BICUBIC, box)
            rows = (top + (np.arange(height) + 0.5) * side).astype(int)
            columns = (left + (np.arange(width) + 0.5) * side).astype(int)
            pixels = {name: array[rows[:, None], columns] for name, array in pixels.items()}
            pixels["image"] = np.asarray(image)
        if self.flip and mirrored < 0.5:
            pixels = {name: array[:, ::-1] for name, array in pixels.items()}
        return example | pixels
