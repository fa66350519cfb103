"""Full models side by side: for the time of sampling, one network computes several models of one architecture.

The batch dimension of everything that is computed is the voice, as with adapters (`stacked`): voice v has the weights
of model v. Small models spend their time on starting operations, of which there are then as many as for one.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from flowsmith.policy.decoding.swapped import Place, swapped

_MOST_WEIGHTS = 2**27  # of all models together; larger ones gain little, and the copies would cost memory
_ORIGIN = ("architectures", "transformers_version", "dtype", "torch_dtype")  # of a configuration


class _Linear(nn.Module):
    """A linear layer of each voice."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = torch.stack([layer.weight.mT for layer in layers])
        biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = torch.stack(biases)[:, None] if biases else None

    def forward(self, states: Tensor) -> Tensor:
        """Return V x N x out for V x N x in."""
        if self.bias is None:
            return states @ self.weight
        return torch.baddbmm(self.bias, states, self.weight)


class _Embedding(nn.Module):
    """An embedding of each voice."""

    def __init__(self, tables: Sequence[nn.Embedding]) -> None:
        super().__init__()
        self.weight = torch.stack([table.weight.detach() for table in tables])

    def forward(self, ids: Tensor) -> Tensor:
        """Return V x N x hidden for V x N."""
        return self.weight[torch.arange(len(ids), device=ids.device)[:, None], ids]


class _Norm(nn.Module):
    """A root-mean-square norm of each voice: what its class does, which multiplies by the weight."""

    def __init__(self, norms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.weight = torch.stack([norm.get_parameter("weight") for norm in norms])
        self._norm: Any = copy.copy(norms[0])
        self._norm._parameters = {}

    def forward(self, states: Tensor) -> Tensor:
        """Return V x ... x size for the same."""
        between = [1] * (states.dim() - 2)
        self._norm.weight = self.weight.view(len(self.weight), *between, -1)
        normed: Tensor = self._norm(states)
        return normed


def stackable(models: Sequence[Any]) -> bool:
    """Return whether full causal LMs can be computed side by side: small, of one shape, and of layers known here."""
    bases = [model.base_model for model in models]
    shapes = [
        [(name, weight.shape, weight.dtype, weight.device) for name, weight in base.named_parameters()]
        for base in bases
    ]
    return (
        len({id(model) for model in models}) == len(models)
        and all(type(base) is type(bases[0]) for base in bases)
        and all(_computed(model.config) == _computed(models[0].config) for model in models)
        and all(shape == shapes[0] for shape in shapes)
        and sum(shape.numel() for _, shape, _, _ in shapes[0]) * len(models) <= _MOST_WEIGHTS
        and all(_kind(module) or not module._parameters for module in bases[0].modules())
    )


@contextmanager
def stacked_models(models: Sequence[Any]) -> Iterator[None]:
    """Let the first of some causal LMs that `stackable` compute a voice for each of them.

    Args:
        models: transformers causal LMs; the head is not among what is computed.
    """
    bases = [model.base_model for model in models]
    others: list[tuple[Place, nn.Module]] = []
    for path, parent in bases[0].named_modules():
        for name, module in parent.named_children():
            kind = _kind(module)
            if kind is not None:
                place = f"{path}.{name}" if path else name
                others.append(((parent, name), kind([base.get_submodule(place) for base in bases])))
    with swapped(others):
        yield


def _computed(config: Any) -> dict[str, Any]:
    """Return what a model computes: its configuration without where it was read from and by what."""
    told: dict[str, Any] = config.to_dict()
    return {name: value for name, value in told.items() if name[0] != "_" and name not in _ORIGIN}


def _kind(module: nn.Module) -> Any:
    """Return what stands for several modules of this kind; None if that is not known here."""
    if type(module) is nn.Linear:
        return _Linear
    if type(module) is nn.Embedding and module.max_norm is None:
        return _Embedding
    own = type(module).__module__.startswith("transformers.") and type(module).__name__.endswith("RMSNorm")
    return _Norm if own and list(module._parameters) == ["weight"] else None
