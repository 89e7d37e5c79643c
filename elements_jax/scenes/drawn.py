"""The synthetic set `scenes`: textured shapes on a textured background, and the true result of any edit.

A `Scene` is a description; editing it and rendering it again is the ground truth of an edit. A shape's texture
is defined in the shape's own coordinates, so that it moves, turns and grows with it, like copied image elements.
Everything follows from a seed. Coordinates are (x, y) in [0, 1], from the top left corner.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, UInt8
from tqdm import tqdm

from elements_jax.scenes.folder import write_scene

Colour: TypeAlias = tuple[int, int, int]
Plane: TypeAlias = Float[np.ndarray, "rows columns"]

COLOURS: dict[str, Colour] = {
    "red": (214, 40, 40),
    "orange": (245, 130, 20),
    "yellow": (250, 208, 40),
    "green": (46, 140, 62),
    "teal": (0, 150, 155),
    "blue": (40, 85, 205),
    "purple": (125, 50, 190),
    "pink": (240, 105, 170),
    "brown": (125, 75, 40),
    "white": (246, 246, 246),
    "black": (24, 24, 30),
}
WHITE, BLACK = COLOURS["white"], COLOURS["black"]


def _polygon(corners: int) -> Callable[[Plane, Plane], Bool[np.ndarray, "rows columns"]]:
    """Return a regular polygon within the unit circle, standing on a side."""
    outward = np.pi / 2 + 2 * np.pi * np.arange(corners) / corners
    apothem = np.cos(np.pi / corners)
    return lambda x, y: np.all([x * np.cos(a) + y * np.sin(a) <= apothem for a in outward], axis=0)


def _star(x: Plane, y: Plane) -> Bool[np.ndarray, "rows columns"]:
    """Test for a star: five points on the unit circle, notches at half the radius."""
    turn = np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + turn) % (2 * turn) - turn)  # angle from the axis of the nearest point
    radius = np.hypot(x, y)
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    notch_x, notch_y = 0.5 * np.cos(turn), 0.5 * np.sin(turn)
    return (1 - along) * notch_y >= across * (1 - notch_x)


# For each kind, the test for its points: (x, y) with the centre at 0, y down, within the unit circle.
_INSIDE: dict[str, Callable[[Plane, Plane], Bool[np.ndarray, "rows columns"]]] = {
    "circle": lambda x, y: x**2 + y**2 <= 0.9**2,
    "ellipse": lambda x, y: x**2 + (y / 0.65) ** 2 <= 1,
    "square": _polygon(4),
    "rectangle": lambda x, y: (np.abs(x) <= 0.87) & (np.abs(y) <= 0.48),
    "triangle": _polygon(3),
    "hexagon": _polygon(6),
    "star": _star,
    "cross": lambda x, y: (np.minimum(np.abs(x), np.abs(y)) <= 0.34) & (np.maximum(np.abs(x), np.abs(y)) <= 0.94),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.68) <= 0.28,
    "heart": lambda x, y: (1.25 * x) ** 2 + (0.2 - 1.3 * y - 0.8 * np.sqrt(np.abs(x))) ** 2 <= 0.9,
}


# For each kind, the share of the second tone, in [0, 1]; a pattern repeats, or changes, over about one unit.
_TURN = 2 * math.pi
_PATTERN: dict[str, Callable[[Plane, Plane], np.ndarray]] = {
    "plain": lambda x, y: np.zeros_like(x),
    "striped": lambda x, y: np.sin(_TURN * x) > 0,
    "checked": lambda x, y: np.sin(_TURN * x) * np.sin(_TURN * y) > 0,
    "dotted": lambda x, y: np.cos(_TURN * x) + np.cos(_TURN * y) > 0.8,
    "shaded": lambda x, y: 0.5 + 0.5 * np.sin(1.5 * (x - 0.5)),
    "marbled": lambda x, y: 0.5 + 0.5 * np.sin(2.2 * x + 1.7 * np.sin(1.9 * y + 0.8) + 0.9 * np.sin(3.1 * x - 2.3 * y)),
}

SHAPES: tuple[str, ...] = tuple(_INSIDE)
TEXTURES: tuple[str, ...] = tuple(_PATTERN)


@dataclass(frozen=True)
class Texture:
    """A pattern of two tones of a colour, over the plane."""

    kind: str
    colour: str
    """The colour in the caption's words: "red", "light green"."""
    tones: tuple[Colour, Colour]
    period: float
    angle: float
    phase: tuple[float, float]

    @property
    def words(self) -> str:
        return self.colour if self.kind == "plain" else f"{self.colour} {self.kind}"

    def weight(self, x: Plane, y: Plane) -> Plane:
        """Return the share of the second tone at these points, in [0, 1]."""
        cosine, sine = math.cos(self.angle) / self.period, math.sin(self.angle) / self.period
        along, across = x * cosine + y * sine + self.phase[0], y * cosine - x * sine + self.phase[1]
        return _PATTERN[self.kind](along, across).astype(np.float32)


@dataclass(frozen=True)
class Shape:
    """A textured shape within the circle of diameter `size` about `centre`."""

    kind: str
    texture: Texture
    centre: tuple[float, float]
    size: float
    rotation: float

    @property
    def words(self) -> str:
        return f"{self.texture.words} {self.kind}"


@dataclass(frozen=True)
class Edit:
    """One edit of the k-th shape; `Scene.edited` gives the truth. Unused parameters are zero, or one for `scale`."""

    kind: Literal["move", "resize", "delete"]
    k: int
    dx: float = 0.0
    dy: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True)
class Scene:
    """Shapes, back to front, on a background. Shapes are numbered from 1, as in the label map.

    Edits return a new scene and keep the order of the other shapes. They raise ValueError if there is no k-th shape.
    """

    background: Texture
    shapes: tuple[Shape, ...]
    size: int
    """Image size in pixels."""

    @property
    def caption(self) -> str:
        """A caption such as "a red striped circle and a blue star on a light green checked background"."""
        named = [with_article(shape.words) for shape in self.shapes] or ["nothing"]
        listed = " and ".join([", ".join(named[:-1]), named[-1]] if named[:-1] else named)
        return f"{listed} on {with_article(self.background.words)} background"

    def move(self, k: int, dx: float, dy: float) -> "Scene":
        """Move the k-th shape by (dx, dy)."""
        x, y = self._shape(k).centre
        return self._with(k, dataclasses.replace(self._shape(k), centre=(x + dx, y + dy)))

    def resize(self, k: int, scale: float) -> "Scene":
        """Scale the k-th shape about its centre."""
        return self._with(k, dataclasses.replace(self._shape(k), size=scale * self._shape(k).size))

    def delete(self, k: int) -> "Scene":
        """Delete the k-th shape; the numbers of shapes in front of it decrease by one."""
        return self._with(k)

    def insert(self, shape: Shape) -> "Scene":
        """Insert a shape in front of all others."""
        return dataclasses.replace(self, shapes=(*self.shapes, shape))

    def edited(self, edit: Edit) -> "Scene":
        """Return the scene after `edit`."""
        if edit.kind == "delete":
            return self.delete(edit.k)
        return self.move(edit.k, edit.dx, edit.dy) if edit.kind == "move" else self.resize(edit.k, edit.scale)

    def _shape(self, k: int) -> Shape:
        if not 1 <= k <= len(self.shapes):
            raise ValueError(f"the scene has shapes 1 to {len(self.shapes)}, got {k}")
        return self.shapes[k - 1]

    def _with(self, k: int, *replacement: Shape) -> "Scene":
        self._shape(k)
        return dataclasses.replace(self, shapes=(*self.shapes[: k - 1], *replacement, *self.shapes[k:]))


def render(scene: Scene) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W"]]:
    """Render the antialiased image and its label map: k where most of a pixel shows the k-th shape, else 0."""
    samples = 4  # per side of each pixel
    at = (np.arange(samples * scene.size, dtype=np.float32) + 0.5) / (samples * scene.size)
    weights = scene.background.weight(*np.meshgrid(2 * at - 1, 2 * at - 1))
    labels = np.zeros(weights.shape, np.uint8)
    for k, shape in enumerate(scene.shapes, start=1):
        (x, y), radius = shape.centre, shape.size / 2
        columns, rows = (slice(*np.searchsorted(at, (c - radius, c + radius))) for c in (x, y))
        right, down = np.meshgrid((at[columns] - x) / radius, (at[rows] - y) / radius)
        cosine, sine = math.cos(shape.rotation), math.sin(shape.rotation)
        own_x, own_y = right * cosine + down * sine, down * cosine - right * sine
        inside = _INSIDE[shape.kind](own_x, own_y)
        weights[rows, columns][inside] = shape.texture.weight(own_x, own_y)[inside]
        labels[rows, columns][inside] = k

    def per_pixel(array: Plane) -> Float[np.ndarray, "H W"]:
        rows = np.add.reduce([array[i::samples] for i in range(samples)])
        return np.add.reduce([rows[:, i::samples] for i in range(samples)]) / samples**2

    picture, coverage = np.zeros((scene.size, scene.size, 3), np.float32), []
    for k, texture in enumerate((scene.background, *(shape.texture for shape in scene.shapes))):
        first, second = np.array(texture.tones, np.float32)
        shown = (labels == k).astype(np.float32)
        coverage.append(per_pixel(shown))
        picture += coverage[k][..., None] * first + per_pixel(weights * shown)[..., None] * (second - first)
    return np.rint(picture).astype(np.uint8), np.argmax(coverage, axis=0).astype(np.uint8)


def scene(seed: int, size: int = 64) -> Scene:
    """Return the scene of a seed: one to four shapes, which may overlap but not hide each other, in `size` pixels."""
    rng = np.random.default_rng(seed)
    name, brightness = _pick(rng, tuple(COLOURS)[:-2]), _pick(rng, ("light", "dark"))
    grey, *shares = {"light": (WHITE, 0.72, 0.55), "dark": (BLACK, 0.62, 0.74)}[brightness]
    tones = _mix(COLOURS[name], grey, shares[0]), _mix(COLOURS[name], grey, shares[1])
    background = _texture(rng, f"{brightness} {name}", tones, period=rng.uniform(0.5, 0.8))

    colours = [name for name, colour in COLOURS.items() if min(math.dist(colour, tone) for tone in tones) > 130]
    shapes: list[Shape] = []
    for name in rng.permutation(colours)[: rng.integers(1, 5)].tolist():
        texture = _texture(rng, name, _tones(rng, COLOURS[name], tones), period=rng.uniform(0.8, 1.1))
        kind, diameter, rotation = _pick(rng, SHAPES), rng.uniform(0.28, 0.48), rng.uniform(-0.5, 0.5)
        places = (Shape(kind, texture, _place(rng, diameter), diameter, rotation) for _ in range(50))
        shapes.extend(itertools.islice((shape for shape in places if _room(shape, shapes) > 0.7), 1))
    return Scene(background, tuple(shapes), size)


def sample_edits(scene: Scene, seed: int) -> tuple[Edit, Edit, Edit]:
    """Draw a move, a resize and a deletion of shapes that stay uncovered, to where there is most room."""
    rng = np.random.default_rng(seed)
    whole = [k for k, shape in enumerate(scene.shapes, start=1) if _room(shape, scene.shapes[k:]) > 1]

    def move() -> Edit:
        k = int(rng.choice(whole))
        shape = scene.shapes[k - 1]
        places = (np.subtract(_place(rng, shape.size), shape.centre) for _ in itertools.count())
        dx, dy = next(step for step in places if np.hypot(*step) > 0.2).tolist()
        return Edit("move", k, dx=dx, dy=dy)

    def resize() -> Edit:
        return Edit("resize", int(rng.choice(whole)), scale=rng.uniform(*scales))

    def room(edit: Edit) -> tuple[bool, float]:
        edited, others = scene.edited(edit).shapes[edit.k - 1], scene.delete(edit.k).shapes
        return _room(edited, scene.shapes[edit.k :]) > 1, _room(edited, others)

    scales = (0.6, 0.8) if rng.uniform() < 0.5 else (1.25, 1.5)
    roomiest = [max((draw() for _ in range(24)), key=room) for draw in (move, resize)]
    return roomiest[0], roomiest[1], Edit("delete", int(rng.choice(whole)))


def roomiest(shape: Shape, scene: Scene, seed: int) -> Shape:
    """Move the shape to the one of 24 random places in the image with most room between the scene's shapes."""
    rng = np.random.default_rng(seed)
    placed = [dataclasses.replace(shape, centre=_place(rng, shape.size)) for _ in range(24)]
    return max(placed, key=lambda each: _room(each, scene.shapes))


def write_folder(out: Path, seeds: range, size: int = 64) -> None:
    """Write scenes as the folder of photos that `python -m partition OUT --masks OUT/masks` reads.

    For each seed: `scene-SEED.png`, its caption `scene-SEED.txt`, and its label map `masks/scene-SEED.png`.
    """
    for seed in tqdm(seeds, desc="scenes", unit="scene"):
        described = scene(seed, size)
        write_scene(out, f"scene-{seed:07d}", *render(described), described.caption)


def _pick(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _texture(rng: np.random.Generator, colour: str, tones: tuple[Colour, Colour], period: float) -> Texture:
    phase = (rng.uniform(), rng.uniform())
    return Texture(_pick(rng, TEXTURES), colour, tones, period, angle=rng.uniform(0, math.pi), phase=phase)


def _tones(rng: np.random.Generator, colour: Colour, background: tuple[Colour, Colour]) -> tuple[Colour, Colour]:
    """Return the colour and a lighter or darker tone: random if both are far from the background, else the farther."""
    tones = _lighter(colour), _darker(colour)
    fit = [min(math.dist(tone, other) for other in (*background, colour)) for tone in tones]
    return colour, tones[rng.integers(2)] if min(fit) > 90 else tones[int(np.argmax(fit))]


def tones_of(colour: str, lighter: bool) -> tuple[Colour, Colour]:
    """Return the two tones of a shape of this colour: itself, and a lighter or darker one."""
    return COLOURS[colour], (_lighter if lighter else _darker)(COLOURS[colour])


def _lighter(colour: Colour) -> Colour:
    return _mix(colour, WHITE, 0.6)


def _darker(colour: Colour) -> Colour:
    return _mix(colour, BLACK, 0.5)


def _place(rng: np.random.Generator, size: float) -> tuple[float, float]:
    """Draw a centre such that a shape of this size is within the image, or nearly."""
    return rng.uniform(0.48 * size, 1 - 0.48 * size), rng.uniform(0.48 * size, 1 - 0.48 * size)


def _room(shape: Shape, others: Sequence[Shape]) -> float:
    """Return the smallest distance to another shape over the sum of radii: above 1 they do not touch."""
    gaps = ((math.dist(shape.centre, other.centre), (shape.size + other.size) / 2) for other in others)
    return min((distance / radii for distance, radii in gaps), default=math.inf)


def _mix(colour: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def with_article(words: str) -> str:
    """Prefix the words with "a" or "an"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
