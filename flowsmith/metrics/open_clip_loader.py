"""Any CLIP that open_clip knows, from a folder, the hub or an authors' file, as a frozen two-tower encoder.

open_clip builds the network and its tokenizer; here is what surrounds them: images come as uint8 tensors of varying
sizes, each distinct text is encoded once, and judges with the same weights share one network.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from flowsmith.metrics.image_batch import ImageBatch
from flowsmith.metrics.preprocessing import Preprocessing
from flowsmith.metrics.protocol import JudgeError
from flowsmith.metrics.weight_files import HUB, locate, read_weights

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
Tokenizer = Callable[[list[str]], Tensor]
Precision = Literal["float32", "bfloat16"]
T = TypeVar("T")


class ClipEncoder(nn.Module):
    """Images and texts to unit vectors of one space.

    Args:
        model: Has ``encode_image`` and ``encode_text``, as an open_clip model.
        tokenizer: List of n texts to n x context token ids.
        batch_size: Most images or texts in one forward pass.
        precision: Of matrix products; weights, norms and what comes out are float32 either way.
        preprocessing: How images are resized and normalised; None is what ``model.visual.preprocess_cfg`` says.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        batch_size: int = 32,
        precision: Precision = "float32",
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        self.model: Any = model.eval()  # Any: open_clip has no type information
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.precision = precision
        self.preprocessing = preprocessing or Preprocessing.of_open_clip(self.model.visual.preprocess_cfg)

    @classmethod
    def load(
        cls,
        source: str | Path,
        architecture: str | None = None,
        batch_size: int = 32,
        precision: Precision = "float32",
    ) -> "ClipEncoder":
        """Load an encoder; nothing in a file is executed.

        Args:
            source: A folder of open_clip (``open_clip_config.json``, ``open_clip_model.safetensors``) or of
                transformers (``config.json``, ``model.safetensors``); or ``hf-hub:owner/name`` of open_clip's; or a
                file of weights (``.safetensors``, ``.pt``), as HPS v2 ships, here or ``hf-hub:owner/name/file``.
            architecture: Of a file of weights: open_clip's name of the network, such as ``ViT-H-14``. Widths and
                depths are the file's own, so one of this layout but smaller loads too. OpenAI's own weights need a
                name that ends in ``-quickgelu``.
            batch_size: Most images or texts in one forward pass.
            precision: Of matrix products.

        Raises:
            JudgeError: The source is missing, incomplete, corrupt, or of another architecture.
        """
        import open_clip

        path = Path(source)
        if path.is_dir() and not (path / CONFIG).is_file() and (path / "config.json").is_file():
            from flowsmith.metrics.transformers_loader import load_clip

            return load_clip(source, batch_size, precision)
        try:
            model, name = _network(str(source), architecture)
            tokenizer = open_clip.get_tokenizer(name)
        except JudgeError:
            raise
        except Exception as error:  # open_clip lets through whatever its readers raise
            raise JudgeError(
                f"clip={str(source)!r} cannot be loaded as {architecture or 'its config says'}: {error}; "
                "name a complete open_clip folder, hub id or file of this architecture"
            ) from error
        return cls(model, tokenizer, batch_size, precision)

    @classmethod
    def of(
        cls,
        source: "str | Path | ClipEncoder",
        architecture: str | None = None,
        precision: Precision = "float32",
    ) -> "ClipEncoder":
        """Return the encoder itself if it is one, else load it, or take one that a judge has and is the same."""
        if isinstance(source, ClipEncoder):
            return source
        return share(cls.load(source, architecture, precision=precision))

    @property
    def dim(self) -> int:
        """Return the length of an embedding."""
        return int(self.encode_texts([""]).shape[1])

    @property
    def device(self) -> torch.device:
        """Return where the weights lie."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    def preprocess(self, images: Iterable[Tensor]) -> Tensor:
        """Resize, crop and normalise uint8 images of 3 x height x width: float, n x 3 x size x size."""
        return self.preprocessing(images)

    @torch.no_grad()
    def encode_images(self, images: Sequence[Tensor]) -> Tensor:
        """Encode uint8 images of 3 x height x width, each of any size, to n x dim unit vectors.

        An `ImageBatch` is encoded once, whichever judges ask.
        """
        batch = ImageBatch.of(images)
        return batch.once(self, lambda: self._embed(batch)).to(self.device)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode n texts to n x dim unit vectors; equal texts are encoded once."""
        index = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        with self._matrix_products():
            features = _unit(
                self.model.encode_text(self.tokenizer(chunk).to(self.device))
                for chunk in _chunks(list(index), self.batch_size)
            )
        return features[torch.tensor([index[text] for text in texts], device=features.device)]

    def _embed(self, batch: ImageBatch) -> Tensor:
        pixels = self.preprocessing.of_batch(batch)
        with self._matrix_products():
            return _unit(self.model.encode_image(x.to(self.device)) for x in pixels.split(self.batch_size))

    def _matrix_products(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


_LIVE: WeakSet[ClipEncoder] = WeakSet()


def share(encoder: ClipEncoder) -> ClipEncoder:
    """Return a live encoder that computes the very same, so that each distinct network is held once; else this one."""
    for other in _LIVE:
        if _same(other, encoder):
            return other
    _LIVE.add(encoder)
    return encoder


def _same(one: ClipEncoder, other: ClipEncoder) -> bool:
    settings = [(e.precision, e.batch_size, e.preprocessing) for e in (one, other)]
    if settings[0] != settings[1] or "meta" in (one.device.type, other.device.type):
        return False
    mine, theirs = one.state_dict(), other.state_dict()
    if mine.keys() != theirs.keys() or not all(
        weight.shape == theirs[name].shape and torch.equal(weight.cpu(), theirs[name].cpu())
        for name, weight in mine.items()
    ):
        return False
    # What no tensor tells: activation, heads, words. Two devices round differently.
    image = torch.arange(3 * 64 * 64).mul(37).remainder(256).to(torch.uint8).view(3, 64, 64)
    probes = [(e.encode_images([image]), e.encode_texts(["a photo of two cats"])) for e in (one, other)]
    return all(torch.allclose(a.cpu(), b.cpu(), atol=1e-4) for a, b in zip(*probes, strict=True))


def _chunks(items: list[T], size: int) -> Iterator[list[T]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _unit(batches: Iterable[Tensor]) -> Tensor:
    features = normalize(torch.cat([batch.float() for batch in batches]), dim=-1)
    if not features.isfinite().all():
        raise JudgeError(
            "the CLIP model's embeddings are not finite: its weights are damaged, get them again"
        )
    return features


def _network(source: str, architecture: str | None) -> tuple[Any, str]:
    """Build a network with its weights; return it and the name by which open_clip knows its tokenizer."""
    import open_clip

    path, of_hub = Path(source), source.startswith(HUB)
    if path.is_dir():
        for file in (CONFIG, WEIGHTS):
            if not (path / file).is_file():
                raise JudgeError(f"clip={source!r} holds no {file}: name a folder with {CONFIG}, {WEIGHTS}")
        source = f"local-dir:{path}"
    if path.is_dir() or (of_hub and source.count("/") < 2):
        return open_clip.create_model(source, require_pretrained=True), source
    if not of_hub and not path.is_file():
        raise JudgeError(
            f"clip={source!r} is no folder or file: name one, or a hub model as '{HUB}owner/name'"
        )
    if architecture is None:
        raise JudgeError(
            f"clip={source!r} is a bare file of weights: say of what, by architecture (as ViT-H-14)"
        )
    return _of_file(locate("clip", source), architecture), architecture


def _of_file(file: Path, architecture: str) -> Any:
    """Build a network of an architecture's layout at the size of the file's tensors, and load them."""
    import open_clip

    config = open_clip.get_model_config(architecture)
    sizes = _sizes(config, read_weights(file)) if config else {}
    return open_clip.create_model(architecture, pretrained=str(file), require_pretrained=True, **sizes)


def _sizes(config: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Any]:
    """Return how a file differs in size from an architecture of two plain transformers; {} for another kind."""
    weights = {name.removeprefix("module."): weight for name, weight in weights.items()}
    needed = ("visual.conv1.weight", "visual.positional_embedding", "visual.proj", "ln_final.weight")
    if any(name not in weights for name in needed):
        return {}
    patches, positions, projection, text = (weights[name] for name in needed)
    vision, words = dict(config["vision_cfg"]), dict(config["text_cfg"])
    width = text.shape[0]
    head = words["width"] // words["heads"]
    vision |= {
        "width": patches.shape[0],
        "patch_size": patches.shape[2],
        "image_size": patches.shape[2] * round((positions.shape[0] - 1) ** 0.5),
        "layers": _depth(weights, "visual.transformer.resblocks."),
    }
    words |= {
        "width": width,
        "heads": max(1, width // head),
        "layers": _depth(weights, "transformer.resblocks."),
    }
    return {"embed_dim": projection.shape[1], "vision_cfg": vision, "text_cfg": words}


def _depth(weights: dict[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})
