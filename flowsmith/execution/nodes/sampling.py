"""What KSampler and KSamplerAdvanced have in common: a batch of latents taken along one list of noise levels."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from flowsmith.execution.denoiser import Denoiser, unguided
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.nodes.registry import Row
from flowsmith.execution.nodes.values import EmptyLatent, latent_shape, realised
from flowsmith.execution.noise import StepNoise, starting_noise
from flowsmith.execution.samplers import find_sampler
from flowsmith.execution.sigmas import sampling_sigmas


def common(row: Row) -> Hashable:
    """One network, one solver, one geometry; guidance may differ, but not in kind."""
    shape = latent_shape(row["latent_image"], row["model"].latent)
    way = row["sampler_name"], row["scheduler"], int(row["steps"])
    return (row["model"].key, *way, shape, unguided(float(row["cfg"])))


def whole_way(row: Row, denoise: float = 1.0) -> list[float]:
    """Return the noise levels of all steps that a row asks for, or of their last part if ``denoise`` is below 1."""
    discards = find_sampler(str(row["sampler_name"])).discards_penultimate
    return sampling_sigmas(row["model"].table, str(row["scheduler"]), int(row["steps"]), denoise, discards)


def sample_along(
    rows: Sequence[Row],
    sigmas: Sequence[float],
    seeds: Sequence[int],
    add_noise: bool = True,
) -> list[tuple[Any, ...]]:
    """Sample rows of one group as one batch; each row's noise depends on its own seed only.

    Args:
        rows: Inputs of the nodes.
        sigmas: Noise levels to walk through, descending; fewer than two leave the latents as they are.
        seeds: One a row.
        add_noise: Whether the latents are noised first; otherwise they are taken to hold noise of ``sigmas[0]``.

    Returns:
        Latents, one tuple a row.
    """
    model: DiffusionModel = rows[0]["model"]
    shape = latent_shape(rows[0]["latent_image"], model.latent)
    if len(sigmas) < 2:
        return [(realised(row["latent_image"], model.latent).to(model.device),) for row in rows]

    x = torch.cat([_model_latent(row, model).to(model.device) for row in rows])
    if add_noise:
        noise = torch.cat([starting_noise(seed, shape) for seed in seeds]).to(model.device)
        # A whole way starts from noise of the process' full variance, a part from noise on top of latents.
        whole = sigmas[0] > model.table.maximum or math.isclose(sigmas[0], model.table.maximum, rel_tol=1e-5)
        x = noise * (math.sqrt(1 + sigmas[0] ** 2) if whole else sigmas[0]) + x

    images = range(shape[0])
    denoiser = Denoiser(
        model,
        model.table,
        model.prediction,
        [row["positive"] for row in rows for _ in images],
        [row["negative"] for row in rows for _ in images],
        [float(row["cfg"]) for row in rows for _ in images],
        model.device,
        model.dtype,
        model.rescale,
    )
    sampler = find_sampler(str(rows[0]["sampler_name"]))
    x = sampler(denoiser, x, sigmas, StepNoise(seeds, shape, model.device))
    return [(part,) for part in torch.split(model.latent.out_of_model(x), shape[0])]


def _model_latent(row: Row, model: DiffusionModel) -> Tensor:
    """Return the latents as the network sees them; nothing stays nothing, whatever the format's shift."""
    latents = realised(row["latent_image"], model.latent)
    empty = isinstance(row["latent_image"], EmptyLatent) or not latents.any()
    return latents if empty else model.latent.into_model(latents)
