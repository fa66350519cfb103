"""Samplers: each solves the same differential equation from noise to image, one small file each.

A sampler is a function of a denoiser, a start, sigmas and a source of fresh noise. To add one, write a file
with ``@register("name")`` and import it here.
"""

from flowsmith.execution.samplers import (
    ddim,
    deis,
    dpm_2,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s_ancestral,
    dpmpp_3m_sde,
    dpmpp_sde,
    euler,
    euler_ancestral,
    heun,
    ipndm,
    lcm,
    lms,
    res_multistep,
    uni_pc,
)
from flowsmith.execution.samplers.registry import SAMPLERS, Denoise, DrawNoise, Sampler, find_sampler

__all__ = [
    "SAMPLERS",
    "Denoise",
    "DrawNoise",
    "Sampler",
    "ddim",
    "deis",
    "dpm_2",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s_ancestral",
    "dpmpp_3m_sde",
    "dpmpp_sde",
    "euler",
    "euler_ancestral",
    "find_sampler",
    "heun",
    "ipndm",
    "lcm",
    "lms",
    "res_multistep",
    "uni_pc",
]
