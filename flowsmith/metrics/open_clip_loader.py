"""Any CLIP that open_clip knows, from a folder, the hub or an authors' file, as a frozen two-tower encoder.

open_clip builds the network, its tokenizer and its preprocessing; here is what surrounds them: images come as
uint8 tensors of varying sizes and are batched by size, and each distinct text is encoded once.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from flowsmith.metrics.protocol import JudgeError

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
Tokenizer = Callable[[list[str]], Tensor]
T = TypeVar("T")


class ClipEncoder(nn.Module):
    """Images and texts to unit vectors of one space.

    Args:
        model: An open_clip model; its ``visual.preprocess_cfg`` says how images are resized and normalised.
        tokenizer: List of n texts to n x context token ids.
        batch_size: Most images or texts in one forward pass.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, batch_size: int = 32) -> None:
        super().__init__()
        from open_clip.transform import PreprocessCfg, image_transform_v2

        self.model: Any = model.eval()  # Any: open_clip has no type information
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        # open_clip's own steps; all but the last (resize, crop) take uint8 tensors as well as PIL images.
        transform = image_transform_v2(PreprocessCfg(**self.model.visual.preprocess_cfg), is_train=False)
        *self._resize, self._normalize = transform.transforms

    @classmethod
    def load(cls, source: str | Path, architecture: str | None = None, batch_size: int = 32) -> "ClipEncoder":
        """Load an encoder; nothing in a file is executed.

        Args:
            source: A folder with ``open_clip_config.json`` and ``open_clip_model.safetensors``; or
                ``hf-hub:owner/name``; or a file of weights (``.safetensors``, ``.pt``), as HPS v2 ships.
            architecture: Of a file of weights: open_clip's name of the network, such as ``ViT-H-14``.
            batch_size: Most images or texts in one forward pass.

        Raises:
            JudgeError: The source is missing, incomplete, corrupt, or of another architecture.
        """
        import open_clip

        name, weights = _locate(str(source), architecture)
        try:
            model = open_clip.create_model(name, pretrained=weights, require_pretrained=True)
            tokenizer = open_clip.get_tokenizer(name)
        except Exception as error:  # open_clip lets through whatever its readers raise
            raise JudgeError(
                f"clip={str(source)!r} cannot be loaded as {architecture or 'its config says'}: {error}; "
                "name a complete open_clip folder, hub id or file of this architecture"
            ) from error
        return cls(model, tokenizer, batch_size)

    @classmethod
    def of(cls, source: "str | Path | ClipEncoder", architecture: str | None = None) -> "ClipEncoder":
        """Return the encoder itself if it is one (judges may share it), else load it."""
        return source if isinstance(source, ClipEncoder) else cls.load(source, architecture)

    @property
    def dim(self) -> int:
        """Return the length of an embedding."""
        return int(self.encode_texts([""]).shape[1])

    @property
    def device(self) -> torch.device:
        """Return where the weights lie."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    def preprocess(self, images: Tensor) -> Tensor:
        """Resize, crop and normalise as open_clip does: uint8 n x 3 x h x w to float n x 3 x size x size."""
        for step in self._resize:
            images = step(images)
        return self._normalize(images.float() / 255)  # type: ignore[no-any-return]

    @torch.no_grad()
    def encode_images(self, images: Sequence[Tensor]) -> Tensor:
        """Encode uint8 images of 3 x height x width, each of any size, to n x dim unit vectors."""
        by_size: dict[torch.Size, list[int]] = defaultdict(list)
        for i, image in enumerate(images):
            by_size[image.shape].append(i)
        order = [i for same in by_size.values() for i in same]
        batches = (
            self.preprocess(torch.stack([images[i] for i in chunk]).to(self.device))
            for same in by_size.values()
            for chunk in _chunks(same, self.batch_size)
        )
        features = self._collect(self.model.encode_image(batch) for batch in batches)
        return features[torch.tensor(order).argsort().to(features.device)]

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode n texts to n x dim unit vectors; equal texts are encoded once."""
        index = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        features = self._collect(
            self.model.encode_text(self.tokenizer(chunk).to(self.device))
            for chunk in _chunks(list(index), self.batch_size)
        )
        return features[torch.tensor([index[text] for text in texts], device=features.device)]

    def _collect(self, batches: Iterable[Tensor]) -> Tensor:
        features = normalize(torch.cat([batch.float() for batch in batches]), dim=-1)
        if not features.isfinite().all():
            raise JudgeError(
                "the CLIP model's embeddings are not finite: its weights are damaged, get them again"
            )
        return features


def _chunks(items: list[T], size: int) -> Iterator[list[T]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _locate(source: str, architecture: str | None) -> tuple[str, str | None]:
    """Return what open_clip calls the source: (model name with scheme, file of weights or None)."""
    if source.startswith("hf-hub:"):
        return source, None
    path = Path(source)
    if path.is_dir():
        for file in (CONFIG, WEIGHTS):
            if not (path / file).is_file():
                raise JudgeError(f"clip={source!r} holds no {file}: name a folder with {CONFIG}, {WEIGHTS}")
        return f"local-dir:{path}", None
    if not path.is_file():
        raise JudgeError(
            f"clip={source!r} is no folder or file: name one, or a hub model as 'hf-hub:owner/name'"
        )
    if architecture is None:
        raise JudgeError(
            f"clip={source!r} is a bare file of weights: say of what, by architecture (as ViT-H-14)"
        )
    return architecture, source
