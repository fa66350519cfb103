"""The pictures of the miniature world: shapes of known colour, count, size, texture and place, settings and styles.

These factors are crossed: every one is drawn by itself, so no single label of a prompt tells the others.

Everything in a picture follows from a `Scene` and a random generator, so an exact checker can say what a
picture must hold (`miniature.checker`). All lengths are fractions of the picture's side; drawing is
supersampled, so a scene can be rendered at any size.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Color = Literal["red", "yellow", "green", "cyan", "blue", "pink"]
Shape = Literal["circle", "square", "triangle", "star"]
Setting = Literal["day", "dusk", "night"]
Style = Literal["poster", "pencil"]
Size = Literal["small", "large"]
Texture = Literal["plain", "striped"]
Relation = Literal["left", "right", "above", "below"]
COLORS, SHAPES, SETTINGS, STYLES = map(get_args, (Color, Shape, Setting, Style))
SIZES, TEXTURES, RELATIONS = map(get_args, (Size, Texture, Relation))

# Hues about 60 degrees apart, so that no two lie closer than what a small VAE can hold apart.
RGB: dict[Color, tuple[int, int, int]] = {
    "red": (228, 32, 32),
    "yellow": (244, 216, 24),
    "green": (32, 176, 48),
    "cyan": (32, 206, 226),
    "blue": (40, 64, 232),
    "pink": (232, 48, 200),
}
# Unsaturated, so that a background is never an object: (top, bottom) of a vertical gradient.
SKY: dict[Setting, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "day": ((244, 246, 248), (206, 206, 200)),
    "dusk": ((150, 142, 140), (104, 98, 96)),
    "night": ((14, 14, 22), (44, 42, 52)),
}
T = TypeVar("T")
MAX_OBJECTS = 3
# Radii by number of objects. Small and large never meet, so that a picture tells its size whatever its count.
RADII: dict[Size, dict[int, tuple[float, float]]] = {
    "small": {1: (0.115, 0.13), 2: (0.115, 0.13), 3: (0.115, 0.13)},
    "large": {1: (0.18, 0.23), 2: (0.165, 0.185), 3: (0.16, 0.17)},
}
STRIPE = 0.11  # from one stripe to the next: two on the smallest object, seven pixels at 64
_STRIPE_SHADE = 0.45  # of the colour: dark stripes keep their hue
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Group:
    """``count`` objects of one shape and one colour."""

    shape: Shape
    color: Color
    count: int = 1


@dataclass(frozen=True)
class Scene:
    """One or two groups; with two, ``relation`` says where the first stands, seen from the second.

    Size and texture are those of every object in the picture.
    """

    groups: tuple[Group, ...]
    relation: Relation | None
    setting: Setting
    style: Style
    size: Size = "large"
    texture: Texture = "plain"


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene: half of them with two groups, which differ in shape or colour; at most three objects."""
    first = Group(_pick(rng, SHAPES), _pick(rng, COLORS), int(rng.integers(1, MAX_OBJECTS + 1)))
    looks = (_pick(rng, SETTINGS), _pick(rng, STYLES), _pick(rng, SIZES), _pick(rng, TEXTURES))
    if rng.random() < 0.4:
        return Scene((first,), None, *looks)
    first = Group(first.shape, first.color, int(rng.choice([1, 1, 1, 2])))
    second = first
    while (second.shape, second.color) == (first.shape, first.color):
        count = int(rng.choice([1, 1, 1, 2])) if first.count == 1 else 1
        second = Group(_pick(rng, SHAPES), _pick(rng, COLORS), count)
    return Scene((first, second), _pick(rng, RELATIONS), *looks)


def render(scene: Scene, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw the scene as a ``size`` x ``size`` x 3 picture; ``rng`` places the objects and grains the paper."""
    canvas = _background(scene, size, rng)
    objects = [(g.shape, g.color) for g in scene.groups for _ in range(g.count)]
    for (shape, color), (x, y, radius) in zip(objects, place(scene, rng), strict=True):
        draw_object(canvas, shape, color, scene.style, scene.texture, (x, y, radius), rng)
    return np.asarray(np.clip(canvas + 0.5, 0, 255), np.uint8)


def draw_object(
    canvas: NDArray[np.float32],
    shape: Shape,
    color: Color,
    style: Style,
    texture: Texture,
    where: tuple[float, float, float],
    rng: np.random.Generator,
) -> None:
    """Lay one object on the canvas, supersampled within its own window alone."""
    size, (x, y, radius) = len(canvas), where
    left, top = (max(0, int((c - 1.3 * radius) * size)) for c in (x, y))
    right, bottom = (min(size, int((c + 1.3 * radius) * size) + 2) for c in (x, y))
    side = size * _OVERSAMPLING
    window = ((right - left) * _OVERSAMPLING, (bottom - top) * _OVERSAMPLING)
    mask = Image.new("L", window, 0)
    corners = outline_of(
        shape, x * side - left * _OVERSAMPLING, y * side - top * _OVERSAMPLING, radius * side
    )
    ImageDraw.Draw(mask).polygon(corners, fill=1)
    full = np.array(RGB[color], np.float32)
    paint = np.empty((window[1], window[0], 3), np.float32)
    paint[:] = full
    v, u = np.mgrid[0 : window[1], 0 : window[0]].astype(np.float32) / side
    if style == "pencil":  # diagonal hatching of the colour on a lighter tint of it
        tint = np.sin(2 * np.pi * (14 * (u + 0.8 * v) + float(rng.random()))) <= -0.1
        paint[tint] = 0.5 * full + 0.5 * 235
    if texture == "striped":
        paint[np.sin(2 * np.pi * (v / STRIPE + float(rng.random()))) > 0] *= _STRIPE_SHADE
    if style == "poster":  # a dark rim is what makes it a poster
        rim = Image.new("L", window, 0)
        ImageDraw.Draw(rim).line(
            [*corners, corners[0], corners[1]], fill=1, width=max(1, side // 64), joint="curve"
        )
        edge = np.asarray(rim) > 0
        mask = Image.fromarray(np.asarray(mask) | np.asarray(rim))
        paint[edge] = (20, 20, 24)
    inside = np.asarray(mask, np.float32)[..., None]
    shape4 = (bottom - top, _OVERSAMPLING, right - left, _OVERSAMPLING)
    alpha = inside.reshape(*shape4, 1).mean(axis=(1, 3))
    color_sum = (inside * paint).reshape(*shape4, 3).mean(axis=(1, 3))
    canvas[top:bottom, left:right] = canvas[top:bottom, left:right] * (1 - alpha) + color_sum


def place(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Return (x, y, radius) of every object: apart from each other, and each group on its side.

    Groups are split along the relation's axis: all of the first lie beyond all of the second by a margin.
    """
    total = sum(g.count for g in scene.groups)
    radius = float(rng.uniform(*RADII[scene.size][total]))
    low, high = radius + 0.03, 1 - radius - 0.03
    sides = [i for i, g in enumerate(scene.groups) for _ in range(g.count)]
    axis = 0 if scene.relation in ("left", "right") else 1
    sign = 1 if scene.relation in ("left", "above") else -1
    while True:
        centres = rng.uniform(low, high, (total, 2))
        apart = all(
            np.hypot(*(centres[i] - centres[j])) > 2.45 * radius + 0.05
            for i in range(total)
            for j in range(i)
        )
        gaps = [
            sign * (centres[j, axis] - centres[i, axis])
            for i in range(total)
            for j in range(total)
            if sides[i] < sides[j]
        ]
        if apart and all(gap > 1.6 * radius for gap in gaps):
            return [(float(x), float(y), radius) for x, y in centres]


def outline_of(shape: Shape, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Return the polygon of a shape around (x, y), of about equal extent for all shapes."""
    if shape == "square":
        r = 0.86 * radius
        return [(x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r)]
    corners, inner = {"circle": (48, 1.0), "triangle": (3, 1.0), "star": (5, 0.42)}[shape]
    grow = {"circle": 1.0, "triangle": 1.15, "star": 1.18}[shape]
    points = []
    for k in range(corners * 2):
        r = radius * grow * (1.0 if k % 2 == 0 or shape == "circle" else inner)
        if shape == "triangle" and k % 2:
            continue
        angle = np.pi * k / corners - np.pi / 2
        points.append((float(x + r * np.cos(angle)), float(y + r * np.sin(angle))))
    return points


def _pick(rng: np.random.Generator, options: tuple[T, ...]) -> T:
    return options[int(rng.integers(len(options)))]


def _background(scene: Scene, side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    top, bottom = (np.array(c, np.float32) for c in SKY[scene.setting])
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    canvas = np.broadcast_to(top * (1 - ramp) + bottom * ramp, (side, side, 3)).copy()
    if scene.style == "pencil":  # paper: grain, and strokes across it
        y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
        strokes = np.sin(2 * np.pi * (8 * (x + y) + float(rng.random())))
        canvas += 13 * strokes[..., None]
    return canvas
