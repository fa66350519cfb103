"""From a picture to a network's input, bit for bit as the authors' code does it: PIL resizes, then a crop.

A resize on tensors differs from PIL's by one in 255 here and there, which moves a cosine by 1e-3 and more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from flowsmith.metrics.image_batch import ImageBatch

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocessing:
    """How an image is resized, cropped and normalised.

    Attributes:
        size: Height and width of the network's input.
        mean: Per channel, of values 0 to 1.
        std: Per channel.
        interpolation: ``bicubic``, ``bilinear`` or ``nearest``.
        resize: ``shortest``: the shorter side gets the size, the rest is cropped; ``squash``: both sides do;
            ``longest``: the longer one does, the rest is filled.
        fill: Value 0 to 255 of what is filled.
        crop: Where the middle of an odd remainder lies: ``torchvision`` rounds (half to even), ``transformers``
            rounds down, which is one pixel off where the remainder is 3, 7, 11, ...
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD
    interpolation: str = "bicubic"
    resize: str = "shortest"
    fill: int = 0
    crop: Literal["torchvision", "transformers"] = "torchvision"

    @classmethod
    def of_open_clip(cls, config: Mapping[str, Any]) -> "Preprocessing":
        """Read the ``preprocess_cfg`` of an open_clip model."""
        size = config.get("size", 224)
        return cls(
            size=(size, size) if isinstance(size, int) else tuple(size),
            mean=tuple(config.get("mean") or OPENAI_MEAN),
            std=tuple(config.get("std") or OPENAI_STD),
            interpolation=config.get("interpolation", "bicubic"),
            resize=config.get("resize_mode", "shortest"),
            fill=config.get("fill_color", 0),
        )

    def __call__(self, images: Iterable[Tensor]) -> Tensor:
        """Turn n uint8 images of 3 x height x width, each of any size, into n x 3 x size; float, on the CPU."""
        return torch.stack([self._transform(to_pil(image)) for image in images])

    def of_batch(self, batch: ImageBatch) -> Tensor:
        """Do the same for a batch, once however many networks ask for it."""
        return batch.once(self, lambda: self(batch))

    @cached_property
    def _transform(self) -> Any:
        from open_clip.transform import PreprocessCfg, image_transform_v2
        from torchvision.transforms import CenterCrop

        config = PreprocessCfg(
            size=self.size,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            resize_mode=self.resize,
            fill_color=self.fill,
        )
        transform = image_transform_v2(config, is_train=False)
        if self.crop == "transformers":
            transform.transforms = [
                self._crop_down if isinstance(step, CenterCrop) else step for step in transform.transforms
            ]
        return transform

    def _crop_down(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))


def to_pil(image: Tensor) -> Image.Image:
    """Turn a uint8 image of 3 x height x width into PIL's."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())
