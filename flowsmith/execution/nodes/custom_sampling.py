"""Sampling taken apart: a NOISE, a GUIDER, a SAMPLER and SIGMAS, and the nodes that put them together."""

from collections.abc import Hashable, Sequence
from typing import Self

from flowsmith.execution.conditioning import Conditioning
from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.nodes.registry import Outputs, node
from flowsmith.execution.nodes.sampling_batch import Sampling, sample, sampling_group, sampling_work
from flowsmith.execution.nodes.values import Guider, Latent, Noise
from flowsmith.execution.samplers import Sampler, find_sampler


@node("KSamplerSelect")
class KSamplerSelect:
    """A solver by its name."""

    sampler_name: str

    def run(self, library: ModelLibrary) -> Outputs:
        """Look it up."""
        return (find_sampler(self.sampler_name),)


@node("RandomNoise")
class RandomNoise:
    """Noise from a seed."""

    noise_seed: int

    def run(self, library: ModelLibrary) -> Outputs:
        """Note the seed."""
        return (Noise(self.noise_seed),)


@node("DisableNoise")
class DisableNoise:
    """No noise at the start."""

    def run(self, library: ModelLibrary) -> Outputs:
        """Say so."""
        return (Noise(0, added=False),)


@node("CFGGuider")
class CFGGuider:
    """A model guided towards one conditioning and away from another."""

    model: DiffusionModel
    positive: Conditioning
    negative: Conditioning
    cfg: float

    def run(self, library: ModelLibrary) -> Outputs:
        """Put them together."""
        return (Guider(self.model, self.positive, self.negative, self.cfg),)


@node("BasicGuider")
class BasicGuider:
    """A model under one conditioning."""

    model: DiffusionModel
    conditioning: Conditioning

    def run(self, library: ModelLibrary) -> Outputs:
        """Put them together."""
        return (Guider(self.model, self.conditioning, Conditioning(())),)


@node("SamplerCustom", turn=1)
class SamplerCustom:
    """A way along given noise levels."""

    model: DiffusionModel
    add_noise: bool
    noise_seed: int
    cfg: float
    positive: Conditioning
    negative: Conditioning
    sampler: Sampler
    sigmas: tuple[float, ...]
    latent_image: Latent

    def group(self) -> Hashable:
        """See `sampling_group`."""
        return sampling_group(self._sampling())

    def work(self) -> float:
        """See `sampling_work`."""
        return sampling_work(self._sampling())

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Sample the rows as one batch; put out the latents, and the last guess of clean ones."""
        return list(sample([row._sampling() for row in rows]))

    def _sampling(self) -> Sampling:
        guided = self.model, self.positive, self.negative, self.cfg
        start = self.latent_image, self.noise_seed, self.add_noise
        return Sampling(*guided, self.sampler, self.sigmas, *start)


@node("SamplerCustomAdvanced", turn=1)
class SamplerCustomAdvanced:
    """A way along given noise levels, from given noise and under given guidance."""

    noise: Noise
    guider: Guider
    sampler: Sampler
    sigmas: tuple[float, ...]
    latent_image: Latent

    def group(self) -> Hashable:
        """See `sampling_group`."""
        return sampling_group(self._sampling())

    def work(self) -> float:
        """See `sampling_work`."""
        return sampling_work(self._sampling())

    @classmethod
    def run_all(cls, rows: Sequence[Self], library: ModelLibrary) -> list[Outputs]:
        """Sample the rows as one batch; put out the latents, and the last guess of clean ones."""
        return list(sample([row._sampling() for row in rows]))

    def _sampling(self) -> Sampling:
        guider, noise = self.guider, self.noise
        guided = guider.model, guider.positive, guider.negative, guider.guidance
        return Sampling(*guided, self.sampler, self.sigmas, self.latent_image, noise.seed, noise.added)
