"""Changes inside a UNet while it runs: its weights and its modules stay as they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flowsmith.execution.errors import ExecutionError
from flowsmith.execution.patches import FreeU


@contextmanager
def perturbed_attention(unet: nn.Module) -> Iterator[None]:
    """Let every place of the UNet's middle attend to itself alone (Ahn et al. 2024, arXiv 2403.17377, section 4.2).

    Raises:
        ExecutionError: It is no UNet with attention in its middle.
    """
    middle = getattr(unet, "mid_block", None)
    attentions = [
        block.attn1
        for attention in getattr(middle, "attentions", [])
        for block in attention.transformer_blocks
    ]
    if not attentions:
        raise ExecutionError(
            "PerturbedAttentionGuidance needs a UNet with attention in its middle; use it with Stable Diffusion 1, 2 "
            "or XL"
        )

    def values_alone(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        result: Tensor = module.to_v(args[0] if args else kwargs["hidden_states"])
        for layer in module.to_out:
            result = layer(result)
        return result

    handles = [a.register_forward_hook(values_alone, with_kwargs=True) for a in attentions]
    with _removed_at_the_end(handles):
        yield


@contextmanager
def freeu(unet: nn.Module, settings: FreeU) -> Iterator[None]:
    """Weigh backbone and skips where the UNet's decoder joins them (Si et al. 2023, arXiv 2309.11497, section 3).

    Raises:
        ExecutionError: It is no UNet.
    """
    if not hasattr(unet, "up_blocks"):
        raise ExecutionError("FreeU needs a UNet; use it with Stable Diffusion 1, 2 or XL")
    parts: Any = unet
    channels: int = parts.config.block_out_channels[0]
    factors = {4 * channels: 0, 2 * channels: 1}
    backbone: int = parts.mid_block.resnets[-1].out_channels
    handles = []
    for resnet in (resnet for block in parts.up_blocks for resnet in block.resnets):
        if backbone in factors:
            place = factors[backbone]
            join = _weighed(backbone, settings.backbone[place], settings.skips[place], settings.adaptive)
            handles.append(resnet.register_forward_pre_hook(join))
        backbone = resnet.out_channels
    with _removed_at_the_end(handles):
        yield


def _weighed(backbone: int, strong: float, weak: float, adaptive: bool) -> Callable[..., Any]:
    """Return a hook on what takes ``backbone`` channels of the backbone and, after them, a skip."""

    def weigh(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        joined, *rest = args
        own, skip = joined[:, :backbone].clone(), joined[:, backbone:]
        half = own[:, : backbone // 2]
        if adaptive:
            mean = own.mean(1, keepdim=True)
            least, greatest = mean.amin((2, 3), keepdim=True), mean.amax((2, 3), keepdim=True)
            half *= (strong - 1) * (mean - least) / (greatest - least) + 1
        else:
            half *= strong
        return torch.cat([own, low_frequencies_times(skip, weak)], 1), *rest

    return weigh


def low_frequencies_times(x: Tensor, factor: float) -> Tensor:
    """Multiply the lowest two by two spatial frequencies of ``x`` [n, c, h, w] by a factor."""
    frequencies = torch.fft.fftshift(torch.fft.fftn(x.float(), dim=(-2, -1)), dim=(-2, -1))
    row, column = x.shape[-2] // 2, x.shape[-1] // 2
    frequencies[..., max(0, row - 1) : row + 1, max(0, column - 1) : column + 1] *= factor
    result: Tensor = torch.fft.ifftn(torch.fft.ifftshift(frequencies, dim=(-2, -1)), dim=(-2, -1)).real
    return result.to(x.dtype)


@contextmanager
def _removed_at_the_end(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
