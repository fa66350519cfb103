"""The miniature's base generator: a UNet with its text encoder.

Epsilon prediction under Stable Diffusion's scaled-linear schedule, one caption in ten left empty for classifier-free
guidance. One picture in six carries a fault and one a virtue that its caption names, so that wording and negative
prompts do something. Every third batch is of 96 pixels a side, the others of 64.

That schedule never reaches pure noise, so the brightness of a picture leaks through its noisiest latents, and a model
that learned to read it there makes every picture middling grey when it starts from pure noise (arXiv 2305.08891). The
base is therefore trained in two phases: first by min-SNR (arXiv 2303.09556), where shapes and colours come from; then
with offset noise, which moves each channel's mean and so drowns the leak, and a loss that weighs errors of the picture
alike at all high noise levels (truncated SNR, arXiv 2202.00512), where only the caption can tell the setting. The
other order did not work: a base that learned settings first hardly learned to read the words for objects afterwards.
A third phase trains both together, and the text encoder to say what it read.
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
from miniature.pools import Pool, make_pool
from miniature.scenes import Scene
from miniature.text_encoder import MAX_TOKENS, WIDTH, new_text_encoder
from miniature.told_facts import ToldFacts
from miniature.training import fit, half_precision
from miniature.vae import CHANNELS, FINE, SIZE

LORA_RANK = 8
BATCH = 32  # pictures of 64 pixels a step, half as many of 96
_NATIVE_POOL, _FINE_POOL = 16_000, 5_000
_EMPTY = 0.1  # share of captions left empty
_LEAST_SNR, _MOST_SNR = 1.0, 5.0  # between these an error of the picture weighs by the SNR
_OFFSET = 0.25  # deviation of a channel's mean noise, beside unit noise per pixel
_TRUNCATED = 20.0  # most weight of a squared error of the noise in the base's second phase
_TOGETHER = 5.0  # the same in its third
_TOLD = 0.02  # weight of reading a caption's facts from its encoding
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
    pools = base_pools(vae, seed + 1)
    modules = {"unet": unet, "text": encoder}
    loss = denoising_loss(unet, encoder, words, pools, offset=0.0)
    fit("base_objects", modules, loss, steps=steps, lr=2e-3, scratch=scratch, ema=0.998, warmup=200)
    loss = denoising_loss(unet, encoder, words, pools, most_weight=_TRUNCATED)
    fit("base_settings", modules, loss, steps=settings, lr=1.2e-3, scratch=scratch, ema=0.995)
    save_checkpoint(out, unet, encoder, words, AutoencoderKL.from_pretrained(vae))


def refine_base(out: Path, *, base: Path, seed: int, steps: int, scratch: Path) -> None:
    """Go on training a base on objects and settings together, and write it.

    Its text encoder must now also say, linearly and after the last word, what the caption tells: a denoising loss
    alone taught it neither which colour is whose nor which side is left.

    Args:
        out: Folder to write.
        base: What `train_base` wrote.
        seed: Of the data.
        steps: Of 32 pictures each, every third step's of 96 pixels a side and half as many.
        scratch: Folder of checkpoints; a stopped run goes on from there.
    """
    torch.manual_seed(seed)
    unet, encoder, words, vae = load_checkpoint(base)
    told = ToldFacts()
    pools = base_pools(base / "vae", seed + 11)
    loss = denoising_loss(unet, encoder, words, pools, most_weight=_TOGETHER, told=told)
    modules = {"unet": unet, "text": encoder, "told": told}
    fit("base_together", modules, loss, steps=steps, lr=1.5e-3, scratch=scratch, ema=0.998, warmup=200)
    save_checkpoint(out, unet, encoder, words, vae)


def base_pools(vae: Path, seed: int) -> list[Pool]:
    """Return what the base's steps take turns with: two steps at the native size, one at the finer."""
    native = make_pool(vae, seed=seed, number=_NATIVE_POOL)
    return [native, native, make_pool(vae, seed=seed, number=_FINE_POOL, size=FINE)]


def denoising_loss(
    unet: nn.Module,
    encoder: nn.Module,
    tokenizer: Any,
    pools: Sequence[Pool],
    batch: int = BATCH,
    offset: float = _OFFSET,
    most_weight: float = 1.0,
    unsaid: Collection[str] = (),
    told: ToldFacts | None = None,
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
        told: Reads the captions' facts from the text encoder's output; its loss is added.
    """
    schedule = DDPMScheduler(**SCHEDULE)
    alphas = schedule.alphas_cumprod
    snr = alphas / (1 - alphas)
    weights = (snr.clamp(_LEAST_SNR, _MOST_SNR) / snr).clamp(max=most_weight)

    def loss(step: int) -> Tensor:
        rng, pool = np.random.default_rng((step, 7)), pools[step % len(pools)]
        number = batch if pool.latents.shape[-1] <= SIZE // 4 else batch // 2
        picked = rng.integers(len(pool.scenes), size=number)
        captions = [_caption(pool.scenes[i], pool.making[i], rng, unsaid) for i in picked]
        texts = [text for text, _ in captions]
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
        if told is not None:
            ended = ids.input_ids == tokenizer.eos_token_id
            total = total + _TOLD * told.loss(text, ended, [facts for _, facts in captions])
        return total

    return loss


def _caption(
    scene: Scene, making: str, rng: np.random.Generator, unsaid: Collection[str] = ()
) -> tuple[str, dict[str, Any] | None]:
    """Word a training caption and return its facts: only those of the train split are told, its making always is."""
    if rng.random() < _EMPTY:
        return "", None
    for _ in range(8):
        told = tell_partly(scene, rng, unsaid)
        if told.split == "train":
            return f"{told.text}, {making}" if making else told.text, told.facts
    return making, None


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
