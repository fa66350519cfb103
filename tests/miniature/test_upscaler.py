from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from flowsmith.execution.library import ModelLibrary
from miniature import upscaler
from miniature.upscaler import gate_upscaler, make_pairs, new_upscaler, train_upscaler, upscaling_error
from tests.miniature.untrained import make_untrained_vae


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_untrained_vae(tmp_path_factory.mktemp("vae") / "vae")


def test_both_pictures_show_the_same_objects_in_the_same_places(
    vae: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upscaler, "_FAULTS", (("blurry", 0.0), ("noisy", 0.0)))
    low, high = make_pairs(vae, seed=3, number=24)
    assert low.shape == (24, 3, 64, 64)
    assert high.shape == (24, 3, 128, 128)
    # Every third is no reconstruction, and so, without a fault, the render itself.
    small, large = low[2::3].float(), F.avg_pool2d(high[2::3].float(), 2)
    off = (small - large).abs().mean((1, 2, 3))
    strangers = (small - large.roll(1, 0)).abs().mean((1, 2, 3))
    assert off.max() < 6, "of 255: only edges and the paper's fine strokes may differ"
    assert strangers.min() > 2 * off.max()


def test_small_pictures_are_reconstructions_or_faulty(vae: Path) -> None:
    low, high = make_pairs(vae, seed=3, number=12)
    off = (low.float() - F.avg_pool2d(high.float(), 2)).abs().mean((1, 2, 3))
    reconstructed = torch.arange(12) % 3 != 2
    assert off[reconstructed].min() > 2 * off[~reconstructed].max(), "an untrained VAE gives noise"
    assert torch.equal(low, make_pairs(vae, seed=3, number=12)[0])


def test_error_of_pixels_and_of_edges() -> None:
    wanted = torch.zeros(1, 1, 2, 2)
    assert float(upscaling_error(torch.full((1, 1, 2, 2), 0.2), wanted)) == pytest.approx(0.2)
    # One corner off by 0.4: pixels 0.1 on average; of two differences each way one is 0.4; 0.1 + 0.5 * 0.2.
    corner = torch.tensor([[[[0.4, 0.0], [0.0, 0.0]]]])
    assert float(upscaling_error(corner, wanted)) == pytest.approx(0.2)


def test_crops_of_both_sizes_are_of_one_place() -> None:
    low = torch.arange(64 * 64).view(1, 1, 64, 64).expand(2, 3, -1, -1) % 251
    high = low.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.manual_seed(0)
    given, wanted = upscaler._crops(low, high)
    assert given.shape == (16, 3, 32, 32)
    torch.testing.assert_close(wanted, F.interpolate(given, scale_factor=2, mode="nearest"))
    assert len({float(crop[0, 0, 0]) for crop in given}) > 8


def test_flows_can_load_what_is_trained(vae: Path, tmp_path: Path) -> None:
    out = tmp_path / "upscale_models" / "mini_x2.safetensors"
    train_upscaler(out, vae=vae, seed=0, steps=2, scratch=tmp_path, pictures=6)
    loaded = ModelLibrary(tmp_path).upscaler("mini_x2.safetensors")
    assert loaded.factor == 2
    assert loaded.model.architecture.id == "Compact"
    assert out.stat().st_size < 150_000
    image = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    assert loaded(image).shape == (1, 3, 18, 22)
    # It adds to the picture that repeats every pixel, and has hardly learned anything yet.
    assert (loaded(image) - F.interpolate(image, scale_factor=2, mode="nearest")).abs().mean() < 0.2


def test_the_gate_knows_repeated_pixels_from_bicubic(vae: Path, tmp_path: Path) -> None:
    network = new_upscaler()
    weights = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    save_file(weights, tmp_path / "nothing.safetensors")
    figures = gate_upscaler(tmp_path / "nothing.safetensors", vae=vae, seed=1, number=6)
    low, high = (p.float() / 255 for p in make_pairs(vae, seed=601, number=6))
    error = (low.repeat_interleave(2, -1).repeat_interleave(2, -2) - high).abs().mean()
    bicubic = (F.interpolate(low, scale_factor=2, mode="bicubic").clamp(0, 1) - high).abs().mean()
    assert figures["error"] == pytest.approx(float(error), rel=1e-4)
    assert figures["error relative to bicubic"] == pytest.approx(float(error / bicubic), rel=1e-4)
