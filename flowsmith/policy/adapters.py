"""Several LoRA adapters on one base model: switching among them, and their files.

The reference is the frozen ``vocabulary`` adapter, the policy a second one initialised from the same file.
(Switching adapters *off* would give the hub model, which knows no flows.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowsmith.policy.errors import PolicyError


def lora(model: nn.Module, first_new_row: int, rank: int, alpha: float) -> Any:
    """Wrap a causal LM whose embedding was enlarged: LoRA on every linear layer, and the new rows trainable.

    Args:
        model: A transformers causal LM.
        first_new_row: Rows of the embedding from here on are new.
        rank: Of the LoRA matrices.
        alpha: LoRA's scale, ``alpha / rank``.

    Returns:
        A ``PeftModel`` with one adapter, ``vocabulary``, that trains.
    """
    from peft import LoraConfig, get_peft_model

    causal: Any = model
    rows = list(range(first_new_row, causal.get_input_embeddings().weight.shape[0]))
    tied = causal.get_output_embeddings().weight is causal.get_input_embeddings().weight
    layers = [causal.get_input_embeddings()] + ([] if tied else [causal.get_output_embeddings()])
    names = [
        name.rsplit(".", 1)[-1] for name, module in causal.named_modules() if any(module is x for x in layers)
    ]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,  # a sampler without dropout and a trainer with it would be two different policies
        target_modules="all-linear",
        trainable_token_indices=dict.fromkeys(names, rows),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(causal, config, adapter_name="vocabulary")


def attach(model: nn.Module, folder: Path, name: str, trainable: bool) -> Any:
    """Load an exported adapter under ``name``, onto a plain model or beside the adapters that are there."""
    from peft import PeftModel

    peft_model: Any = model
    if isinstance(model, PeftModel):
        peft_model.load_adapter(str(folder), adapter_name=name, is_trainable=trainable)
    else:
        peft_model = PeftModel.from_pretrained(model, str(folder), adapter_name=name, is_trainable=trainable)
    peft_model.set_adapter(name, inference_mode=not trainable)
    return peft_model


def freeze_token_rows(model: nn.Module) -> None:
    """Stop training the new token rows: in GRPO they stay as vocabulary training left them."""
    for name, parameter in model.named_parameters():
        if "trainable_tokens" in name:
            parameter.requires_grad_(False)


def save_adapter(model: nn.Module, folder: Path, name: str) -> None:
    """Write ``adapter_model.safetensors`` and ``adapter_config.json`` of one adapter into a folder."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    peft_model: Any = model
    # The base was enlarged, but its old rows are unchanged and the new ones belong to the adapter.
    state = get_peft_model_state_dict(peft_model, adapter_name=name, save_embedding_layers=False)
    tensors = {key: value.detach().contiguous().clone() for key, value in state.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    peft_model.peft_config[name].save_pretrained(str(folder))


def head_rows(causal: Any, name: str | None, rows: slice) -> tuple[Tensor, Tensor | None]:
    """Return weight (rows x hidden) and bias of a part of the language head.

    All logits would be computed only to throw most of them away.

    Args:
        causal: A transformers causal LM.
        name: The adapter whose token rows count; None for a full model.
        rows: Which part.

    Raises:
        PolicyError: The head is no plain linear layer, with or without new token rows.
    """
    head = causal.get_output_embeddings()
    tokens = getattr(head, "token_adapter", None)  # peft's trainable token rows
    base = head if tokens is None else tokens.get_base_layer()
    if type(base) is not nn.Linear:
        raise PolicyError(
            f"{type(causal).__name__}: its language head is a {type(base).__name__}, and only a plain linear "
            "layer is supported; use a Llama or Qwen, and keep LoRA off the head"
        )
    weight: Tensor = base.weight if tokens is None else tokens.get_merged_weights([name])
    return weight[rows], None if base.bias is None else base.bias[rows]


@torch.no_grad()
def interpolate(model: Any, start: str, end: str, weight: float, name: str) -> None:
    """Add a frozen adapter at ``weight`` on the line from one adapter to another; 0 is ``start``.

    What is interpolated are the updates B A, not A and B: both pairs of matrices stand side by side, as an
    update of the ranks' sum. New token rows are interpolated as they are.
    """
    if name in model.peft_config:
        remove(model, name)
    with _as_it_trains(model):
        model.add_weighted_adapter([start, end], [1 - weight, weight], name, combination_type="cat")
        for module in model.modules():
            rows = getattr(module, "trainable_tokens_delta", {})
            if name in rows:
                rows[name].data = torch.lerp(rows[start].data, rows[end].data, weight)
    for key, parameter in model.named_parameters():
        if name in key.split("."):
            parameter.requires_grad_(False)


def remove(model: Any, name: str) -> None:
    """Take away an adapter that is not active."""
    with _as_it_trains(model):
        model.delete_adapter(name)


@contextmanager
def _as_it_trains(model: Any) -> Iterator[None]:
    """Bear that peft freezes and unfreezes as it switches: the optimizer's choice must survive that."""
    active = model.active_adapter
    training = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        if model.active_adapter != active:
            model.set_adapter(active)
        for parameter, required in training:
            parameter.requires_grad_(required)


@contextmanager
def activated(model: nn.Module, name: str | None) -> Iterator[None]:
    """Compute with one adapter, then go back to the one that was active; what trains stays as it was."""
    peft_model: Any = model
    if name is None or peft_model.active_adapter == name:
        yield
        return
    with _as_it_trains(peft_model):
        peft_model.set_adapter(name)
        yield
