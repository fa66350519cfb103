"""Nodes that noise the latents of a LATENT and denoise them under two CONDITIONINGs."""

from collections.abc import Hashable, Sequence
from typing import Self

from flowsmith.execution.conditioning import Conditioning
from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.nodes.registry import Outputs, node
from flowsmith.execution.nodes.sampling_batch import Sampling, sample, sampling_group, sampling_work
from flowsmith.execution.nodes.values import Latent
from flowsmith.execution.samplers import find_sampler
from flowsmith.execution.schedules import sampling_sigmas


@node("KSampler", turn=1)
class KSampler:
    """The whole way from noise to picture, or its end if ``denoise`` is below 1."""

    model: DiffusionModel
    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    positive: Conditioning
    negative: Conditioning
    latent_image: Latent
    denoise: float = 1.0

    def group(self) -> Hashable:
        """See `sampling_group`."""
        return sampling_group(self._sampling())

    def work(self) -> float:
        """See `sampling_work`."""
        return sampling_work(self._sampling())

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Sample the rows as one batch."""
        return [(latents,) for latents, _ in sample([row._sampling() for row in rows])]

    def _sampling(self) -> Sampling:
        sampler, table = find_sampler(self.sampler_name), self.model.table
        sigmas = sampling_sigmas(
            table, self.scheduler, self.steps, self.denoise, sampler.discards_penultimate
        )
        return Sampling(
            self.model, self.positive, self.negative, self.cfg, sampler, sigmas, self.latent_image, self.seed
        )


@node("KSamplerAdvanced", turn=1)
class KSamplerAdvanced:
    """A part of the way from noise to picture; another one can go on where it stops."""

    model: DiffusionModel
    add_noise: str
    noise_seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    positive: Conditioning
    negative: Conditioning
    latent_image: Latent
    start_at_step: int
    end_at_step: int
    return_with_leftover_noise: str

    def group(self) -> Hashable:
        """See `sampling_group`."""
        return sampling_group(self._sampling())

    def work(self) -> float:
        """See `sampling_work`."""
        return sampling_work(self._sampling())

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Sample the rows as one batch from ``start_at_step`` to ``end_at_step``."""
        return [(latents,) for latents, _ in sample([row._sampling() for row in rows])]

    def _sampling(self) -> Sampling:
        sampler, table = find_sampler(self.sampler_name), self.model.table
        whole = sampling_sigmas(
            table, self.scheduler, self.steps, discard_penultimate=sampler.discards_penultimate
        )
        leave_noise = self.return_with_leftover_noise == "enable"
        sigmas = part_of(whole, self.start_at_step, self.end_at_step, leave_noise)
        texts = self.positive, self.negative, self.cfg
        latent, add_noise = self.latent_image, self.add_noise == "enable"
        return Sampling(self.model, *texts, sampler, sigmas, latent, self.noise_seed, add_noise)


def part_of(sigmas: Sequence[float], start: int, end: int, leave_noise: bool) -> tuple[float, ...]:
    """Return the noise levels from step ``start`` to step ``end``, empty if there is no step between.

    Unless noise is to be left, the last step, wherever it is, goes down to none.

    >>> part_of([9.0, 5.0, 2.0, 0.0], 0, 2, False)
    (9.0, 5.0, 0.0)
    """
    part = list(sigmas[: end + 1])
    if not leave_noise:
        part[-1] = 0.0
    return tuple(part[start:]) if start < len(part) - 1 else ()
