"""What a judge is: a number for every (image, prompt), and their mean over all processes.

A new one takes one file: subclass `Judge`, hand its networks to ``super().__init__``, write ``judge``.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from flowsmith.errors import FlowsmithError
from flowsmith.prompts import Prompt


class JudgeError(FlowsmithError):
    """A judge cannot be loaded, or was asked something it cannot judge."""


def text_of(prompt: str | Prompt) -> str:
    """Return what the user typed."""
    return prompt.text if isinstance(prompt, Prompt) else prompt


def check_samples(images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> None:
    """Check that there is one prompt an image and that every image is uint8, 3 x height x width.

    Raises:
        JudgeError: Otherwise.
    """
    if len(images) != len(prompts):
        raise JudgeError(f"{len(images)} images with {len(prompts)} prompts: give one prompt for each image")
    for i, image in enumerate(images):
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise JudgeError(
                f"image {i} is {image.dtype} of shape {tuple(image.shape)}: "
                "a judge reads uint8 images of 3 x height x width, values 0 to 255; convert it first"
            )


class Judge(Metric):
    """A metric over a per-sample function; holds a sum and a count, so its mean is exact under any sharding.

    NaN in what ``judge`` returns is an abstention: it enters neither sum nor count.

    Args:
        name: Column and log name.
        networks: What it computes with, by attribute name. They are frozen and follow the judge to its
            device, but are no submodules: a judge inside a LightningModule adds nothing to checkpoints.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: Tensor
    count: Tensor
    abstained: Tensor

    def __init__(self, name: str, **networks: nn.Module) -> None:
        super().__init__()
        self.name = name
        self._held = tuple(networks)
        for attribute, network in networks.items():
            self.__dict__[attribute] = network.eval().requires_grad_(False)  # past nn.Module's registry
        self._add_sums(())

    @cached_property
    def weight_hash(self) -> str:
        """First 16 hex digits of the SHA-256 of all tensors (names, types, shapes, bytes), wherever they were read.

        "" for a judge that has none. Values of a judge with other weights cannot be compared.
        """
        digest = hashlib.sha256()
        tensors = {
            f"{held}.{name}": tensor
            for held in self._held
            for name, tensor in self.__dict__[held].state_dict().items()
        }
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
            digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16] if tensors else ""

    @abstractmethod
    def judge(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> Tensor:
        """Judge each image for its prompt; no state is read or written.

        Args:
            images: uint8, 3 x height x width each; sizes may differ.
            prompts: One for each image.

        Returns:
            Float tensor of one value a sample, on the judge's device; NaN where it abstains.
        """

    def update(self, images: Sequence[Tensor], prompts: Sequence[str | Prompt]) -> None:
        """Judge a batch and add it to the mean."""
        values = self.judge(images, prompts).to(self.total)
        answered = ~values.isnan()
        self.total += values[answered].sum()
        self.count += answered.sum()
        self.abstained += (~answered).sum()

    def compute(self) -> Tensor | dict[str, Tensor]:
        """Return the mean of what was judged since the last reset (NaN if nothing), or several by name."""
        return (self.total / self.count).float()

    def _add_sums(self, shape: tuple[int, ...]) -> None:
        self.add_state("total", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("abstained", torch.tensor(0), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> Self:
        """Follow ``.to(device)``, and only that: half precision is no business of a score."""
        super()._apply(fn, *args, **kwargs)
        for attribute in self._held:
            self.__dict__[attribute].to(self.device)
        return self
