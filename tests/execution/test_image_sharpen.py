import math

import pytest
import torch

from flowsmith.execution import ExecutionError, ModelLibrary
from flowsmith.execution.nodes import find_node
from flowsmith.execution.sharpness import sharpen
from tests.execution.running import run

SHARPEN = {"sharpen_radius": 1, "sigma": 1.0, "alpha": 1.0}


def test_a_dot_by_hand() -> None:
    """One brighter pixel: the blur leaves it the kernel's middle, and gives its neighbours the rest."""
    sigma, alpha, base, dot = 0.8, 0.02, 0.5, 0.6
    image = torch.full((1, 3, 5, 5), base)
    image[:, 1, 2, 2] = dot
    edge, corner = math.exp(-1 / (2 * sigma**2)), math.exp(-2 / (2 * sigma**2))
    whole = 1 + 4 * edge + 4 * corner
    expected = torch.full((5, 5), base)
    step = dot - base
    expected[2, 2] = dot + 10 * alpha * step * (1 - 1 / whole)
    for y, x in ((1, 2), (3, 2), (2, 1), (2, 3)):
        expected[y, x] = base - 10 * alpha * step * edge / whole
    for y, x in ((1, 1), (1, 3), (3, 1), (3, 3)):
        expected[y, x] = base - 10 * alpha * step * corner / whole
    sharp = sharpen(image, sigma, alpha)[0]
    torch.testing.assert_close(sharp[1], expected)
    torch.testing.assert_close(sharp[0], torch.full((5, 5), base))  # the other channels have nothing of it


def test_borders_are_mirrored() -> None:
    """A ramp is straight but at its ends, where the mirrored neighbour stands in for the missing one."""
    ramp = torch.linspace(0.4, 0.5, 6).expand(1, 3, 4, 6)
    sharp = sharpen(ramp, 1.0, 0.05)
    edge = math.exp(-0.5) / (1 + 2 * math.exp(-0.5))  # the kernel across, summed down
    torch.testing.assert_close(sharp[..., 1:5], ramp[..., 1:5])
    torch.testing.assert_close(sharp[..., 0], ramp[..., 0] - 0.5 * 2 * edge * 0.02)


def test_flat_images_and_no_strength_change_nothing_and_values_stay_in_range() -> None:
    noise = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sharpen(noise, 1.0, 0.0), noise)
    flat = torch.full((1, 3, 4, 4), 0.3)
    torch.testing.assert_close(sharpen(flat, 2.0, 5.0), flat)
    sharp = sharpen(noise, 1.0, 5.0)
    assert (float(sharp.min()), float(sharp.max())) == (0.0, 1.0)


def test_rows_together_are_as_alone() -> None:
    node = find_node("ImageSharpen")
    noise = torch.rand(2, 2, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    rows = [{"image": image, **SHARPEN} for image in noise]
    assert node.group(rows[0]) == node.group(rows[1]) != node.group({**rows[0], "alpha": 0.5})
    together = node.run(rows, ModelLibrary("."))
    for row, (image,) in zip(rows, together, strict=True):
        torch.testing.assert_close(image, sharpen(row["image"], 1.0, 1.0))


def test_refusals_name_what_was_set() -> None:
    image = torch.zeros(1, 3, 1, 8)
    with pytest.raises(ExecutionError, match="image of 1 x 8 cannot be blurred or sharpened"):
        run(ModelLibrary("."), "ImageSharpen", image=image, **SHARPEN)
    with pytest.raises(ExecutionError, match=r"sharpen_radius=2 cannot be run here.*use 1"):
        run(ModelLibrary("."), "ImageSharpen", image=image, **{**SHARPEN, "sharpen_radius": 2})
