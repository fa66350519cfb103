"""Random numbers that belong to a sample, not to the order in which a process happens to draw them.

Every stream is a function of names (seed, cycle, prompt, sample). So a batch split over one process or
sixty-four, or resumed after a crash, draws the same numbers for the same sample.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

Name = int | str


def _key(names: tuple[Name, ...]) -> int:
    # Length-prefixed, so that ("ab", "c") and ("a", "bc") differ; the type keeps 1 and "1" apart.
    text = "".join(f"{type(n).__name__}{len(str(n))}:{n}" for n in names)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def derived_seed(*names: Name) -> int:
    """Return a seed in 0..2^63 - 1 that depends on every name and on nothing else."""
    return _key(names) & (2**63 - 1)


def uniforms(count: int, *names: Name) -> NDArray[np.float64]:
    """Return ``count`` numbers in [0, 1) of the stream called ``names``."""
    return np.random.Generator(np.random.Philox(key=_key(names))).random(count)


def permutation(size: int, *names: Name) -> list[int]:
    """Return 0..size - 1 in the order called ``names``."""
    order: list[int] = np.random.Generator(np.random.Philox(key=_key(names))).permutation(size).tolist()
    return order
