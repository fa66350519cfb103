"""Who takes which group: every one once, equally much work, nobody idle."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from flowsmith.policy.balance import balanced, planned


def test_by_hand() -> None:
    # 9 | 8 | then 7 to the 8, 4 to the 9, 3 to the 13: 16 and 15.
    assert balanced([9, 8, 7, 4, 3], 2) == [[0, 3, 4], [1, 2]]
    assert planned([5, 1, 1, 5, 9], 4, 2, 1) == [[[0, 1, 4]], [[2, 3]]]


@given(st.lists(st.integers(1, 100), min_size=1, max_size=8), st.integers(1, 4))
def test_at_most_four_thirds_of_the_best(costs: list[int], parts: int) -> None:
    found = balanced(costs, parts)
    assert sorted(place for part in found for place in part) == list(range(len(costs)))
    best = min(
        max(sum(c for c, p in zip(costs, choice, strict=True) if p == part) for part in range(parts))
        for choice in itertools.product(range(parts), repeat=len(costs))
    )
    assert max(sum(costs[place] for place in part) for part in found) <= 4 / 3 * best
    if len(costs) >= parts:
        assert all(found)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 7), st.randoms())
def test_an_update_holds_the_same_groups_whatever_the_number_of_processes(
    minibatches: int, processes: int, each: int, past: int, random: object
) -> None:
    new = minibatches * processes * each
    costs = [random.randint(1, 50) for _ in range(new + past)]  # type: ignore[attr-defined]
    one = planned(costs, new, minibatches, 1)
    many = planned(costs, new, minibatches, processes)
    assert [sorted(i for part in update for i in part) for update in many] == [
        sorted(update[0]) for update in one
    ]
    assert sorted(i for update in one for i in update[0]) == list(range(new + past))
    for place, update in enumerate(one):
        assert [i for i in update[0] if i < new] == list(
            range(place * new // minibatches, (place + 1) * new // minibatches)
        )
    assert all(part for update in many for part in update)
