"""Models of transformers, from a folder or the hub: whole, or not at all; and its CLIP as an encoder."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowsmith.metrics.open_clip_loader import ClipEncoder, Precision, Tokenizer
from flowsmith.metrics.preprocessing import OPENAI_MEAN, OPENAI_STD, Preprocessing
from flowsmith.metrics.protocol import JudgeError
from flowsmith.metrics.weight_files import HUB

_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # PIL's numbers, as transformers writes them
_CLIP_WORDS = 49408


def load_model(setting: str, source: str | Path, kind: Any, dtype: torch.dtype = torch.float32) -> Any:
    """Load a model with all its weights; nothing in a file is executed.

    Args:
        setting: Name of the setting, for the error.
        source: A folder that ``save_pretrained`` wrote, or ``hf-hub:owner/name``.
        kind: The class in transformers.
        dtype: Type of the weights.

    Raises:
        JudgeError: The source is missing, corrupt, of another class, or lacks weights, which would be random.
    """
    try:
        model, report = kind.from_pretrained(
            name_of(setting, source), output_loading_info=True, dtype=dtype, trust_remote_code=False
        )
    except JudgeError:
        raise
    except Exception as error:  # of the network, the hub, or the files
        raise JudgeError(
            f"{setting}={str(source)!r} cannot be loaded as {kind.__name__} ({error}); "
            f"name a complete folder of it, or a hub model as '{HUB}owner/name'"
        ) from error
    missing = sorted([*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])])
    if missing:
        raise JudgeError(
            f"{setting}={str(source)!r} lacks {len(missing)} weights of a {kind.__name__}, {missing[0]} the first: "
            "they would be random; name a complete model of this class"
        )
    return model.eval()


def name_of(setting: str, source: str | Path) -> str:
    """Return what transformers calls a folder or ``hf-hub:owner/name``.

    Raises:
        JudgeError: It is neither.
    """
    text = str(source)
    if text.startswith(HUB):
        return text.removeprefix(HUB)
    if not Path(source).is_dir():
        raise JudgeError(f"{setting}={text!r} is no folder: name one, or a hub model as '{HUB}owner/name'")
    return text


def load_tokenizer(kind: Any, name: str) -> Any | None:
    """Return the tokenizer that lies in a folder or repository, None where there is none.

    What a user types never becomes a control token.

    Args:
        kind: The class in transformers.
        name: What transformers calls the folder or repository.
    """
    try:
        tokenizer = kind.from_pretrained(name, split_special_tokens=True)
    except Exception:  # transformers raises what it likes where a file is missing
        return None
    # Where a folder holds no words, transformers may make up a tokenizer of control tokens alone.
    return tokenizer if len(tokenizer) > len(set(tokenizer.all_special_tokens)) else None


def load_clip(source: str | Path, batch_size: int = 32, precision: Precision = "float32") -> ClipEncoder:
    """Load transformers' CLIPModel as an encoder; images are resized and cropped as its own processor does it.

    Raises:
        JudgeError: The source is missing, incomplete or corrupt, or its processor is none of CLIP's.
    """
    from transformers import CLIPModel

    clip = load_model("clip", source, CLIPModel)
    name = name_of("clip", source)
    return ClipEncoder(
        TransformersClip(clip),
        _tokenizer(name, clip.config.text_config),
        batch_size,
        precision,
        _preprocessing(name, clip.config.vision_config.image_size),
    )


class TransformersClip(nn.Module):
    """transformers' CLIPModel under the names by which open_clip's networks are called."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    @property
    def logit_scale(self) -> Tensor:
        """The logarithm of the inverse temperature."""
        return self.clip.logit_scale  # type: ignore[no-any-return]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Encode normalised images of n x 3 x size x size to n x dim."""
        return self.clip.visual_projection(self.clip.vision_model(pixel_values=pixels).pooler_output)  # type: ignore[no-any-return]

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Encode token ids, n x length, to n x dim; attention looks back alone, so padding behind needs no mask."""
        return self.clip.text_projection(self.clip.text_model(input_ids=tokens).pooler_output)  # type: ignore[no-any-return]


def _tokenizer(name: str, config: Any) -> Tokenizer:
    """Return the model's own tokenizer, or, where it has none, the one that all CLIPs of its vocabulary share."""
    import open_clip
    from transformers import AutoTokenizer

    length = config.max_position_embeddings
    tokenizer = load_tokenizer(AutoTokenizer, name)
    if tokenizer is None or len(tokenizer) != config.vocab_size:
        if config.vocab_size != _CLIP_WORDS:
            raise JudgeError(
                f"clip={name!r} holds no tokenizer of its {config.vocab_size} words, and CLIP's has {_CLIP_WORDS}: "
                "put the model's tokenizer beside it"
            )
        return open_clip.SimpleTokenizer(context_length=length)  # type: ignore[no-any-return]

    def tokenize(texts: list[str]) -> Tensor:
        given = tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
        return given["input_ids"]  # type: ignore[no-any-return]

    return tokenize


def _preprocessing(name: str, image_size: int) -> Preprocessing:
    from transformers import CLIPImageProcessor

    try:
        given = CLIPImageProcessor.from_pretrained(name).to_dict()
    except OSError:  # none there: CLIP's
        return Preprocessing((image_size, image_size), crop="transformers")
    crop, size = given["crop_size"], given["size"]
    height, width = crop["height"], crop["width"]
    if size.get("shortest_edge") != min(height, width) or height != width:
        raise JudgeError(
            f"clip={name!r} resizes to {size} and crops to {crop}: a CLIP judge crops a square of the shorter side; "
            "name a model with such a processor"
        )
    return Preprocessing(
        (height, width),
        tuple(given.get("image_mean") or OPENAI_MEAN),
        tuple(given.get("image_std") or OPENAI_STD),
        _RESAMPLING[int(given.get("resample", 3))],
        crop="transformers",
    )
