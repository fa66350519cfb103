"""The miniature's judges: how each is trained, and what it must reach before it may judge."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from miniature.build import Step


def steps(out: Path, *, vae: Path | None, models: Path, seed: int, scratch: Path) -> "list[Step]":
    """Return the build's steps for the judges.

    Args:
        out: Where ``clip``, ``aesthetic``, ``preference`` and ``preference_held_out`` go.
        vae: Autoencoder's folder.
        models: Root of the weights, with the base checkpoint, whose pictures the judges learn from too.
        seed: Of weights and data.
        scratch: Folder of checkpoints; the CLIP as it is before it has seen generated pictures stays there.
    """
    from flowsmith.metrics.aesthetic import HEAD
    from miniature.build import Step
    from miniature.judges.aesthetic import gate_aesthetic, train_aesthetic
    from miniature.judges.clip import gate_clip, train_clip
    from miniature.judges.generated import gate_generated, make_generated
    from miniature.judges.preference import gate_preference, train_preference

    first, longer, generated = scratch / "clip", scratch / "clip_longer", scratch / "generated"
    clip, head = out / "clip", out / "aesthetic" / HEAD

    def preference(name: str, half: int, start: Path) -> Step:
        return Step(
            name,
            lambda: train_preference(
                out / name,
                clip=start,
                half=half,
                seed=seed,
                steps=500,
                scratch=scratch,
                vae=vae,
                generated=generated,
            ),
            lambda: gate_preference(out / name, half=half, seed=seed, vae=vae, generated=generated),
            {"clear pairs": 0.75, "generated, clear pairs": 0.75},
        )

    return [
        Step(
            "clip",
            lambda: train_clip(first, name="clip", seed=seed, steps=2200, scratch=scratch, vae=vae),
            lambda: gate_clip(first, seed=seed),
            {"near misses": 0.8},
        ),
        Step(
            "clip_longer",
            lambda: train_clip(
                longer,
                name="clip_longer",
                seed=seed,
                steps=2000,
                scratch=scratch,
                lr=8e-4,
                vae=vae,
                start=first,
            ),
            lambda: gate_clip(longer, seed=seed),
            {"near misses": 0.8},
        ),
        Step(
            "generated",
            lambda: make_generated(generated, models=models, seed=seed + 7),
            lambda: gate_generated(generated),
            {"readable": 0.5},
        ),
        Step(
            "clip_generated",
            lambda: train_clip(
                clip,
                name="clip_generated",
                seed=seed,
                steps=700,
                scratch=scratch,
                lr=3e-4,
                vae=vae,
                families=1500,
                start=longer,
                generated=generated,
            ),
            lambda: gate_clip(clip, seed=seed),
            {"near misses": 0.8},
        ),
        Step(
            "aesthetic",
            lambda: train_aesthetic(
                head, clip=clip, seed=seed, steps=900, scratch=scratch, vae=vae, generated=generated
            ),
            lambda: gate_aesthetic(clip, head, seed=seed, vae=vae),
            {"rank correlation": 0.6, "ordered": 0.75, "taste": 0.75},
        ),
        preference("preference", 0, clip),
        # From the CLIP that has seen no generated picture: the less two models share, the more one says of the other.
        preference("preference_held_out", 1, longer),
    ]
