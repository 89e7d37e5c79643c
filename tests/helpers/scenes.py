"""Scenes of 32 px under a partition into squares."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from elements_jax.config import ElementsConfig
from elements_jax.data.record import Record
from elements_jax.editing.edits import Canvas
from elements_jax.editing.script import EditScript
from elements_jax.elements import ImageElements
from elements_jax.evaluation.methods.pixel_editing import pixel_edit
from elements_jax.scenes import drawn as scenes
from tests.helpers.records import SMALL

SIZE, GRID = 32, 8


SCENES = dataclasses.replace(
    SMALL,
    elements=ElementsConfig(image_size=SIZE, grid=GRID, patch_size=4, content_channels=8, frequencies=2),
    text=dataclasses.replace(SMALL.text, max_length=32),
)


def squares(size: int = SIZE, grid: int = GRID) -> np.ndarray:
    cell = np.arange(size) * grid // size
    return (cell[:, None] * grid + cell).astype(np.uint16)


def cells(seed: int, count: int = GRID**2, size: int = SIZE) -> np.ndarray:
    """Return another partition: the nearest of random points."""
    points = np.random.default_rng(seed).uniform(0, size, (count, 1, 1, 2))
    at = np.stack(np.mgrid[:size, :size], -1) + 0.5
    return np.argmin(((at - points) ** 2).sum(-1), axis=0).astype(np.uint16)


def scene_record(seed: int, label_map: np.ndarray | None = None) -> Record:
    described = scenes.scene(seed, SIZE)
    image, objects = scenes.render(described)
    masks = np.stack([objects == k for k in range(1, len(described.shapes) + 1)])
    label_map = squares() if label_map is None else label_map
    return Record(image, label_map, described.caption, masks, f"scene-{seed:07d}.png", {"num_elements": GRID**2})


CELL = SIZE // GRID


def canvas(seed: int = 0) -> Canvas:
    count = GRID**2
    centre = (np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID)), -1).reshape(-1, 2) + 0.5) / GRID
    position = jnp.float32(np.concatenate([centre, np.full((count, 2), 1 / GRID)], axis=1))
    content = jnp.float32(np.random.default_rng(seed).normal(size=(count, 2)))
    picture = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    return Canvas(ImageElements(content, position, jnp.ones(count, bool)), jnp.int32(squares()), jnp.asarray(picture))


def run(*steps, of: Canvas | None = None):
    return pixel_edit(EditScript(steps), of or canvas(), lambda name, _: canvas(int(name)))


def block(row: int, column: int) -> tuple[slice, slice]:
    return slice(CELL * row, CELL * (row + 1)), slice(CELL * column, CELL * (column + 1))
