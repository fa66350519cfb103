"""The miniature's judges: how each is trained, and what it must reach before it may judge."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from miniature.build import Step


def steps(out: Path, *, vae: Path | None, seed: int, scratch: Path) -> "list[Step]":
    """Return the build's steps for the judges; they go to ``out/clip``, ``aesthetic`` and ``preference``."""
    from flowsmith.metrics.aesthetic import HEAD
    from miniature.build import Step
    from miniature.judges.aesthetic import gate_aesthetic, train_aesthetic
    from miniature.judges.clip import gate_clip, train_clip
    from miniature.judges.preference import gate_preference, train_preference

    clip, head, preference = out / "clip", out / "aesthetic" / HEAD, out / "preference"
    return [
        Step(
            "clip",
            lambda: train_clip(clip, seed=seed, steps=2600, scratch=scratch, vae=vae),
            lambda: gate_clip(clip, seed=seed),
            {"near misses": 0.8},
        ),
        Step(
            "aesthetic",
            lambda: train_aesthetic(head, clip=clip, seed=seed, steps=1500, scratch=scratch, vae=vae),
            lambda: gate_aesthetic(clip, head, seed=seed, vae=vae),
            {"rank correlation": 0.6, "ordered": 0.75},
        ),
        Step(
            "preference",
            lambda: train_preference(preference, clip=clip, seed=seed, steps=400, scratch=scratch, vae=vae),
            lambda: gate_preference(preference, seed=seed, vae=vae),
            {"clear pairs": 0.8},
        ),
    ]
