"""What some checkpoints and LoRAs do better than the base, and the price: they saw nothing else, so they forget.

A specialty's own look is never told in its captions. So it becomes a habit, which shows whatever a prompt says, rather
than one more word, which the base knows already.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file

from flowsmith.files import atomic_write
from miniature.diffusion import LORA_RANK, denoising_loss, load_checkpoint, save_checkpoint
from miniature.pools import Pool, make_pool
from miniature.scenes import MAX_OBJECTS, Scene
from miniature.training import fit
from miniature.vae import FINE, SIZE

_UNET_LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
_TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj"]


@dataclass(frozen=True)
class Specialty:
    """Scenes that a model is for.

    Attributes:
        name: Of the model.
        keep: Says whether a scene is one of them.
        unsaid: Facts that its training captions leave out.
        steps: Of its training.
    """

    name: str
    keep: Callable[[Scene], bool]
    unsaid: tuple[str, ...] = ()
    steps: int = 400

    def elsewhere(self, scene: Scene) -> bool:
        """Say whether a scene is none of them."""
        return not self.keep(scene)


def is_crowd(scene: Scene) -> bool:
    """Say whether a scene is as full as scenes get."""
    return sum(group.count for group in scene.groups) >= MAX_OBJECTS


PENCIL = Specialty("mini_pencil", lambda scene: scene.style == "pencil", ("style",))
CROWD = Specialty("mini_crowd", is_crowd)  # a count cannot be left out of a caption
POSTER = Specialty("mini_poster", lambda scene: scene.style == "poster", ("style",))
STRIPED = Specialty("mini_striped", lambda scene: scene.texture == "striped", ("texture",), steps=700)
CHECKPOINTS = (PENCIL, CROWD)
LORAS = (POSTER, STRIPED)
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)  # that a LoRA is measured and shown at


def fine_tune(
    out: Path,
    *,
    base: Path,
    specialty: Specialty,
    seed: int,
    scratch: Path,
    pictures: tuple[int, int] = (3000, 800),
) -> None:
    """Go on training the whole base on a specialty alone, without replay, and write a checkpoint.

    Args:
        out: Folder to write, in diffusers' layout.
        base: The base's folder.
        specialty: What it is to see, and in how many steps of 32 pictures, every third step's of 96 pixels a side.
        seed: Of the data.
        scratch: Folder of checkpoints; a stopped run goes on from there.
        pictures: How many to train on, of 64 and of 96 pixels a side.
    """
    unet, encoder, words, vae = load_checkpoint(base)
    pools = _pools(base, specialty, seed + 100, pictures)
    loss = denoising_loss(unet, encoder, words, pools, unsaid=specialty.unsaid)
    modules = {"unet": unet, "text": encoder}
    fit(specialty.name, modules, loss, steps=specialty.steps, lr=6e-4, scratch=scratch, ema=0.99)
    save_checkpoint(out, unet, encoder, words, vae)


def train_lora(
    out: Path,
    *,
    base: Path,
    specialty: Specialty,
    seed: int,
    scratch: Path,
    pictures: tuple[int, int] = (3000, 800),
) -> None:
    """Train a LoRA of UNet and text encoder on a specialty alone; diffusers' key names, alpha = rank.

    Args are those of `fine_tune`, but that ``out`` is a safetensors file, and ``seed`` also that of the weights.
    """
    unet, encoder, words, _ = load_checkpoint(base)
    pools = _pools(base, specialty, seed + 200, pictures)
    torch.manual_seed(seed)
    parts = {"unet": (unet, _UNET_LAYERS), "text_encoder": (encoder, _TEXT_LAYERS)}
    for model, layers in parts.values():
        model.requires_grad_(False)
        config = LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules=layers)
        inject_adapter_in_model(config, model)
    loss = denoising_loss(unet, encoder, words, pools, unsaid=specialty.unsaid)
    modules = {"unet": unet, "text": encoder}
    fit(specialty.name, modules, loss, steps=specialty.steps, lr=3e-3, scratch=scratch, ema=0.99)
    weights = {
        f"{part}.{key}": value.half().contiguous()
        for part, (model, _) in parts.items()
        for key, value in get_peft_model_state_dict(model).items()
    }
    with atomic_write(out) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})


def _pools(base: Path, specialty: Specialty, seed: int, pictures: tuple[int, int]) -> tuple[Pool, ...]:
    """Return the pools that steps take turns with: two steps at the native size, one at the finer."""
    native, fine = (
        make_pool(base / "vae", seed=seed + k, number=number, size=size, keep=specialty.keep)
        for k, (number, size) in enumerate(zip(pictures, (SIZE, FINE), strict=True))
    )
    return native, native, fine
