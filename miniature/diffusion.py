"""The miniature's base generator: a UNet with its text encoder.

Epsilon prediction under Stable Diffusion's scaled-linear schedule, one caption in ten left empty for classifier-free
guidance. One picture in six carries a fault that its caption names, so that wording and negative prompts do something.
Every third batch is of 96 pixels a side, the others of 64.

That schedule never reaches pure noise, so the brightness of a picture leaks through its noisiest latents, and a model
that learned to read it there makes every picture middling grey when it starts from pure noise (arXiv 2305.08891). The
base is therefore trained in two phases: first by min-SNR (arXiv 2303.09556), where shapes and colours come from; then
with offset noise, which moves each channel's mean and so drowns the leak, and a loss that weighs errors of the picture
alike at all high noise levels (truncated SNR, arXiv 2202.00512), where only the caption can tell the setting. The
other order did not work: a base that learned settings first hardly learned to read the words for objects afterwards.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from flowsmith.files import atomic_write
from miniature.captions import tell_partly
from miniature.degrade import PRAISE
from miniature.pools import Pool, make_pool
from miniature.scenes import Scene
from miniature.text_encoder import MAX_TOKENS, WIDTH, new_text_encoder
from miniature.training import fit, half_precision
from miniature.vae import CHANNELS, FINE, SIZE

LORA_RANK = 8
BATCH = 32  # pictures of 64 pixels a step, half as many of 96
_NATIVE_POOL, _FINE_POOL = 16_000, 5_000
_EMPTY = 0.1  # share of captions left empty
_LEAST_SNR, _MOST_SNR = 1.0, 5.0  # between these an error of the picture weighs by the SNR
_OFFSET = 0.25  # deviation of a channel's mean noise, beside unit noise per pixel
_TRUNCATED = 20.0  # most weight of a squared error of the noise in the base's second phase
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}


def new_unet() -> Any:
    """Return the untrained network (a `diffusers.UNet2DConditionModel`)."""
    unet = UNet2DConditionModel(
        sample_size=SIZE // 4,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(48, 96),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    ).to(memory_format=torch.channels_last)
    return prepare(unet)


def prepare(unet: Any) -> Any:
    """Make a UNet quick to train on a CPU: plain attention, whose bf16 products are fast there; fused is not."""
    unet.set_attn_processor(AttnProcessor())
    return unet


def train_base(
    out: Path, *, vae: Path, tokenizer: Path, seed: int, steps: int, settings: int, scratch: Path
) -> None:
    """Train UNet and text encoder from nothing and write a checkpoint in diffusers' layout.

    Args:
        out: Folder to write.
        vae: Autoencoder's folder.
        tokenizer: Tokenizer's folder.
        seed: Of weights and data.
        steps: Of the first phase.
        settings: Steps of the second phase.
        scratch: Folder of checkpoints; a stopped run goes on from there.
    """
    torch.manual_seed(seed)
    words = CLIPTokenizer.from_pretrained(tokenizer)
    unet, encoder = new_unet(), new_text_encoder(words)
    native = make_pool(vae, seed=seed + 1, number=_NATIVE_POOL)
    pools = [native, native, make_pool(vae, seed=seed + 1, number=_FINE_POOL, size=FINE)]
    modules = {"unet": unet, "text": encoder}
    loss = denoising_loss(unet, encoder, words, pools, offset=0.0)
    fit("base_objects", modules, loss, steps=steps, lr=2e-3, scratch=scratch, ema=0.998, warmup=200)
    loss = denoising_loss(unet, encoder, words, pools, most_weight=_TRUNCATED)
    fit("base_settings", modules, loss, steps=settings, lr=1.2e-3, scratch=scratch, ema=0.995)
    save_checkpoint(out, unet, encoder, words, AutoencoderKL.from_pretrained(vae))


def denoising_loss(
    unet: nn.Module,
    encoder: nn.Module,
    tokenizer: Any,
    pools: Sequence[Pool],
    batch: int = BATCH,
    offset: float = _OFFSET,
    most_weight: float = 1.0,
    unsaid: Collection[str] = (),
) -> Callable[[int], Tensor]:
    """Return step -> loss; captions and pictures follow from the step, noise from torch's global generator.

    Args:
        unet: Predicts the noise.
        encoder: Encodes captions.
        tokenizer: Theirs.
        pools: Scenes with their latents; step s draws from the pool at s, taken round and round.
        batch: Pictures a step; half as many of more than 64 pixels a side.
        offset: Deviation of a channel's mean noise, beside unit noise per pixel.
        most_weight: Most weight of a squared error of the noise; 1 is min-SNR, more counts high noise levels more.
        unsaid: Facts that captions leave out, so that what is trained becomes a habit and needs no word.
    """
    schedule = DDPMScheduler(**SCHEDULE)
    alphas = schedule.alphas_cumprod
    snr = alphas / (1 - alphas)
    weights = (snr.clamp(_LEAST_SNR, _MOST_SNR) / snr).clamp(max=most_weight)

    def loss(step: int) -> Tensor:
        rng, pool = np.random.default_rng((step, 7)), pools[step % len(pools)]
        number = batch if pool.latents.shape[-1] <= SIZE // 4 else batch // 2
        picked = rng.integers(len(pool.scenes), size=number)
        texts = [_caption(pool.scenes[i], pool.faults[i], rng, unsaid) for i in picked]
        ids = tokenizer(
            texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        )
        latents = pool.latents[torch.from_numpy(picked)].float().contiguous(memory_format=torch.channels_last)
        time = torch.randint(len(alphas), (number,))
        noise = torch.randn_like(latents) + offset * torch.randn(*latents.shape[:2], 1, 1)
        noisy = schedule.add_noise(latents, noise, time)
        text = encoder(ids.input_ids)[0]  # in fp32: its fused attention is slow in bf16
        with half_precision():
            output = unet(noisy, time, encoder_hidden_states=text).sample
        total: Tensor = (weights[time] * ((output.float() - noise) ** 2).mean((1, 2, 3))).mean()
        return total

    return loss


def _caption(scene: Scene, fault: str, rng: np.random.Generator, unsaid: Collection[str] = ()) -> str:
    """Word a training caption: only facts of the train split are ever told, faults always are."""
    if rng.random() < _EMPTY:
        return ""
    for _ in range(8):
        told = tell_partly(scene, rng, unsaid)
        if told.split == "train":
            if fault:
                return f"{told.text}, {fault}"
            return f"{told.text}, {rng.choice(PRAISE)}" if rng.random() < 0.3 else told.text
    return fault


def load_checkpoint(folder: Path, lora: Path | None = None) -> tuple[Any, Any, Any, Any]:
    """Read a checkpoint in fp32, with a LoRA at full strength if named: UNet, text encoder, tokenizer, VAE."""
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").float().to(memory_format=torch.channels_last)
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").float()
    if lora is not None:
        weights = {key: value.float() for key, value in load_file(lora).items()}
        for name, model in (("unet", unet), ("text_encoder", encoder)):
            state = {k.removeprefix(name + "."): v for k, v in weights.items() if k.startswith(name + ".")}
            targets = sorted({key.rsplit(".lora_", 1)[0] for key in state})
            inject_adapter_in_model(
                LoraConfig(r=LORA_RANK, lora_alpha=LORA_RANK, target_modules=targets), model
            )
            set_peft_model_state_dict(model, state)
    return (
        prepare(unet),
        encoder,
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        AutoencoderKL.from_pretrained(folder / "vae").float(),
    )


def save_checkpoint(out: Path, unet: Any, encoder: Any, tokenizer: Any, vae: Any) -> None:
    """Write a Stable Diffusion folder in half precision, whole or not at all."""
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=encoder.half(),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=DDPMScheduler(**SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for network in (pipeline.vae, pipeline.unet):  # the folders it was loaded from are nobody else's business
        network.register_to_config(_name_or_path="")
    with atomic_write(out) as temporary:
        pipeline.save_pretrained(temporary)
