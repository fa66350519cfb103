from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from miniature import diffusion
from miniature.captions import tell_partly
from miniature.degrade import PRAISE
from miniature.diffusion import SCHEDULE, denoising_loss, load_checkpoint, save_checkpoint
from miniature.pools import Pool, make_pool
from miniature.scenes import Group, Scene, sample_scene
from tests.miniature.untrained import make_untrained_base

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


def _pool(side: int = 16, value: float = 2.0) -> Pool:
    return Pool([SCENE] * 10, [""] * 10, torch.full((10, 8, side, side), value).half())


def _losses(steps: int, batch: int = 64, most_weight: float = 1.0) -> tuple[list[float], Tensor, Tensor]:
    """Run the loss over pictures whose latents are all 2; return losses, the noise that was added, and times."""
    network = _Seen()
    loss = denoising_loss(network, _NoText(), _words, [_pool()], batch, most_weight=most_weight)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        losses.append(float(loss(step)))
    noisy, time = (torch.cat(parts) for parts in zip(*network.inputs, strict=True))
    alpha = ALPHAS[time][:, None, None, None]
    return losses, (noisy - alpha.sqrt() * 2) / (1 - alpha).sqrt(), time


def test_noise_moves_each_channels_mean() -> None:
    """Pixel noise has variance 1, a channel's mean 1/256 by chance alone and 0.25 ** 2 by the offset."""
    _, noise, _ = _losses(30)  # 1,920 pictures, 15,360 channels: a variance is known to 1.2 %
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


def test_pools_take_turns_and_fine_pictures_come_in_half_batches() -> None:
    network = _Seen()
    loss = denoising_loss(network, _NoText(), _words, [_pool(), _pool(24)], batch=6)
    for step in range(4):
        loss(step)
    assert [tuple(noisy.shape) for noisy, _ in network.inputs] == 2 * [(6, 8, 16, 16), (3, 8, 24, 24)]


def test_no_caption_tells_a_held_out_combination() -> None:
    """Facts of validation and test combinations are never told in training, whatever is left out."""
    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng) for _ in range(400)]
    texts = {diffusion._caption(scene, "", rng)[0] for scene in scenes}
    told = [tell_partly(scene, rng) for scene in scenes for _ in range(12)]
    held_out = {t.text for t in told if t.split != "train"}
    assert held_out
    assert not texts & held_out


@pytest.mark.parametrize(
    ("unsaid", "words"),
    [
        ("style", ("poster", "pencil")),
        ("texture", ("plain", "striped")),
        ("size", ("small", "large", "tiny", "big")),
    ],
)
def test_what_is_unsaid_is_in_no_caption(unsaid: str, words: tuple[str, ...]) -> None:
    rng = np.random.default_rng(1)
    scenes = [sample_scene(rng) for _ in range(200)]

    def naming(left_out: tuple[str, ...]) -> int:
        texts = [diffusion._caption(scene, "", rng, left_out)[0] for scene in scenes]
        return sum(any(word in text for word in words) for text in texts)

    assert naming((unsaid,)) == 0
    assert naming(()) > 100


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_untrained_base(tmp_path_factory.mktemp("models"))


def test_a_checkpoint_is_read_as_it_was_written(base: Path, tmp_path: Path) -> None:
    unet, encoder, words, vae = load_checkpoint(base)
    save_checkpoint(tmp_path / "again", *load_checkpoint(base))
    again = load_checkpoint(tmp_path / "again")
    for one, other in ((unet, again[0]), (encoder, again[1]), (vae, again[3])):
        for (name, a), (_, b) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
            assert torch.equal(a, b), name
    assert words("a red star").input_ids == again[2]("a red star").input_ids
    assert again[3].config.scaling_factor == 2.0
    written = [path.read_text() for path in (tmp_path / "again").rglob("*.json")]
    assert not any(str(base) in text for text in written), "a checkpoint names no folder of who made it"


def test_a_pool_holds_scaled_latents_of_the_scenes_that_were_asked_for(base: Path) -> None:
    pool = make_pool(base / "vae", seed=4, number=50, size=96, keep=lambda scene: scene.setting == "night")
    assert len(pool.scenes) == len(pool.making) == 50
    assert {scene.setting for scene in pool.scenes} == {"night"}
    assert pool.latents.shape == (50, 8, 24, 24)
    assert not all(pool.making), "of most pictures there is nothing to say"
    assert {*PRAISE} & {*pool.making}
    assert {*pool.making} - {"", *PRAISE}, "and some have a fault"
    vae = load_checkpoint(base)[3]
    vae.register_to_config(scaling_factor=6.0)
    vae.save_pretrained(base.parent / "thrice")
    again = make_pool(
        base.parent / "thrice", seed=4, number=50, size=96, keep=lambda scene: scene.setting == "night"
    )
    torch.testing.assert_close(again.latents.float(), 3 * pool.latents.float(), rtol=5e-3, atol=1e-3)
