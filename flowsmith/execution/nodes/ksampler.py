"""KSampler: noise the latents of a LATENT and denoise them under two CONDITIONINGs."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import torch

from flowsmith.execution.denoiser import Denoiser, unguided
from flowsmith.execution.library import ModelLibrary
from flowsmith.execution.models import DiffusionModel
from flowsmith.execution.nodes.registry import Row, register
from flowsmith.execution.nodes.values import EmptyLatent, latent_shape, realised
from flowsmith.execution.noise import StepNoise, starting_noise
from flowsmith.execution.samplers import find_sampler
from flowsmith.execution.sigmas import sampling_sigmas


def _group(row: Row) -> Hashable:
    """One network, one way through the noise levels, one geometry; guidance may differ, but not in kind."""
    way = row["sampler_name"], row["scheduler"], int(row["steps"]), float(row["denoise"])
    shape = latent_shape(row["latent_image"], row["model"].latent)
    return (row["model"].key, *way, shape, unguided(float(row["cfg"])))


@register("KSampler", group=_group, order=1)
def sample(rows: Sequence[Row], library: ModelLibrary) -> list[tuple[Any, ...]]:
    """Sample the rows as one batch; each row's noise depends on its own seed only."""
    first = rows[0]
    model: DiffusionModel = first["model"]
    sampler = find_sampler(str(first["sampler_name"]))
    sigmas = sampling_sigmas(
        model.table,
        str(first["scheduler"]),
        int(first["steps"]),
        float(first["denoise"]),
        sampler.discards_penultimate,
    )
    latents = torch.cat([realised(row["latent_image"], model.latent) for row in rows]).to(model.device)
    shape = latent_shape(first["latent_image"], model.latent)
    if not sigmas:  # denoise 0
        return [(part,) for part in torch.split(latents, shape[0])]

    seeds = [int(row["seed"]) for row in rows]
    noise = torch.cat([starting_noise(seed, shape) for seed in seeds]).to(model.device)
    # A whole way starts from noise of the process' full variance, a part of it from noise on top of latents.
    whole = sigmas[0] > model.table.maximum or math.isclose(sigmas[0], model.table.maximum, rel_tol=1e-5)
    x = noise * (math.sqrt(1 + sigmas[0] ** 2) if whole else sigmas[0])
    x = x + torch.cat([_model_latent(row, model) for row in rows]).to(model.device)

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
    x = sampler(denoiser, x, sigmas, StepNoise(seeds, shape, model.device))
    return [(part,) for part in torch.split(model.latent.out_of_model(x), shape[0])]


def _model_latent(row: Row, model: DiffusionModel) -> torch.Tensor:
    """Return the latents as the network sees them; nothing stays nothing, whatever the format's shift."""
    latents = realised(row["latent_image"], model.latent)
    empty = isinstance(row["latent_image"], EmptyLatent) or not latents.any()
    return latents if empty else model.latent.into_model(latents)
