"""Random numbers are functions of their names."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.policy.noise import derived_seed, permutation, uniforms

names = st.tuples(st.integers() | st.text(max_size=5), st.integers() | st.text(max_size=5))


@given(names, names)
def test_streams_are_equal_exactly_where_names_are(
    a: tuple[int | str, ...], b: tuple[int | str, ...]
) -> None:
    assert (uniforms(3, *a).tolist() == uniforms(3, *b).tolist()) == (a == b)
    assert (derived_seed(*a) == derived_seed(*b)) == (a == b)


def test_names_do_not_run_together() -> None:
    assert derived_seed("ab", "c") != derived_seed("a", "bc")
    assert derived_seed(1) != derived_seed("1")


def test_a_stream_stays_what_it_was() -> None:
    """Pinned as first computed: a change would silently change every seeded run."""
    assert derived_seed(0, "cycle", 3) == 7730750520333690002
    np.testing.assert_allclose(uniforms(2, 0, "a prompt", 1), [0.45415938087652674, 0.2663761997366947])


def test_a_longer_stream_begins_like_a_shorter_one() -> None:
    assert uniforms(100, 1, "x")[:10].tolist() == uniforms(10, 1, "x").tolist()


def test_numbers_of_neighbouring_names_are_uniform_and_unrelated() -> None:
    first = np.array([uniforms(2, 0, "p", sample) for sample in range(4000)])
    assert 0 <= first.min() <= first.max() < 1
    # The mean of 4,000 uniform numbers has a standard deviation of 0.0046, a correlation one of 0.016.
    assert abs(first[:, 0].mean() - 0.5) < 0.02
    assert abs(np.corrcoef(first[:-1, 0], first[1:, 0])[0, 1]) < 0.07


def test_permutation_holds_everything_once() -> None:
    order = permutation(50, 0, "prompts", 1)
    assert sorted(order) == list(range(50))
    assert order != permutation(50, 0, "prompts", 2)
