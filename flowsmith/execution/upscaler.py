"""Upscale models (ESRGAN, Compact, SwinIR, …) through spandrel, which tells the architecture by the tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowsmith.execution.cache import module_bytes
from flowsmith.execution.errors import ExecutionError, ModelFileError
from flowsmith.execution.model_files import read_tensors
from flowsmith.execution.residency import Fetch, stay


@dataclass(frozen=True, eq=False)
class Upscaler:
    """A network that makes pictures larger.

    Attributes:
        key: Names the weights: equal keys, equal outputs.
        model: spandrel's descriptor of the network, in float32.
        factor: How many times wider and higher a picture comes out.
        device: Where it runs.
        fetch: Brings it there.
    """

    key: str
    model: Any
    factor: int
    device: torch.device | str = "cpu"
    fetch: Fetch = stay

    @property
    def nbytes(self) -> int:
        """The bytes that it holds."""
        return module_bytes(self.model.model)

    def __call__(self, images: Tensor) -> Tensor:
        """Turn images [n, 3, h, w] in [0, 1] into [n, 3, h * factor, w * factor] in [0, 1], float32.

        Raises:
            ExecutionError: The images have other channels.
        """
        if images.shape[1] != 3:
            raise ExecutionError(f"an image of {images.shape[1]} channels cannot be upscaled; give one of 3")
        self.fetch(self.model.model)
        placed = images.to(self.device, torch.float32)
        # One at a time, as spandrel has it: some architectures look at the whole picture.
        return torch.cat([self.model(image[None]).clamp(0, 1) for image in placed])


def read_upscaler(path: Path, key: str) -> Upscaler:
    """Load an upscale model from a file.

    Raises:
        ModelFileError: The file is broken, or holds no model from RGB to RGB that spandrel knows.
    """
    import spandrel

    tensors = {name: tensor.float() for name, tensor in read_tensors(path).items()}
    try:
        model = spandrel.ModelLoader().load_from_state_dict(tensors)
    except Exception as error:  # its architectures raise many kinds for one cause
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ModelFileError(
            f"{path}: holds no upscale model that spandrel knows ({told[:300]}); use a whole file of one"
        ) from error
    channels = model.input_channels, model.output_channels
    if not isinstance(model, spandrel.ImageModelDescriptor) or channels != (3, 3):
        raise ModelFileError(
            f"{path}: is a {model.architecture.name} of {channels[0]} to {channels[1]} channels; use a model "
            "from RGB pictures to RGB pictures"
        )
    model.model.requires_grad_(False).eval()
    return Upscaler(key, model, model.scale)
