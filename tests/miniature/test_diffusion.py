from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from miniature import diffusion
from miniature.captions import tell_partly
from miniature.diffusion import SCHEDULE, Pool, denoising_loss
from miniature.scenes import Group, Scene, sample_scene

ALPHAS = DDPMScheduler(**SCHEDULE).alphas_cumprod
SCENE = Scene((Group("star", "red"),), None, "night", "poster")


class _Seen(nn.Module):
    """A network that answers with nothing and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[tuple[Tensor, Tensor]] = []

    def forward(self, noisy: Tensor, time: Tensor, encoder_hidden_states: Tensor) -> Any:
        self.inputs.append((noisy, time))
        return SimpleNamespace(sample=torch.zeros_like(noisy))


def _words(texts: list[str], **options: Any) -> Any:
    return SimpleNamespace(input_ids=torch.zeros(len(texts), 4, dtype=torch.long))


class _NoText(nn.Module):
    def forward(self, ids: Tensor) -> tuple[Tensor]:
        return (torch.zeros(len(ids), 4, 8),)


def _losses(steps: int, batch: int = 64, most_weight: float = 1.0) -> tuple[list[float], Tensor, Tensor]:
    """Run the loss over pictures whose latents are all 2; return losses, the noise that was added, and times."""
    pool = Pool([SCENE] * 10, [""] * 10, torch.full((10, 4, 16, 16), 2.0).half())
    network = _Seen()
    loss = denoising_loss(network, _NoText(), _words, pool, batch, most_weight=most_weight)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        losses.append(float(loss(step)))
    noisy, time = (torch.cat(parts) for parts in zip(*network.inputs, strict=True))
    alpha = ALPHAS[time][:, None, None, None]
    return losses, (noisy - alpha.sqrt() * 2) / (1 - alpha).sqrt(), time


def test_noise_moves_each_channels_mean() -> None:
    """Pixel noise has variance 1, a channel's mean 1/256 by chance alone and 0.25 ** 2 by the offset."""
    _, noise, _ = _losses(30)  # 1,920 pictures, 7,680 channels: a variance is known to 1.6 %
    means = noise.mean((2, 3))
    assert means.var().item() == pytest.approx(0.25**2 + 1 / 256, rel=0.08)
    assert (noise - means[:, :, None, None]).var().item() == pytest.approx(1.0, rel=0.01)
    assert torch.corrcoef(means.T).fill_diagonal_(0).abs().max() < 0.1, "channels must move independently"


@pytest.mark.parametrize("most", [1.0, 20.0])
def test_weights_of_noise_levels(most: float) -> None:
    """Guessing nothing costs weight x |noise|^2, so a batch's loss follows from the times alone."""
    losses, noise, time = _losses(20, most_weight=most)
    snr = [float(s) for s in ALPHAS / (1 - ALPHAS)]
    in_pictures = [min(max(s, 1.0), 5.0) for s in snr]  # weight of the squared error of x0
    weights = torch.tensor([min(w / s, most) for w, s in zip(in_pictures, snr, strict=True)])
    expected = (weights[time] * noise.square().mean((1, 2, 3))).view(20, -1).mean(1)
    torch.testing.assert_close(torch.tensor(losses), expected, rtol=1e-4, atol=1e-6)
    min_snr = torch.tensor([min(s, 5.0) / s for s in snr])  # arXiv 2303.09556, gamma 5
    if most == 1.0:
        torch.testing.assert_close(weights, min_snr)
    else:
        assert float(weights[600]) * snr[600] == pytest.approx(1.0), "errors of the picture weigh alike"
        assert float(weights[-1]) == most


def test_no_caption_tells_a_held_out_combination() -> None:
    """Facts of validation and test combinations are never told in training, whatever is left out."""
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(400)]
    texts = {diffusion._caption(scene, "", rng).split(", sharp")[0] for scene in scenes}
    told = [tell_partly(scene, rng) for scene in scenes for _ in range(12)]
    held_out = {t.text for t in told if t.split != "train"}
    assert held_out
    assert not texts & held_out
