"""What all sampling nodes have in common: a batch of latents, taken along each row's noise levels by its solver."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from flowsmith.execution.condition_batch import Network
from flowsmith.execution.conditioning import Conditioning
from flowsmith.execution.denoiser import Denoiser, unguided
from flowsmith.execution.guided_network import form_of, network_of
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.nodes.values import EmptyLatent, Latent, latent_shape, realised
from flowsmith.execution.noise import StepNoise, starting_noise
from flowsmith.execution.samplers import Sampler
from flowsmith.execution.samplers.on_flow import sample_on_flow
from flowsmith.execution.sigmas import FlowTable
from flowsmith.execution.together import Join, walk_together

_EVALUATED_TWICE = ("heun", "dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_sde_gpu")


@dataclass(frozen=True, eq=False)
class Sampling:
    """What one row asks for.

    Attributes:
        model: The network.
        positive: What it is guided towards.
        negative: What it is guided away from.
        guidance: How much.
        sampler: The solver.
        sigmas: Noise levels to walk through, descending; fewer than two leave the latents as they are.
        latent: The start.
        seed: Of its noise, that of the start and that of later steps.
        add_noise: Whether the latents are noised first; otherwise they are taken to hold noise of ``sigmas[0]``.
    """

    model: DiffusionModel
    positive: Conditioning
    negative: Conditioning
    guidance: float
    sampler: Sampler
    sigmas: tuple[float, ...]
    latent: Latent
    seed: int
    add_noise: bool = True


def sampling_group(one: Sampling) -> Hashable:
    """Return what rows must share to be one batch: network and geometry."""
    return one.model.key, latent_shape(one.latent, one.model.latent)


def sampling_work(one: Sampling) -> float:
    """Return how many rows a sampling gives the network, with all its steps."""
    steps = max(1, len(one.sigmas) - 1) * (2 if one.sampler.key in _EVALUATED_TWICE else 1)
    return steps * (1 if unguided(one.guidance) else 2)


def sample(batch: Sequence[Sampling]) -> list[tuple[Tensor, Tensor]]:
    """Sample rows of one group together; each row's noise depends on its own seed only.

    Rows that differ in solver or noise levels, or in whether they are guided, go ways of their own, and share the
    calls of the network.

    Returns:
        For each row its latents, and the last step's guess of the clean ones.
    """
    model = batch[0].model
    networks = network_of(model), network_of(model, blunted=True) if model.patches.perturbed else None
    ways: dict[Hashable, list[int]] = {}
    for place, one in enumerate(batch):
        way = one.sampler.key, one.sigmas, one.add_noise, unguided(one.guidance)
        ways.setdefault(way, []).append(place)
    walks = [partial(_walk, [batch[place] for place in way], networks) for way in ways.values()]
    ends: dict[int, tuple[Tensor, Tensor]] = {}
    for places, rows in zip(ways.values(), walk_together(walks), strict=True):
        ends.update(zip(places, rows, strict=True))
    return [ends[place] for place in range(len(batch))]


def _walk(
    batch: Sequence[Sampling], networks: tuple[Network, Network | None], join: Join
) -> list[tuple[Tensor, Tensor]]:
    """Sample rows that go one way."""
    first, model = batch[0], batch[0].model
    shape, sigmas = latent_shape(first.latent, model.latent), first.sigmas
    if len(sigmas) < 2:
        latents = [realised(one.latent, model.latent).to(model.device) for one in batch]
        return [(x, x) for x in latents]

    x = torch.cat([_model_latent(one.latent, model).to(model.device) for one in batch])
    seeds = [one.seed for one in batch]
    noise = (
        torch.cat([starting_noise(seed, shape) for seed in seeds]) if first.add_noise else torch.zeros_like(x)
    )
    x = model.table.noised(x, noise.to(model.device), sigmas[0])

    plain, blunted = networks
    denoiser = _denoiser(batch, shape, join(plain), None if blunted is None else join(blunted))
    guess = _LastGuess(denoiser, sigmas[-2])
    solve = partial(sample_on_flow, first.sampler) if isinstance(model.table, FlowTable) else first.sampler
    x = solve(guess, x, sigmas, StepNoise(seeds, shape, model.device))
    x = model.table.handed_on(x, sigmas[-1])
    ends = [torch.split(model.latent.out_of_model(end), shape[0]) for end in (x, guess.last)]
    return list(zip(*ends, strict=True))


def _denoiser(
    batch: Sequence[Sampling], shape: tuple[int, ...], network: Network, blunted: Network | None
) -> Denoiser:
    """Return the guided network for a batch, each condition once for each of a row's images."""
    model = batch[0].model
    each = [one for one in batch for _ in range(shape[0])]
    patches = model.patches
    return Denoiser(
        network,
        form_of(model),
        model.prediction,
        [one.positive for one in each],
        [one.negative for one in each],
        [one.guidance for one in each],
        (shape[2], shape[3]),
        patches.rescale,
        patches.perturbed,
        blunted,
    )


class _LastGuess:
    """A denoiser that remembers its latest guess at one noise level, the start of the last step."""

    def __init__(self, denoise: Denoiser, sigma: float) -> None:
        self._denoise, self._sigma = denoise, sigma
        self.last = torch.empty(0)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        guess = self._denoise(x, sigma)
        if sigma == self._sigma or not self.last.numel():
            self.last = guess
        return guess


def _model_latent(latent: Latent, model: DiffusionModel) -> Tensor:
    """Return the latents as the network sees them; nothing stays nothing, whatever the format's shift."""
    latents = realised(latent, model.latent)
    empty = isinstance(latent, EmptyLatent) or not latents.any()
    return latents if empty else model.latent.into_model(latents)
