"""The network of ImageReward under its authors' keys: BLIP reads the words while it looks, a head rates.

transformers has both halves of BLIP; the image half goes by other names there. Sizes are read off the tensors.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from flowsmith.metrics.aesthetic import AestheticHead
from flowsmith.metrics.preprocessing import Preprocessing
from flowsmith.metrics.protocol import JudgeError
from flowsmith.metrics.weight_files import read_weights

_IMAGE, _TEXT, _HEAD = "blip.visual_encoder.", "blip.text_encoder.", "mlp."
_RENAMED = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.(\d+)\.norm([12])\.", r"encoder.layers.\1.layer_norm\2."),
    (r"^blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.self_attn.projection."),
    (r"^blocks\.(\d+)\.attn\.", r"encoder.layers.\1.self_attn."),
    (r"^blocks\.", "encoder.layers."),
)
_HEAD_WIDTH = 64  # of every attention in BLIP


class BlipReward(nn.Module):
    """Images and token ids to raw rewards.

    Args:
        image: transformers' BlipVisionModel.
        text: transformers' BlipTextModel with cross-attention.
        head: From the first token's state to a reward; the authors use the layout of LAION's aesthetic head.
    """

    def __init__(self, image: Any, text: Any, head: AestheticHead) -> None:
        super().__init__()
        self.image, self.text, self.head = image, text, head

    @classmethod
    def load(cls, file: Path) -> Self:
        """Build the network from ``ImageReward.pt``, or from the same keys as ``.safetensors``.

        Raises:
            JudgeError: The file is damaged, or keys are missing or do not fit each other.
        """
        from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

        weights = read_weights(file)
        image = {_renamed(name): weight for name, weight in _under(_IMAGE, weights).items()}
        text, head = _under(_TEXT, weights), _under(_HEAD, weights)
        text.pop("embeddings.position_ids", None)  # the numbers 0, 1, 2, ...
        try:
            network = cls(
                BlipVisionModel(BlipVisionConfig(**_image_sizes(image))),
                BlipTextModel(BlipTextConfig(**_text_sizes(text)), add_pooling_layer=False),
                AestheticHead(head["layers.0.weight"].shape[1]),
            )
            for part, tensors in ((network.image, image), (network.text, text), (network.head, head)):
                part.load_state_dict(tensors)
        except (KeyError, IndexError, RuntimeError, ValueError) as error:
            told = " ".join(str(error).split())[:400]
            raise JudgeError(
                f"weights={str(file)!r} are not ImageReward's ({type(error).__name__}: {told}); name its "
                f"ImageReward.pt, with keys under {_IMAGE[:-1]}, {_TEXT[:-1]} and {_HEAD[:-1]}"
            ) from error
        return network.float().eval()

    @property
    def preprocessing(self) -> Preprocessing:
        """Return what an image goes through: CLIP's, at BLIP's size."""
        size = int(self.image.config.image_size)
        return Preprocessing((size, size))

    @property
    def vocabulary(self) -> int:
        """Return how many token ids there are."""
        return int(self.text.config.vocab_size)

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return n raw rewards of n x 3 x size x size pixels and n x length tokens with their mask."""
        seen = self.image(pixel_values=pixels).last_hidden_state
        read = self.text(input_ids=tokens, attention_mask=mask, encoder_hidden_states=seen, is_decoder=False)
        with torch.autocast(pixels.device.type, enabled=False):
            return self.head(read.last_hidden_state[:, 0].float())  # type: ignore[no-any-return]


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        if re.match(pattern, name):
            return re.sub(pattern, replacement, name)
    return name


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}


def _image_sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    patches = weights["embeddings.patch_embedding.weight"]
    width, patch = patches.shape[0], patches.shape[2]
    return {
        "hidden_size": width,
        "intermediate_size": weights["encoder.layers.0.mlp.fc1.weight"].shape[0],
        "num_hidden_layers": _depth(weights, "encoder.layers."),
        "num_attention_heads": width // _HEAD_WIDTH,
        "patch_size": patch,
        "image_size": patch * math.isqrt(weights["embeddings.position_embedding"].shape[1] - 1),
        "layer_norm_eps": 1e-6,  # as the authors have it; transformers' default is ten times that
    }


def _text_sizes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    words, width = weights["embeddings.word_embeddings.weight"].shape
    return {
        "vocab_size": words,
        "hidden_size": width,
        "encoder_hidden_size": weights["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        "intermediate_size": weights["encoder.layer.0.intermediate.dense.weight"].shape[0],
        "num_hidden_layers": _depth(weights, "encoder.layer."),
        "num_attention_heads": width // _HEAD_WIDTH,
        "max_position_embeddings": weights["embeddings.position_embeddings.weight"].shape[0],
        "bos_token_id": None,  # of writing, which nothing does here
        "sep_token_id": None,
    }


def _depth(weights: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in weights if name.startswith(prefix)})
