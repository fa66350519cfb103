"""Faults of rendering: which errors mean that memory ran out, what then takes less of it, what a failed image is."""

import gc
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from flowsmith.execution.nodes import NODES, NodeType

_ALLOCATION_FAILED = (
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
_TILED = {"VAEDecode": "VAEDecodeTiled", "VAEEncode": "VAEEncodeTiled"}
_TILES = (512, 256)  # pixels a side


def out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out: the device's, torch's on the CPU, or Python's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _ALLOCATION_FAILED)


def release_memory(device: torch.device) -> None:
    """Give back what nothing uses any more, so that the next attempt finds it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def in_tiles(node: NodeType, row: Mapping[str, Any]) -> Iterator[tuple[NodeType, Mapping[str, Any]]]:
    """Yield what does nearly the same as a node in tiles, smaller and smaller; nothing for most nodes.

    Pixels differ a little from those of the whole, because normalisation sees a tile at a time.
    """
    tiled = NODES.get(_TILED.get(node.name, ""))
    if tiled is None:
        return
    for side in _TILES:
        told = {"tile_size": side, "overlap": side // 8, "temporal_size": 64, "temporal_overlap": 8}
        yield tiled, {**row, **told}


def fault_of(image: Tensor) -> str | None:
    """Return why an image (uint8) is a failure, None if it is none.

    One that is 0 in every pixel and channel is: no network draws that, but numbers that are not finite become it when
    they are rounded (an autoencoder's overflow in half precision). Images that are merely dark are not.
    """
    if image.any():
        return None
    return (
        "ExecutionError: the image is black in every pixel, which is what numbers that are not finite leave behind; "
        "use a smaller cfg, LoRA strength or prompt weight, or a wider number type"
    )
