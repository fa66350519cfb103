"""Pictures for the card: the same prompts and seeds under different models, in a grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from flowsmith.execution import Executor, RenderTask
from flowsmith.flows import Flow
from miniature.gates import known_models

# All factors of the world, several times.
PROMPTS = (
    "a poster of a large plain red circle by day",
    "two small striped cyan stars at night, pencil drawing",
    "three large plain green triangles at dusk, poster",
    "a small plain yellow square and a small plain blue circle by day, pencil",
    "a large striped pink star left of a large striped green square at night, poster",
    "a pencil drawing of a small striped red triangle above a small striped yellow star at dusk",
    "a large striped blue square on a bright day, pencil drawing",
    "two small plain pink circles and a small plain cyan triangle at night, poster",
)
_SEED = 4000
TILE = 128  # side of a picture on a sheet: twice the native size
_GAP, _HEAD, _MARGIN = 4, 16, 22


@dataclass(frozen=True)
class Recipe:
    """What a picture is made with, all else as in the default flow.

    Attributes:
        checkpoint: Name of a checkpoint.
        lora: Name of a LoRA's file.
        strength: Its strength, on UNet and text encoder.
        vae: Name of a VAE of its own.
        upscaler: Name of an upscale model's file.
        scale_by: Factor of a bicubic enlargement, where there is no upscaler.
    """

    checkpoint: str = "mini_base"
    lora: str | None = None
    strength: float = 1.0
    vae: str | None = None
    upscaler: str | None = None
    scale_by: float = 1.0

    def flow(self) -> Flow:
        """Return the flow."""
        graph: dict[str, dict[str, Any]] = {}

        def node(kind: str, **inputs: Any) -> str:
            name = str(len(graph) + 1)
            graph[name] = {"class_type": kind, "inputs": inputs}
            return name

        loaded = node("CheckpointLoaderSimple", ckpt_name=self.checkpoint)
        models, vae = loaded, [loaded, 2]
        if self.lora:
            strengths = {"strength_model": self.strength, "strength_clip": self.strength}
            models = node("LoraLoader", model=[loaded, 0], clip=[loaded, 1], lora_name=self.lora, **strengths)
        if self.vae:
            vae = [node("VAELoader", vae_name=self.vae), 0]
        texts = [node("CLIPTextEncode", text=text, clip=[models, 1]) for text in ("{prompt}", "")]
        latents = node(
            "KSampler",
            model=[models, 0],
            steps=20,
            cfg=4.0,
            sampler_name="euler",
            scheduler="normal",
            positive=[texts[0], 0],
            negative=[texts[1], 0],
            latent_image=[node("EmptyLatentImage", width=64, height=64, batch_size=1), 0],
            denoise=1.0,
        )
        image = node("VAEDecode", samples=[latents, 0], vae=vae)
        if self.upscaler:
            model = node("UpscaleModelLoader", model_name=self.upscaler)
            image = node("ImageUpscaleWithModel", upscale_model=[model, 0], image=[image, 0])
        elif self.scale_by != 1:
            image = node("ImageScaleBy", image=[image, 0], upscale_method="bicubic", scale_by=self.scale_by)
        node("SaveImage", images=[image, 0], filename_prefix="flowsmith")
        return Flow.from_template(graph, known_models())


def render_grid(models: Path, prompts: Sequence[str], recipes: Sequence[Recipe]) -> list[list[Image.Image]]:
    """Render each prompt (a row) with each recipe (a column); all pictures of a row start from the same noise.

    Raises:
        RuntimeError: A picture could not be rendered.
    """
    flows = [recipe.flow() for recipe in recipes]
    cells = list(product(range(len(prompts)), range(len(recipes))))
    tasks = [RenderTask(f"{row} {column}", flows[column], prompts[row], _SEED + row) for row, column in cells]
    images: dict[str, Image.Image] = {}
    for result in Executor(models).render(tasks):
        if result.image is None:
            raise RuntimeError(f"the card's sample {result.sample_id} cannot be rendered: {result.error}")
        images[result.sample_id] = Image.fromarray(np.asarray(result.image.permute(1, 2, 0)))
    return [[images[f"{row} {column}"] for column in range(len(recipes))] for row in range(len(prompts))]


def sheet(grid: Sequence[Sequence[Image.Image]], columns: Sequence[str], rows: Sequence[str]) -> Image.Image:
    """Lay pictures on a sheet under their columns' names, each row behind its name; enlarged by repeated pixels."""
    step = TILE + _GAP
    page = Image.new("RGB", (_MARGIN + step * len(columns), _HEAD + step * len(rows)), "white")
    draw = ImageDraw.Draw(page)
    for x, name in enumerate(columns):
        draw.text((_MARGIN + x * step, 2), name, fill="black")
    for y, (name, pictures) in enumerate(zip(rows, grid, strict=True)):
        draw.text((2, _HEAD + y * step + 2), name, fill="black")
        for x, picture in enumerate(pictures):
            page.paste(
                picture.resize((TILE, TILE), Image.Resampling.NEAREST),
                (_MARGIN + x * step, _HEAD + y * step),
            )
    return page
