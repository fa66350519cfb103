"""Nodes that make and change latents and images, by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor

from flowsmith.execution import ExecutionError, ModelLibrary
from flowsmith.execution.models import LatentFormat
from flowsmith.execution.nodes.values import EmptyLatent
from flowsmith.execution.scaling import scale_to
from tests.execution.running import run

LIBRARY = ModelLibrary(".")
SD = LatentFormat(4, 8, 0.18215)


def result(name: str, **inputs: Any) -> Any:
    return run(LIBRARY, name, **inputs)


def ramp(height: int, width: int) -> Tensor:
    """Two channels that count rows and columns."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns])[None].float()


UPSCALE = {"upscale_method": "nearest-exact", "crop": "disabled"}


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (128, 96, (12, 16)),
        (0, 192, (24, 12)),
        (96, 0, (24, 12)),
        (0, 0, (16, 8)),
        (8, 8, (8, 8)),
        (100, 100, (12, 12)),
    ],
)
def test_latents_are_resized_to_pixels(width: int, height: int, expected: tuple[int, int]) -> None:
    """16 x 8 latents are 128 x 64 pixels; no side becomes less than 64, and parts of a latent are cut off."""
    size = {"width": width, "height": height}
    assert tuple(result("LatentUpscale", samples=ramp(16, 8), **size, **UPSCALE).shape[-2:]) == expected
    empty = result("LatentUpscale", samples=EmptyLatent(64, 128, 2), **size, **UPSCALE)
    assert empty.shape(SD) == (2, 4, *expected)


def test_an_empty_latent_forgets_its_scalings_when_it_is_resized() -> None:
    empty = EmptyLatent(64, 128).scaled(1.5)
    assert empty.size == (96, 192)
    wide = result("LatentUpscale", samples=empty, width=192, height=0, **UPSCALE)
    assert (wide.size, wide.scales) == ((192, 384), ())


def test_what_the_new_ratio_has_no_room_for_is_cut_off_in_halves() -> None:
    cut = scale_to(ramp(4, 10), "nearest-exact", 4, 4, cut=True)
    assert cut[0, 1, 0].tolist() == [3, 4, 5, 6]
    cut = scale_to(ramp(9, 4), "nearest-exact", 4, 4, cut=True)  # 2.5 rows off either side round to 2
    assert [cut[0, 0, 0, 0], cut[0, 0, -1, 0]] == [2, 6]
    for size in ((0, 4), (4, 0)):
        with pytest.raises(ExecutionError, match="is no size"):
            scale_to(ramp(4, 4), "area", *size)


def test_latents_are_laid_over_others() -> None:
    below, above = torch.zeros(1, 1, 6, 8), torch.ones(1, 1, 4, 4)
    got = result("LatentComposite", samples_to=below, samples_from=above, x=16, y=24, feather=0)
    expected = torch.zeros(6, 8)
    expected[3:, 2:6] = 1  # its last row lies outside
    assert torch.equal(got[0, 0], expected)
    assert not below.any()


def test_edges_within_the_picture_are_soft() -> None:
    """Two latents of feather: the outer one weighs a half. What is cut off at the picture's end has no edge there."""
    got = result(
        "LatentComposite",
        samples_to=torch.zeros(1, 1, 6, 8), samples_from=torch.ones(1, 1, 5, 4), x=16, y=16, feather=16,
    )  # fmt: skip
    expected = torch.zeros(6, 8)
    expected[2:, 2:6] = torch.outer(torch.tensor([0.5, 1, 1, 1]), torch.tensor([0.5, 1, 1, 0.5]))
    assert torch.equal(got[0, 0], expected)


def test_nothing_is_laid_over_something_and_the_other_way_round() -> None:
    some, nothing = torch.ones(1, 4, 8, 8), EmptyLatent(32, 32)
    got = result("LatentComposite", samples_to=some, samples_from=nothing, x=0, y=0, feather=0)
    assert (got == 0).sum() == 4 * 16
    got = result("LatentComposite", samples_to=EmptyLatent(96, 64), samples_from=some, x=0, y=0, feather=0)
    assert got.shape == (1, 4, 8, 12)
    assert got.sum() == some.sum()
    assert result("LatentComposite", samples_to=nothing, samples_from=EmptyLatent(8, 8), x=0, y=0) is nothing


def test_latents_are_cut_and_repeated() -> None:
    cut = result("LatentCrop", samples=ramp(10, 12), width=64, height=80, x=80, y=8)
    assert cut.shape == (1, 2, 9, 8)
    assert cut[0, :, 0, 0].tolist() == [1, 4]  # moved inside, so that eight are left
    assert result("LatentCrop", samples=EmptyLatent(96, 96), width=64, height=80, x=0, y=0) == EmptyLatent(
        64, 80
    )
    assert torch.equal(
        result("RepeatLatentBatch", samples=ramp(2, 2), amount=2), ramp(2, 2).repeat(2, 1, 1, 1)
    )
    assert result("RepeatLatentBatch", samples=EmptyLatent(64, 64, 2), amount=3).images == 6


def test_images_are_cut_where_they_are() -> None:
    image = ramp(6, 8)
    assert torch.equal(result("ImageCrop", image=image, width=3, height=2, x=1, y=2), image[..., 2:4, 1:4])
    assert result("ImageCrop", image=image, width=9, height=9, x=99, y=99).shape == (1, 2, 1, 1)


@pytest.mark.parametrize(
    ("width", "height", "expected"), [(5, 0, (10, 5)), (0, 5, (5, 2)), (7, 3, (3, 7)), (0, 0, (12, 6))]
)
def test_a_side_of_zero_follows_from_the_other(width: int, height: int, expected: tuple[int, int]) -> None:
    size = {"width": width, "height": height, "upscale_method": "bilinear", "crop": "disabled"}
    assert tuple(result("ImageScale", image=ramp(12, 6), **size).shape[-2:]) == expected


def test_a_number_of_pixels_keeps_the_ratio() -> None:
    how = {"image": torch.zeros(1, 3, 100, 200), "upscale_method": "nearest-exact"}
    # 0.01 x 1048576 pixels are 72.4 x 144.8.
    assert result("ImageScaleToTotalPixels", megapixels=0.01, resolution_steps=1, **how).shape[-2:] == (
        72,
        145,
    )
    assert result("ImageScaleToTotalPixels", megapixels=0.01, resolution_steps=16, **how).shape[-2:] == (
        80,
        144,
    )


def test_only_a_radius_of_one_is_blurred() -> None:
    with pytest.raises(ExecutionError, match="blur_radius=2 cannot be run here"):
        result("ImageBlur", image=torch.zeros(1, 3, 8, 8), blur_radius=2, sigma=1.0)
