"""SDXL's layout with random weights: images a second on a device, against one call of diffusers' pipeline a sample."""

import time
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch

from flowsmith.evaluation.throughput.clocks import timed
from flowsmith.evaluation.throughput.graphs import text_to_image_flow
from flowsmith.evaluation.throughput.plain_way import images_of
from flowsmith.execution import Executor, RenderTask
from flowsmith.execution.conditioning import NetworkConditions
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.tokenizers import clip_tokenizer

NAME, STEPS, GUIDANCE = "random_sdxl", 20, 5.0
_FULL: dict[str, Any] = {
    "unet": (320, 640, 1280),
    "heads": (5, 10, 20),
    "layers": (1, 2, 10),
    "clip": (768, 12, 12, 3072),
}
_FULL |= {"big": (1280, 32, 20, 5120), "vae": (128, 256, 512, 512), "groups": 32}
_SMALL: dict[str, Any] = {
    "unet": (32, 64, 128),
    "heads": (1, 1, 2),
    "layers": (1, 1, 2),
    "clip": (32, 2, 2, 64),
}
_SMALL |= {"big": (64, 2, 2, 128), "vae": (16, 16, 16, 16), "groups": 16}


def against_sdxl_pipeline(
    models: Path, device: str, samples: int = 8, side: int = 1024, small: bool = False, batch_size: int = 4
) -> dict[str, Any]:
    """Render samples of one flow in bfloat16 with the executor and with diffusers' pipeline, models loaded.

    Args:
        models: Folder of models; the checkpoint is written there.
        device: Where to render.
        samples: How many.
        side: Pixels of a picture's sides.
        small: Take a layout of reduced width.
        batch_size: Samples at once; the pipeline renders one at a time.

    Returns:
        ``cuda_images_per_second`` of the executor and of the pipeline, their ratio, and which share of the matrix
        products that the device does in a second the executor's denoising amounts to.
    """
    import diffusers

    folder = write_random_sdxl(models / "checkpoints" / NAME, small, device)
    flow = text_to_image_flow(NAME, side, STEPS, GUIDANCE, negative="blurry")
    tasks = [RenderTask(str(k), flow, f"{k} red cats", k + 1) for k in range(samples)]
    executor = Executor(models, device=device, batch_size=batch_size, dtype=torch.bfloat16, timeout=3600.0)
    images_of(executor.render([RenderTask("first", flow, "before the clock starts", 0)]))
    _, mine = timed(lambda: images_of(executor.render(tasks)))
    flops = network_flops(executor.library.checkpoint(NAME).model, side)

    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
    pipeline = pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    call = partial(
        pipeline, negative_prompt="blurry", num_inference_steps=STEPS, guidance_scale=GUIDANCE, width=side, height=side
    )  # fmt: skip
    call("before the clock starts")
    _, theirs = timed(
        lambda: [call(t.prompt, generator=torch.Generator().manual_seed(t.seed)) for t in tasks]
    )
    rate = samples / mine.wall
    return {
        "cuda_device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "cuda_images_per_second": rate,
        "cuda_pipeline_images_per_second": samples / theirs.wall,
        "cuda_pipeline_ratio": theirs.wall / mine.wall,
        "cuda_matrix_rate_share": rate * STEPS * 2 * flops / matrix_rate(device, 512 if small else 8192),
    }


def network_flops(model: DiffusionModel, side: int) -> float:
    """Return the floating point operations of one row's pass through the network."""
    from torch.utils.flop_counter import FlopCounterMode

    latent = model.latent
    config: Any = model.network.config
    shape = (1, latent.channels, side // latent.factor, side // latent.factor)
    like: dict[str, Any] = {"device": model.device, "dtype": model.dtype}
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    told = NetworkConditions(
        torch.zeros(1, 77, config.cross_attention_dim, **like),
        torch.zeros(1, pooled, **like),
        torch.zeros(1, 7, device=model.device),
        torch.zeros(1, device=model.device),
    )
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(shape, **like), torch.tensor(500, device=model.device), told)
    return float(counter.get_total_flops())


def matrix_rate(device: str, size: int = 8192, repeats: int = 20) -> float:
    """Return the floating point operations a second of square bfloat16 matrix products, the best of some."""
    a = torch.randn(size, size, device=device).bfloat16()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        a @ a
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def write_random_sdxl(folder: Path, small: bool, device: str) -> Path:
    """Write a checkpoint of SDXL's layout with random weights as a diffusers folder, in bfloat16."""
    import diffusers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    sizes = _SMALL if small else _FULL

    def clip(kind: Any, size: tuple[int, int, int, int], act: str) -> Any:
        width, layers, heads, inner = size
        config = CLIPTextConfig(
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=inner,
            hidden_act=act, projection_dim=width, vocab_size=49408, bos_token_id=49406, eos_token_id=49407,
        )  # fmt: skip
        return kind(config).to(torch.bfloat16)

    widths, big = sizes["clip"][0] + sizes["big"][0], sizes["big"][0]
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        unet = diffusers.UNet2DConditionModel(
            sample_size=128,
            block_out_channels=sizes["unet"],
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=sizes["layers"],
            attention_head_dim=sizes["heads"],
            cross_attention_dim=widths,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=6 * 256 + big,
        ).to(torch.bfloat16)
        vae = diffusers.AutoencoderKL(
            block_out_channels=sizes["vae"],
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            norm_num_groups=sizes["groups"],
            scaling_factor=0.13025,
            force_upcast=False,
        ).to(torch.bfloat16)
        texts = (
            clip(CLIPTextModel, sizes["clip"], "quick_gelu"),
            clip(CLIPTextModelWithProjection, sizes["big"], "gelu"),
        )
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    )
    tokenizer = deepcopy(clip_tokenizer())
    tokenizer.model_max_length = 77
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae, *texts, tokenizer, tokenizer, unet, scheduler, add_watermarker=False
    )
    pipeline.save_pretrained(folder)
    return folder
