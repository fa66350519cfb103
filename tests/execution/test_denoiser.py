import math

import pytest
import torch
from torch import Tensor

from flowsmith.execution.prediction import Prediction
from flowsmith.execution.samplers import SAMPLERS
from flowsmith.execution.schedules import sampling_sigmas
from tests.execution.denoising import TABLE, TextNetwork, denoiser

TEXT = torch.ones(4, 3)


def gaussian_network(mean: float, spread: float, prediction: str) -> TextNetwork:
    """The perfect network for N(mean, spread^2) pixels, in the form that training would have given it."""

    def run(scaled: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        sigma = float(TABLE.sigmas[int(timestep)])
        x = scaled * math.sqrt(1 + sigma**2)
        clean = (spread**2 * x + sigma**2 * mean) / (spread**2 + sigma**2)
        noise = (x - clean) / sigma
        if prediction == "epsilon":
            return noise
        return (noise - sigma * clean) / math.sqrt(1 + sigma**2)  # v = sqrt(a) * noise - sqrt(1 - a) * clean

    return run


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_guess_is_the_posterior_mean(prediction: Prediction) -> None:
    network = gaussian_network(0.7, 0.5, prediction)
    guess = denoiser(network, prediction, [TEXT], [TEXT], [1.0], (4, 4))
    x = torch.linspace(-5, 5, 16).view(1, 1, 4, 4)
    for timestep in (0, 321, 999):
        sigma = float(TABLE.sigmas[timestep])
        expected = (0.25 * x + sigma**2 * 0.7) / (0.25 + sigma**2)
        torch.testing.assert_close(guess(x, sigma), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_sampling_a_gaussian_ends_at_its_moments(prediction: Prediction) -> None:
    network = gaussian_network(0.7, 0.5, prediction)
    n = 64
    guess = denoiser(network, prediction, [TEXT] * n, [TEXT] * n, [1.0] * n, (16, 16))
    sigmas = sampling_sigmas(TABLE, "simple", 40)  # all of them in the table, so the network is exact
    start = torch.randn(n, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * math.sqrt(
        1 + sigmas[0] ** 2
    )
    end = SAMPLERS["dpmpp_2m"](guess, start, sigmas, lambda: start)
    assert float(end.mean()) == pytest.approx(0.7, abs=0.03)
    # The last step jumps to the posterior mean, which shortens the exact path's end by this much.
    shortened = 0.5 * math.sqrt(0.25 / (0.25 + sigmas[-2] ** 2))
    assert float(end.std()) == pytest.approx(shortened, rel=0.02)


class Recorder:
    """A network whose output is the mean of its text, and which notes how it was called."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, scaled: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        self.rows.append(len(scaled))
        assert len(scaled) == len(text)
        return text.mean((1, 2)).view(-1, 1, 1, 1).expand_as(scaled)


def test_guidance_mixes_each_row_by_its_own_weight_in_one_call() -> None:
    network = Recorder()
    texts = [TEXT * 2, TEXT * 3]
    guess = denoiser(network, "epsilon", texts, [TEXT, TEXT], [4.0, 0.5], (2, 2))(
        torch.zeros(2, 1, 2, 2), 1.0
    )
    # -(1 + 4 * (2 - 1)) = -5 and -(1 + 0.5 * (3 - 1)) = -2 at sigma 1 from x = 0.
    assert guess[:, 0, 0, 0].tolist() == [-5.0, -2.0]
    assert network.rows == [4]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_guesses_lie_in_memory_as_the_latents_do(prediction: Prediction) -> None:
    """Whatever way the network's output lies; what comes after rounds by it, so pictures would change in last bits."""
    seen = []

    def network(scaled: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        seen.append(scaled.is_contiguous())
        return scaled.contiguous(memory_format=torch.channels_last)

    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    guess = denoiser(network, prediction, [TEXT] * 2, [TEXT] * 2, [3.0] * 2, (6, 6))
    assert guess(x, 2.0).is_contiguous()
    last = x.contiguous(memory_format=torch.channels_last)
    assert guess(last, 2.0).is_contiguous(memory_format=torch.channels_last)
    assert seen == [True, False]


def test_no_guidance_does_not_compute_the_negative() -> None:
    network = Recorder()
    texts = [TEXT * 2] * 3
    guess = denoiser(network, "epsilon", texts, [TEXT * math.nan] * 3, [1.0] * 3, (2, 2))
    assert guess(torch.zeros(3, 1, 2, 2), 1.0).flatten()[0] == -2.0
    assert network.rows == [3]


def attention(scaled: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
    """Softmax attention from every pixel to the text, the only way in which a UNet reads it."""
    query = scaled.flatten(2).transpose(1, 2)  # [n, pixels, channels]
    weights = (query @ text.transpose(1, 2)).softmax(-1)
    return (weights @ text).transpose(1, 2).reshape(scaled.shape)


@pytest.mark.parametrize("lengths", [(4, 4, 4, 4), (4, 8, 12, 4), (4, 28, 52, 4)])
def test_texts_of_unlike_length_do_not_change_each_other(lengths: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randn(n, 3, generator=generator) for n in lengths]
    x = torch.randn(2, 3, 2, 2, generator=generator)
    together = denoiser(attention, "epsilon", texts[:2], texts[2:], [3.0, 5.0], (2, 2))(x, 2.0)
    for row in range(2):
        alone = denoiser(attention, "epsilon", [texts[row]], [texts[2 + row]], [3.0 + 2 * row], (2, 2))
        torch.testing.assert_close(
            alone(x[row : row + 1], 2.0), together[row : row + 1], rtol=1e-4, atol=1e-5
        )
