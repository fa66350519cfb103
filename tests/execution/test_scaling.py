from pathlib import Path

import numpy as np
import pytest
import torch

from flowsmith.execution import ExecutionError
from flowsmith.execution.scaling import bislerp, scale_by


@pytest.mark.parametrize("method", ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"])
def test_latents_as_recorded(parity: Path, method: str) -> None:
    with np.load(parity / "outputs.npz") as recorded:
        latents = torch.from_numpy(recorded["sampler|euler|normal"])
        expected = torch.from_numpy(recorded[f"latent_upscale|{method}"])
    torch.testing.assert_close(scale_by(latents, method, 1.5), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"])
def test_images_as_recorded(parity: Path, method: str) -> None:
    with np.load(parity / "outputs.npz") as recorded:
        image = torch.from_numpy(recorded["image|input"]).movedim(-1, 1)
        expected = torch.from_numpy(recorded[f"image|ImageScaleBy1.7|{method}"]).movedim(-1, 1)
    torch.testing.assert_close(scale_by(image, method, 1.7), expected, rtol=1e-5, atol=1e-6)


def test_bislerp_turns_where_bilinear_shortens() -> None:
    pair = torch.tensor([[[[1.0, 0.0]], [[0.0, 3.0]]]])  # two pixels, vectors (1, 0) and (0, 3)
    wide = bislerp(pair, 1, 4)[0, :, 0]
    # Samples at 0 (cut), 1/4, 3/4, 1 of the way: angle 90 degrees * part, length 1 + 2 * part.
    part = torch.tensor([0.0, 0.25, 0.75, 1.0])
    angle, length = part * torch.pi / 2, 1 + 2 * part
    torch.testing.assert_close(
        wide, torch.stack([length * angle.cos(), length * angle.sin()]), rtol=1e-5, atol=1e-6
    )


def test_bislerp_of_equal_opposite_and_zero_vectors() -> None:
    row = torch.tensor([[[[2.0, 2.0, -2.0, 0.0]], [[1.0, 1.0, -1.0, 0.0]]]])
    wide = bislerp(row, 1, 8)
    assert wide.isfinite().all()
    torch.testing.assert_close(wide[0, :, 0, :3], torch.tensor([[2.0] * 3, [1.0] * 3]))
    torch.testing.assert_close(
        wide[0, :, 0, 3], torch.tensor([1.0, 0.5])
    )  # a quarter from (2, 1) to (-2, -1)


@pytest.mark.parametrize(
    ("size", "factor", "expected"), [(5, 0.5, 2), (7, 0.5, 4), (20, 1.7, 34), (16, 1.25, 20)]
)
def test_sizes_round_halves_to_even(size: int, factor: float, expected: int) -> None:
    assert scale_by(torch.zeros(1, 3, size, size), "nearest-exact", factor).shape == (
        1,
        3,
        expected,
        expected,
    )


def test_refusals() -> None:
    with pytest.raises(ExecutionError, match="nothing"):
        scale_by(torch.zeros(1, 4, 8, 8), "area", 0.01)
    with pytest.raises(ExecutionError, match="nearest-exact"):
        scale_by(torch.zeros(1, 4, 8, 8), "cubic", 2.0)
