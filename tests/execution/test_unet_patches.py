"""What is changed inside a UNet, against computations of one's own, and that nothing stays behind."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.utils.torch_utils import fourier_filter
from torch import Tensor, nn

from flowsmith.execution import ExecutionError, ModelLibrary
from flowsmith.execution.conditioning import Conditioning
from flowsmith.execution.denoiser import Denoiser
from flowsmith.execution.guided_network import form_of, network_of
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.patches import FreeU
from flowsmith.execution.unet_patches import freeu, low_frequencies_times, perturbed_attention
from tests.execution.running import run


@pytest.fixture(scope="module")
def library(models: Path) -> ModelLibrary:
    return ModelLibrary(models)


@pytest.fixture(scope="module")
def texts(library: ModelLibrary) -> list[Conditioning]:
    clip = library.checkpoint("tiny_a").text
    assert clip is not None
    with torch.inference_mode():
        return [Conditioning.of(encoding) for encoding in clip.encode(["red", ""])]


X = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def guess(model: DiffusionModel, texts: list[Conditioning], guidance: float = 3.0) -> Tensor:
    """One guess of a model with all of its patches, as sampling nodes make it."""
    perturbed = model.patches.perturbed
    blunted = network_of(model, blunted=True) if perturbed else None
    sides = [texts[0]], [texts[1]], [guidance], (16, 16)
    denoise = Denoiser(network_of(model), form_of(model), model.prediction, *sides, 0.0, perturbed, blunted)
    with torch.inference_mode():
        return denoise(X * 2, 2.0)


class Values(nn.Module):
    """Attention in which each place sees itself alone."""

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.to_v, self.out = attention.to_v, attention.to_out[0]

    def forward(self, hidden_states: Tensor, **rest: object) -> Tensor:
        out: Tensor = self.out(self.to_v(hidden_states))
        return out


def test_perturbed_attention_is_guided_away_from(library: ModelLibrary, texts: list[Conditioning]) -> None:
    """The guess, plus 3 times (positive - positive of a copy whose middle is rebuilt)."""
    model = library.checkpoint("tiny_a").model
    network: Any = copy.deepcopy(model.network)
    for attention in network.mid_block.attentions:
        for block in attention.transformer_blocks:
            block.attn1 = Values(block.attn1)
    rebuilt = replace(model, network=network)
    patched = run(library, "PerturbedAttentionGuidance", model=model, scale=3.0)
    plain, positive, blunt = guess(model, texts), guess(model, texts, 1.0), guess(rebuilt, texts, 1.0)
    expected = plain + 3.0 * (positive - blunt)
    torch.testing.assert_close(guess(patched, texts), expected, rtol=1e-4, atol=1e-4)
    assert (positive - blunt).norm() / plain.norm() > 1e-3
    unguided = positive + 3.0 * (positive - blunt)
    torch.testing.assert_close(guess(patched, texts, 1.0), unguided, rtol=1e-4, atol=1e-4)


def test_nothing_stays_behind(library: ModelLibrary, texts: list[Conditioning]) -> None:
    model = library.checkpoint("tiny_a").model
    before = guess(model, texts)
    patched = run(library, "PerturbedAttentionGuidance", model=model, scale=3.0)
    patched = run(library, "FreeU", model=patched, b1=1.3, b2=1.4, s1=0.9, s2=0.2)
    assert not torch.equal(guess(patched, texts), before)
    assert torch.equal(guess(model, texts), before)
    with (
        pytest.raises(RuntimeError, match="stop"),
        perturbed_attention(model.network),
        freeu(model.network, FreeU((2.0, 2.0), (0.0, 0.0))),
    ):
        raise RuntimeError("stop")
    assert torch.equal(guess(model, texts), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.network.modules())


def joined(model: DiffusionModel, texts: list[Conditioning]) -> list[Tensor]:
    """What the decoder's convolutions are given, in order."""
    network: Any = model.network
    seen: list[Tensor] = []
    resnets = [resnet for block in network.up_blocks for resnet in block.resnets]
    handles = [r.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for r in resnets]
    try:
        guess(model, texts, 1.0)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@pytest.mark.parametrize("adaptive", [False, True])
def test_freeu_weighs_where_backbone_and_skips_are_joined(
    library: ModelLibrary, texts: list[Conditioning], adaptive: bool
) -> None:
    """The tiny UNet has 8 channels of its own: 16, twice as many, come from its middle, where b2 and s2 hold."""
    model = library.checkpoint("tiny_a").model
    name = "FreeU_V2" if adaptive else "FreeU"
    patched = run(library, name, model=model, b1=9.0, b2=1.4, s1=9.0, s2=0.2)
    before = joined(model, texts)[0]
    seen: list[Tensor] = []
    network: Any = model.network
    assert patched.patches.freeu is not None
    with freeu(network, patched.patches.freeu):
        handle = (
            network.up_blocks[0].resnets[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        )
        guess(model, texts, 1.0)
        handle.remove()
    backbone, skip = before[:, :16].clone(), before[:, 16:]
    factor: Any = 1.4
    if adaptive:
        mean = backbone.mean(1, keepdim=True)
        factor = 1 + 0.4 * (mean - mean.min()) / (mean.max() - mean.min())
    backbone[:, :8] *= factor
    expected = torch.cat([backbone, fourier_filter(skip, threshold=1, scale=0.2)], 1)
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(seen[0], before, atol=1e-2)


def test_freeu_of_ones_is_none(library: ModelLibrary, texts: list[Conditioning]) -> None:
    model = library.checkpoint("tiny_a").model
    for name in ("FreeU", "FreeU_V2"):
        same = run(library, name, model=model, b1=1.0, b2=1.0, s1=1.0, s2=1.0)
        torch.testing.assert_close(guess(same, texts), guess(model, texts), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (1, 1)])
def test_low_frequencies_as_diffusers_filters_them(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    if size != (1, 1):
        torch.testing.assert_close(
            low_frequencies_times(x, 0.3), fourier_filter(x, 1, 0.3), rtol=1e-4, atol=1e-5
        )
    else:  # all there is
        torch.testing.assert_close(low_frequencies_times(x, 0.3), x * 0.3)


def test_other_networks_are_refused_by_name() -> None:
    network = nn.Linear(1, 1)
    with (
        pytest.raises(ExecutionError, match="PerturbedAttentionGuidance needs a UNet"),
        perturbed_attention(network),
    ):
        pass
    with pytest.raises(ExecutionError, match="FreeU needs a UNet"), freeu(network, FreeU((1, 1), (1, 1))):
        pass


def test_patches_have_keys_of_their_own_and_add_up(library: ModelLibrary) -> None:
    model = library.checkpoint("tiny_a").model
    first = run(library, "PerturbedAttentionGuidance", model=model, scale=3.0)
    both = run(library, "RescaleCFG", model=first, multiplier=0.5)
    other = run(library, "FreeU", model=both, b1=1.1, b2=1.2, s1=0.9, s2=0.2)
    again = run(library, "FreeU_V2", model=both, b1=1.1, b2=1.2, s1=0.9, s2=0.2)
    assert (other.patches.perturbed, other.patches.rescale) == (3.0, 0.5)
    assert len({one.key for one in (model, first, both, other, again)}) == 5
    assert run(library, "PerturbedAttentionGuidance", model=model, scale=0.0) is model
