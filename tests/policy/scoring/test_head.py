"""The head in pieces: the same numbers and gradients as all at once, and never all at once."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from flowsmith.policy.scoring import head as head_module
from flowsmith.policy.scoring.head import AllowedTokens, Chosen, chosen_tokens

N, WIDTH, ROWS = 30, 8, 17


def given() -> tuple[nn.Linear, Tensor, Tensor, AllowedTokens]:
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(WIDTH, ROWS).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(generator=generator)
    hidden = torch.randn(N, WIDTH, dtype=torch.double, generator=generator).requires_grad_()
    masks = torch.rand(4, ROWS, generator=generator) < 0.5
    mask_of = torch.randint(4, (N,), generator=generator)
    masks[:, 5] = True  # whatever was chosen was allowed
    tokens = torch.multinomial(masks[mask_of].double(), 1, generator=generator)[:, 0]
    return head, hidden, tokens, AllowedTokens(masks, mask_of)


def by_hand(
    head: nn.Linear, hidden: Tensor, tokens: Tensor, sets: AllowedTokens | None, temperature: float
) -> Chosen:
    """One choice at a time, over the allowed rows alone."""
    logprobs, entropies, likeliest = [], [], []
    for i, token in enumerate(tokens.tolist()):
        logits = head(hidden[i]) / temperature
        allowed = torch.ones(len(logits), dtype=torch.bool) if sets is None else sets.masks[sets.mask_of[i]]
        probabilities = logits[allowed].exp() / logits[allowed].exp().sum()
        place = int(allowed[:token].sum())
        logprobs.append(probabilities[place].log())
        entropies.append(-(probabilities * probabilities.log()).sum())
        likeliest.append(probabilities.argmax() == place)
    return Chosen(torch.stack(logprobs), torch.stack(entropies), torch.stack(likeliest))


@pytest.mark.parametrize("at_once", [1, ROWS * 7, ROWS * N])
@pytest.mark.parametrize("in_cache", [ROWS * 5, ROWS * N])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_values_and_gradients_by_hand(
    at_once: int, in_cache: int, masked: bool, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_module, "_LOGITS_IN_CACHE", in_cache)
    head, hidden, tokens, sets = given()
    allowed = sets if masked else None
    weights = torch.linspace(-1, 2, N, dtype=torch.double)

    def gradients(found: Chosen) -> tuple[Tensor, ...]:
        total = (found.logprobs * weights).sum() + (found.entropy * weights.flip(0)).sum()
        return torch.autograd.grad(total, [hidden, *head.parameters()])

    expected = by_hand(head, hidden, tokens, allowed, temperature)
    found = chosen_tokens(hidden, (head.weight, head.bias), tokens, allowed, temperature, at_once)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-13, rtol=0)
    for mine, theirs in zip(gradients(found), gradients(expected), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("part", [0, 1])
def test_the_gradient_of_each_result_alone(part: int) -> None:
    head, hidden, tokens, allowed = given()

    def one(states: Tensor) -> Tensor:
        result: Tensor = chosen_tokens(states, (head.weight, head.bias), tokens, allowed, 1.3)[part]
        return result

    assert torch.autograd.gradcheck(one, [hidden])


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_all_logits_are_never_there_at_once() -> None:
    head = nn.Linear(4, 1000)
    hidden = torch.randn(60, 4, requires_grad=True)
    tokens = torch.arange(60)
    with Largest() as largest:
        found = chosen_tokens(hidden, (head.weight, head.bias), tokens, at_once=7000)
        (found.logprobs.sum() + found.entropy.sum()).backward()
    assert largest.elements == 7000  # of 60,000


def test_half_precision_logits_give_single_precision_results() -> None:
    head = nn.Linear(8, 50).to(torch.bfloat16)
    hidden = torch.randn(9, 8, dtype=torch.bfloat16, requires_grad=True)
    tokens = torch.arange(9)
    found = chosen_tokens(hidden, (head.weight, head.bias), tokens)
    assert found.logprobs.dtype == found.entropy.dtype == torch.float32
    expected = head(hidden).float().log_softmax(-1)[torch.arange(9), tokens]
    torch.testing.assert_close(found.logprobs, expected, atol=1e-6, rtol=0)
    found.logprobs.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.isfinite().all()


def test_nothing_to_choose_gives_nothing_and_no_gradient() -> None:
    head, hidden, _, _ = given()
    empty = torch.zeros(0, dtype=torch.long)
    nothing = AllowedTokens(torch.zeros(0, ROWS, dtype=torch.bool), empty)
    found = chosen_tokens(hidden[:0], (head.weight, head.bias), empty, nothing)
    found.logprobs.sum().backward()
    assert len(found.logprobs) == 0
    assert hidden.grad is not None
    assert not hidden.grad.any()
