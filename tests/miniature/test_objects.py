"""Objects as generators draw them: in two colours, with black stripes, touching each other."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from miniature.checker import check, find_objects
from miniature.scenes import RGB, Color, Group, Scene, Shape, outline_of

DAY, NIGHT = (236, 238, 238), (24, 24, 32)
Picture = NDArray[np.uint8]


def _draw(
    objects: list[tuple[Shape, Color, float, float, float]],
    background: tuple[int, int, int] = DAY,
    side: int = 256,
) -> Image.Image:
    image = Image.new("RGB", (side, side), background)
    for shape, color, x, y, radius in objects:
        corners = outline_of(shape, x * side, y * side, radius * side)
        ImageDraw.Draw(image).polygon(corners, fill=RGB[color])
    return image


def _small(image: Image.Image) -> Picture:
    return np.asarray(image.resize((64, 64), Image.Resampling.BOX))


def _recolored(
    image: Image.Image, box: tuple[int, int, int, int], old: Color, new: tuple[int, int, int]
) -> Picture:
    pixels = np.array(image)
    left, top, right, bottom = box
    part = pixels[top:bottom, left:right]
    part[(part == RGB[old]).all(-1)] = new
    return _small(Image.fromarray(pixels))


def test_a_star_in_two_colours_is_one_star() -> None:
    image = _draw([("star", "cyan", 0.5, 0.5, 0.22)])
    (found,) = find_objects(_recolored(image, (0, 0, 256, 120), "cyan", RGB["blue"]))
    assert (found.shape, found.pure) == ("star", False)
    assert found.x == pytest.approx(0.5, abs=0.02)
    assert found.y == pytest.approx(0.5, abs=0.05)


def test_its_colour_is_doubtful_and_its_shape_is_not() -> None:
    image = _draw([("star", "cyan", 0.5, 0.5, 0.22)])
    picture = _recolored(image, (0, 0, 256, 120), "cyan", RGB["blue"])
    color = find_objects(picture)[0].color
    other = {"cyan": "blue", "blue": "cyan"}[color]

    def asked(told: str | None) -> bool | None:
        return check(picture, {"groups": [{"shape": "star", "color": told, "count": 1}], "relation": None})

    assert asked(None) is True
    assert asked(color) is None
    assert asked(other) is False


def test_two_objects_that_touch_keep_their_colours() -> None:
    found = find_objects(
        _small(_draw([("square", "red", 0.33, 0.5, 0.19), ("circle", "blue", 0.68, 0.5, 0.2)]))
    )
    assert {(f.shape, f.color, f.pure) for f in found} == {("square", "red", True), ("circle", "blue", True)}


def test_three_stars_that_touch_are_three() -> None:
    places = [(0.28, 0.35), (0.72, 0.33), (0.5, 0.72)]
    image = _draw([("star", "yellow", x, y, 0.2) for x, y in places])
    ImageDraw.Draw(image).line(
        [(x * 256, y * 256) for x, y in [*places, places[0]]], fill=RGB["yellow"], width=3
    )
    found = find_objects(_small(image))
    assert [(f.shape, f.color) for f in found] == 3 * [("star", "yellow")]
    for x, y in places:
        assert min(np.hypot(f.x - x, f.y - y) for f in found) < 0.04


def _striped(background: tuple[int, int, int]) -> Picture:
    """A square with two black stripes, one of them along its upper side."""
    pixels = np.array(_draw([("square", "yellow", 0.5, 0.5, 0.2)], background))
    top = 128 - round(0.86 * 0.2 * 256)
    for start in (top, top + 32):
        part = pixels[start : start + 16]
        part[(part == RGB["yellow"]).all(-1)] = (14, 12, 4)
    return _small(Image.fromarray(pixels))


def test_black_stripes_belong_to_the_object_by_day() -> None:
    (found,) = find_objects(_striped(DAY))
    assert (found.shape, found.color, found.texture) == ("square", "yellow", "striped")
    assert found.y == pytest.approx(0.5, abs=0.02)


def test_at_night_they_cannot_be_told_from_what_is_around() -> None:
    facts = {"groups": [{"shape": "square", "color": "yellow", "count": 1}], "relation": None}
    assert check(_striped(NIGHT), facts | {"texture": "striped"}) is not True


def test_an_outline_is_no_part_of_an_object() -> None:
    """A black outline joins neighbours; each is found as if it had none."""
    image = _draw([("circle", "green", 0.3, 0.5, 0.17), ("circle", "green", 0.68, 0.5, 0.17)])
    for x in (0.3, 0.68):
        box = [(x - 0.18) * 256, 0.32 * 256, (x + 0.18) * 256, 0.68 * 256]
        ImageDraw.Draw(image).ellipse(box, outline=(20, 20, 24), width=5)
    found = find_objects(_small(image))
    assert [(f.shape, f.color) for f in found] == 2 * [("circle", "green")]
    assert Scene((Group("circle", "green", 2),), None, "day", "poster").groups[0].count == len(found)
