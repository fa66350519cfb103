import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flowsmith.execution.tiling import in_tiles
from flowsmith.execution.vae import LatentFormat, Vae
from tests.execution.layouts.small import vae


def larger(x: Tensor) -> Tensor:
    """Double a picture; every pixel depends on its own latent only, so tiles do not matter."""
    return F.interpolate(x, scale_factor=2, mode="nearest") * 3 + 1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 23), st.integers(1, 23), st.integers(4, 9), st.integers(4, 9), st.integers(0, 3))
def test_tiles_of_what_is_local_make_the_whole(
    height: int, width: int, down: int, across: int, overlap: int
) -> None:
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(height * 31 + width))
    torch.testing.assert_close(in_tiles(x, larger, (down, across), overlap, (1, 2)), larger(x))
    back = in_tiles(larger(x), lambda y: F.avg_pool2d(y, 2), (down, across), overlap, (2, 1))
    torch.testing.assert_close(back, F.avg_pool2d(larger(x), 2))


def test_overlap_fades_evenly() -> None:
    """One row, tiles of 4 with 2 shared: each tile answers with its number, and the shared places are mixed."""
    calls: list[int] = []

    def number(x: Tensor) -> Tensor:
        calls.append(x.shape[-1])
        return torch.full_like(x, float(len(calls)))

    got = in_tiles(torch.zeros(1, 1, 1, 6), number, (4, 4), 2)
    assert calls == [4, 4]
    # Weights from the border: 1/2, 1. In the third place 1 of the first and 1/2 of the second, then the reverse.
    expected = torch.tensor([1, 1, (1 * 1 + 2 * 0.5) / 1.5, (1 * 0.5 + 2 * 1) / 1.5, 2, 2])
    torch.testing.assert_close(got.flatten(), expected)


def test_tiles_end_where_the_picture_does() -> None:
    seen: list[tuple[int, ...]] = []

    def note(x: Tensor) -> Tensor:
        seen.append(tuple(x[0, 0, 0, [0, -1]].int().tolist()))
        return x

    in_tiles(torch.arange(11.0).expand(1, 1, 2, 11), note, (4, 5), 2)
    assert seen == [(0, 4), (3, 7), (6, 10)]


@pytest.fixture(scope="module")
def small() -> Vae:
    return Vae("x", vae(), LatentFormat(4, 2, 1.0))


def test_a_vae_in_tiles_is_nearly_the_vae(small: Vae) -> None:
    """Its attention and norms look at the whole picture, so tiles cannot be exact; a picture of one tile is."""
    latents = torch.randn(1, 4, 24, 20, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole, tiled = small.decode(latents), small.decode_tiled(latents, tile=24, overlap=4)
        torch.testing.assert_close(small.decode_tiled(latents, tile=512), whole)
        distance = float((tiled - whole).abs().mean() / whole.std())
        assert 0 < distance < 0.5
        encoded, in_parts = small.encode(whole), small.encode_tiled(whole, tile=24, overlap=4)
        assert in_parts.shape == encoded.shape
        torch.testing.assert_close(small.encode_tiled(whole), encoded)
        assert 0 < float((in_parts - encoded).abs().mean() / encoded.std()) < 0.5


def test_three_tilings_are_averaged(small: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 8 x 8 latents the square tile is the whole; the others, 4 by 16 either way, share one row or column."""
    sides: list[tuple[int, ...]] = []

    def note(latents: Tensor, **_: object) -> tuple[Tensor]:
        sides.append(tuple(latents.shape[-2:]))
        value = {(8, 8): 0.0, (4, 8): 0.3, (8, 4): 0.6}.get((latents.shape[-2], latents.shape[-1]), 0.9)
        return (torch.full((1, 3, 2 * latents.shape[-2], 2 * latents.shape[-1]), value),)

    monkeypatch.setattr(small.model, "decode", note)
    got = small.decode_tiled(torch.zeros(1, 4, 8, 8), tile=16, overlap=2)
    assert sides == [(8, 8), (4, 8), (4, 8), (2, 8), (8, 4), (8, 4), (8, 2)]
    # At a corner of the picture no tiles overlap; -1 to 1 became 0 to 1.
    assert float(got[0, 0, 0, 0]) == pytest.approx(((0 + 0.3 + 0.6) / 3 + 1) / 2)
    assert float(got[0, 0, 15, 15]) == pytest.approx(((0 + 0.9 + 0.9) / 3 + 1) / 2)
