from typing import Any

import numpy as np
import torch

from flowsmith.evaluation.contact_sheet import Sample, contact_sheet


def test_pictures_stand_under_their_prompt_and_designer() -> None:
    red, blue = torch.zeros(3, 2, 4, dtype=torch.uint8), torch.zeros(3, 2, 4, dtype=torch.uint8)
    red[0], blue[2, :, 1] = 200, 90
    rows: Any = [
        ("a $red$ star", {"x": Sample(red, 1.234), "y": Sample(None, None)}),
        ("a blue star", {"y": Sample(blue, -0.5)}),
    ]
    figure = contact_sheet(rows, ["y", "x"])
    y0, x0, y1, x1 = figure.axes
    assert [axis.get_xlabel() for axis in figure.axes] == ["y", "x +1.23", "y -0.50", "x"]
    assert [axis.get_title("left") for axis in figure.axes] == ["a $red$ star", "", "a blue star", ""]
    for axis, picture in ((x0, red), (y1, blue)):
        np.testing.assert_array_equal(axis.images[0].get_array(), picture.permute(1, 2, 0))
    for axis in (y0, x1):
        assert axis.images[0].get_array().tolist() == [[[0, 0, 0]]]  # type: ignore[union-attr]
