"""The miniature's generators: a base UNet with its text encoder, a fine-tuned checkpoint and a LoRA.

Epsilon prediction under Stable Diffusion's scaled-linear schedule, one caption in ten left empty for classifier-free
guidance. One picture in six carries a fault that its caption names, so that wording and negative prompts do something.
Fine-tuning sees one style only, without replay: it gains there and forgets elsewhere.

That schedule never reaches pure noise, so the brightness of a picture leaks through its noisiest latents, and a model
that learned to read it there makes every picture middling grey when it starts from pure noise (arXiv 2305.08891). The
base is therefore trained in two phases: first by min-SNR (arXiv 2303.09556), where shapes and colours come from; then
with offset noise, which moves each channel's mean and so drowns the leak, and a loss that weighs errors of the picture
alike at all high noise levels (truncated SNR, arXiv 2202.00512), where only the caption can tell the setting. The
other order did not work: a base that learned settings first hardly learned to read the words for objects afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from flowsmith.files import atomic_write
from miniature.captions import tell_partly
from miniature.degrade import FAULT_WORDS, FAULTS, PRAISE, degrade
from miniature.scenes import Scene, Style, render, sample_scene
from miniature.text_encoder import MAX_TOKENS, WIDTH, new_text_encoder
from miniature.training import fit
from miniature.vae import SIZE

_POOL = 10_000
_EMPTY = 0.1  # share of captions left empty
_FAULTY = 1 / 6
_LEAST_SNR, _MOST_SNR = 1.0, 5.0  # between these an error of the picture weighs by the SNR
_OFFSET = 0.25  # deviation of a channel's mean noise, beside unit noise per pixel
_TRUNCATED = 20.0  # most weight of a squared error of the noise in the base's second phase
_RANK = 8
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}


@dataclass(frozen=True)
class Pool:
    """Scenes with the latents of their pictures: latents is fp16, number x 4 x 16 x 16, already scaled."""

    scenes: list[Scene]
    faults: list[str]
    latents: Tensor


def new_unet() -> Any:
    """Return the untrained network (a `diffusers.UNet2DConditionModel`)."""
    return UNet2DConditionModel(
        sample_size=SIZE // 4,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(48, 96),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    ).to(memory_format=torch.channels_last)


def make_pool(vae_folder: Path, *, seed: int, number: int = _POOL, style: Style | None = None) -> Pool:
    """Render scenes, some with a fault, and encode them."""
    rng = np.random.default_rng(seed + 1)
    vae = AutoencoderKL.from_pretrained(vae_folder).float().eval()
    scenes: list[Scene] = []
    faults: list[str] = []
    latents: list[Tensor] = []
    while len(scenes) < number:
        pictures: list[NDArray[np.uint8]] = []
        while len(pictures) < 50:
            scene = sample_scene(rng)
            if style in (None, scene.style):
                picture, words = render(scene, SIZE, rng), ""
                if rng.random() < _FAULTY:
                    fault = FAULTS[int(rng.integers(len(FAULTS)))]
                    picture = degrade(picture, fault, float(rng.uniform(0.4, 1)), rng)
                    words = str(rng.choice(FAULT_WORDS[fault]))
                scenes.append(scene)
                faults.append(words)
                pictures.append(picture)
        with torch.inference_mode():
            images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
            latents.append((vae.encode(images).latent_dist.mode() * vae.config.scaling_factor).half())
    return Pool(scenes, faults, torch.cat(latents))


def train_base(
    out: Path, *, vae: Path, tokenizer: Path, seed: int, steps: int, settings: int, scratch: Path
) -> None:
    """Train UNet and text encoder from nothing and write a checkpoint in diffusers' layout.

    Args:
        out: Folder to write.
        vae: Autoencoder's folder.
        tokenizer: Tokenizer's folder.
        seed: Of weights and data.
        steps: Of the first phase, 32 pictures each.
        settings: Steps of the second phase.
        scratch: Folder of checkpoints; a stopped run goes on from there.
    """
    torch.manual_seed(seed)
    words = CLIPTokenizer.from_pretrained(tokenizer)
    unet, encoder = new_unet(), new_text_encoder(words)
    pool = make_pool(vae, seed=seed)
    modules = {"unet": unet, "text": encoder}
    loss = denoising_loss(unet, encoder, words, pool, batch=32, offset=0.0)
    fit("base_objects", modules, loss, steps=steps, lr=2e-3, scratch=scratch, ema=0.998, warmup=200)
    loss = denoising_loss(unet, encoder, words, pool, batch=32, most_weight=_TRUNCATED)
    fit("base_settings", modules, loss, steps=settings, lr=1.2e-3, scratch=scratch, ema=0.995)
    _save_pipeline(out, unet, encoder, words, AutoencoderKL.from_pretrained(vae))


def fine_tune(out: Path, *, base: Path, style: Style, seed: int, steps: int, scratch: Path) -> None:
    """Go on training the base on one style alone, without replay."""
    unet, encoder, words, vae = load_checkpoint(base)
    pool = make_pool(base / "vae", seed=seed + 100, number=4000, style=style)
    loss = denoising_loss(unet, encoder, words, pool, batch=32)
    modules = {"unet": unet, "text": encoder}
    fit(out.name, modules, loss, steps=steps, lr=6e-4, scratch=scratch, ema=0.99)
    _save_pipeline(out, unet, encoder, words, vae)


def train_lora(out: Path, *, base: Path, style: Style, seed: int, steps: int, scratch: Path) -> None:
    """Train a LoRA of UNet and text encoder on one style alone; diffusers' key names, alpha = rank."""
    unet, encoder, words, _ = load_checkpoint(base)
    pool = make_pool(base / "vae", seed=seed + 200, number=4000, style=style)
    torch.manual_seed(seed)
    targets = {
        "unet": (
            unet,
            ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"],
        ),
        "text_encoder": (encoder, ["q_proj", "k_proj", "v_proj", "out_proj"]),
    }
    for model, names in targets.values():
        model.requires_grad_(False)
        inject_adapter_in_model(LoraConfig(r=_RANK, lora_alpha=_RANK, target_modules=names), model)
    loss = denoising_loss(unet, encoder, words, pool, batch=32)
    fit(out.stem, {"unet": unet, "text": encoder}, loss, steps=steps, lr=3e-3, scratch=scratch, ema=0.99)
    weights = {
        f"{prefix}.{key}": value.half().contiguous()
        for prefix, (model, _) in targets.items()
        for key, value in get_peft_model_state_dict(model).items()
    }
    with atomic_write(out) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})


def denoising_loss(
    unet: nn.Module,
    encoder: nn.Module,
    tokenizer: Any,
    pool: Pool,
    batch: int,
    offset: float = _OFFSET,
    most_weight: float = 1.0,
) -> Callable[[int], Tensor]:
    """Return step -> loss; captions and pictures follow from the step, noise from torch's global generator.

    Args:
        unet: Predicts the noise.
        encoder: Encodes captions.
        tokenizer: Theirs.
        pool: Scenes with their latents.
        batch: Pictures a step.
        offset: Deviation of a channel's mean noise, beside unit noise per pixel.
        most_weight: Most weight of a squared error of the noise; 1 is min-SNR, more counts high noise levels more.
    """
    schedule = DDPMScheduler(**SCHEDULE)
    alphas = schedule.alphas_cumprod
    snr = alphas / (1 - alphas)
    weights = (snr.clamp(_LEAST_SNR, _MOST_SNR) / snr).clamp(max=most_weight)

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng((step, 7))
        picked = rng.integers(len(pool.scenes), size=batch)
        texts = [_caption(pool.scenes[i], pool.faults[i], rng) for i in picked]
        ids = tokenizer(
            texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        )
        latents = pool.latents[torch.from_numpy(picked)].float().contiguous(memory_format=torch.channels_last)
        time = torch.randint(len(alphas), (batch,))
        noise = torch.randn_like(latents) + offset * torch.randn(*latents.shape[:2], 1, 1)
        noisy = schedule.add_noise(latents, noise, time)
        output = unet(noisy, time, encoder_hidden_states=encoder(ids.input_ids)[0]).sample
        total: Tensor = (weights[time] * ((output - noise) ** 2).mean((1, 2, 3))).mean()
        return total

    return loss


def _caption(scene: Scene, fault: str, rng: np.random.Generator) -> str:
    """Word a training caption: only facts of the train split are ever told, faults always are."""
    if rng.random() < _EMPTY:
        return ""
    for _ in range(8):
        told = tell_partly(scene, rng)
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
            inject_adapter_in_model(LoraConfig(r=_RANK, lora_alpha=_RANK, target_modules=targets), model)
            set_peft_model_state_dict(model, state)
    return (
        unet,
        encoder,
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        AutoencoderKL.from_pretrained(folder / "vae").float(),
    )


def _save_pipeline(out: Path, unet: Any, encoder: Any, tokenizer: Any, vae: Any) -> None:
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
