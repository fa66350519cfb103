"""A good sequence of two chosen tokens and a bad one of one, small enough for arithmetic by hand."""

import torch
from torch import Tensor

MASK = torch.tensor([[True, True, False], [True, False, False]])
ADVANTAGES = torch.tensor([1.0, -1.0], dtype=torch.double)


def logs(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.double).log()


# Probabilities were 0.5. Ratios 1.5 and 1 in a good sequence, 0.5 in a bad one; the rest is forced or padding.
OLD = logs([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]])
NEW = logs([[0.75, 0.5, 0.9], [0.25, 0.9, 0.9]])
GEOMETRIC = 1.5**0.5  # of 1.5 and 1: 1.224745


def new() -> Tensor:
    return NEW.clone().requires_grad_()


def slopes(x: Tensor) -> list[float]:
    assert x.grad is not None
    assert (x.grad[~MASK] == 0).all()
    return [float(value) for value in x.grad[MASK]]
