"""Adapters side by side: for the time of sampling, a model computes several LoRA adapters in one forward pass.

The batch dimension of everything that the model computes is the voice: voice v speaks with adapter v. peft's own
mixed batches register hooks at each call and split, scatter and copy the whole embedding at each layer; here an
adapted layer is two batched products, and new token rows are looked up, whatever the number of voices.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flowsmith.policy.decoding.swapped import Place, swapped
from flowsmith.policy.errors import PolicyError

_PLAIN = ("Linear", "Linear4bit", "Linear8bitLt")  # peft's layers that add B A x to what their base returns


class _Linear(nn.Module):
    """A linear layer with a LoRA update for each voice."""

    def __init__(self, base: nn.Module, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.base, self.down, self.up = base, down, up

    def forward(self, states: Tensor) -> Tensor:
        """Return V x N x out for V x N x in."""
        result: Tensor = self.base(states)
        inner = states.to(self.down.dtype) @ self.down
        return torch.baddbmm(result.to(inner.dtype), inner, self.up).to(result.dtype)


class _Embedding(nn.Module):
    """An embedding with some rows of its own for each voice."""

    def __init__(self, base: nn.Module, rows: Tensor, place: Tensor) -> None:
        super().__init__()
        self.base, self.rows, self.place = base, rows, place

    def forward(self, ids: Tensor) -> Tensor:
        """Return V x N x hidden for V x N."""
        old: Tensor = self.base(ids)
        places = self.place[ids]
        voices = torch.arange(len(ids), device=ids.device)[:, None]
        new = self.rows[voices, places.clamp(min=0)].to(old.dtype)
        return torch.where((places < 0)[..., None], old, new)


@contextmanager
def stacked(model: Any, names: Sequence[str]) -> Iterator[None]:
    """Let a causal LM within a ``PeftModel`` compute one voice for each adapter.

    Args:
        model: The ``PeftModel``.
        names: Its adapters, a voice each.

    Raises:
        PolicyError: An adapter is something else than plain LoRA with new token rows.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    causal = model.get_base_model()
    head = causal.get_output_embeddings()
    others: list[tuple[Place, nn.Module]] = []
    for parent in list(causal.modules()):
        if isinstance(parent, (LoraLayer, AuxiliaryTrainingWrapper)):
            continue
        for name, module in parent.named_children():
            if isinstance(module, LoraLayer):
                others.append(((parent, name), _linear(module, names)))
            elif isinstance(module, AuxiliaryTrainingWrapper) and module is not head:
                others.append(((parent, name), _embedding(module, names)))
    with swapped(others):
        yield


def _linear(layer: Any, names: Sequence[str]) -> nn.Module:
    for name in names:
        odd = layer.merged or name in layer.lora_variant or layer.lora_bias.get(name)
        if type(layer).__name__ not in _PLAIN or name not in layer.lora_A or odd:
            raise PolicyError(
                f"adapter {name} is no plain LoRA on a {type(layer).__name__}; train it with plain LoRA on "
                "linear layers, not merged, without DoRA and bias"
            )
    rank = max(layer.r[name] for name in names)
    down = [_padded(layer.lora_A[name].weight.T, rank, 1) for name in names]
    up = [_padded(layer.lora_B[name].weight.T * layer.scaling[name], rank, 0) for name in names]
    return _Linear(layer.base_layer, torch.stack(down), torch.stack(up))


def _padded(matrix: Tensor, rank: int, dimension: int) -> Tensor:
    """Fill up to a rank with zeros, which add nothing."""
    missing = list(matrix.shape)
    missing[dimension] = rank - missing[dimension]
    return torch.cat([matrix, matrix.new_zeros(missing)], dimension)


def _embedding(wrapper: Any, names: Sequence[str]) -> nn.Module:
    from peft.utils.other import TrainableTokensWrapper

    if type(wrapper) is not TrainableTokensWrapper or type(wrapper.original_module) is not nn.Embedding:
        raise PolicyError(
            f"a {type(wrapper).__name__} around {type(wrapper.original_module).__name__} cannot be sampled; "
            "train LoRA with trainable_token_indices instead of modules_to_save"
        )
    tokens = wrapper.token_adapter
    base = wrapper.original_module
    indices = {tuple(tokens.token_indices[name]) for name in names}
    if len(indices) > 1:
        raise PolicyError(
            f"adapters {', '.join(names)} train different token rows; they speak two vocabularies"
        )
    rows = torch.stack([tokens.trainable_tokens_delta[name] for name in names])
    place = torch.full((len(base.weight),), -1, device=rows.device)
    (index,) = indices
    place[list(index)] = torch.arange(rows.shape[1], device=rows.device)
    return _Embedding(base, rows, place)
