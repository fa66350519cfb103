"""Vectors for flow tokens in which numbers are ordered: 17 steps lies between 16 and 18 before any training.

With unrelated vectors a surrogate would have to see every value of every input often enough; along one direction
per input it can carry what it saw at 12 and 20 steps over to 16.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def token_value(token: str) -> tuple[str, float | None]:
    """Return the input that a token sets and its number: ``"KSampler.steps=20"`` -> ``("KSampler.steps", 20.0)``.

    The number is None for choices and texts; a token that sets no input stands for itself.
    """
    name, equals, value = token.partition("=")
    try:
        number = float(value) if equals else math.nan
    except ValueError:
        number = math.nan
    return name, number if math.isfinite(number) else None


def value_positions(vocabulary: Sequence[str]) -> list[float | None]:
    """Return where each token's number stands among those of its input, from -1 to 1 by rank; None for others.

    By rank, since grids are spaced as their values matter: sizes double, steps do not.
    """
    numbers: dict[str, set[float]] = {}
    parsed = [token_value(token) for token in vocabulary]
    for name, number in parsed:
        if number is not None:
            numbers.setdefault(name, set()).add(number)
    orders = {name: sorted(values) for name, values in numbers.items()}
    return [
        None if number is None else 2 * orders[name].index(number) / max(1, len(orders[name]) - 1) - 1
        for name, number in parsed
    ]


def ordered_table(vocabulary: Sequence[str], width: int, generator: torch.Generator) -> Tensor:
    """Return random vectors for flow tokens.

    A token is the vector of its input plus, for a number, its position along the input's direction, and else a
    vector of its own; so tokens of one input are alike, and neighbouring numbers most of all.

    Args:
        vocabulary: The codec's tokens.
        width: Length of a vector.
        generator: Source of the random numbers.

    Returns:
        Table [tokens, width], elements of variance about 1.
    """
    positions = value_positions(vocabulary)
    names = {name: i for i, name in enumerate(dict.fromkeys(token_value(token)[0] for token in vocabulary))}
    inputs = torch.tensor([names[token_value(token)[0]] for token in vocabulary])
    base, direction = torch.randn(2, len(names), width, generator=generator)
    own = torch.randn(len(vocabulary), width, generator=generator)
    # sqrt(3) gives positions spread evenly over [-1, 1] variance 1; a little of its own lets each value differ.
    along = torch.tensor([math.nan if p is None else math.sqrt(3) * p for p in positions])[:, None]
    deviation = torch.where(along.isnan(), own, along.nan_to_num() * direction[inputs] + 0.1 * own)
    table: torch.Tensor = (base[inputs] + deviation) / math.sqrt(2)
    return table
