"""What model patches do beside weights: changes of guidance, and of what happens inside a UNet."""

from dataclasses import dataclass


@dataclass(frozen=True)
class FreeU:
    """Stronger backbone and weaker skips in a UNet's decoder (Si et al. 2023, arXiv 2309.11497).

    Attributes:
        backbone: Factors where features have 4 and 2 times the UNet's own channels.
        skips: Factors of the low frequencies of what is skipped there.
        adaptive: Weigh the backbone by its own mean map (the paper's later version).
    """

    backbone: tuple[float, float]
    skips: tuple[float, float]
    adaptive: bool = False


@dataclass(frozen=True)
class Patches:
    """Patches of one model; equal ones give equal results.

    Attributes:
        rescale: Share in which a guided guess gets back the contrast of the positive one, 0 to 1 (Lin et al. 2023,
            arXiv 2305.08891, section 3.4).
        perturbed: Weight of perturbed-attention guidance (Ahn et al. 2024, arXiv 2403.17377).
        freeu: FreeU, if any.
    """

    rescale: float = 0.0
    perturbed: float = 0.0
    freeu: FreeU | None = None


NO_PATCHES = Patches()
