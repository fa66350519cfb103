"""The replay buffer: what it keeps, for how long, and that a resumed one goes on exactly."""

import io

import pytest
import torch

from flowsmith.policy import PolicyError
from flowsmith.policy.replay import ReplayBuffer
from tests.policy.group_world import made_up


def filled(share: float = 0.5, age: int = 2, cycles: int = 4) -> ReplayBuffer:
    """Four groups a cycle, the last of which is all alike."""
    buffer = ReplayBuffer(share, age, seed=3)
    for cycle in range(cycles):
        groups = [made_up(f"{cycle}.{place}", (0.0, float(place != 3)), cycle) for place in range(4)]
        buffer.add(groups, cycle)
    return buffer


def test_only_varied_groups_of_the_last_cycles_come_again() -> None:
    drawn = filled(share=10.0).draw(4, 8)
    assert sorted(group.prompt_id for group in drawn) == ["2.0", "2.1", "2.2", "3.0", "3.1", "3.2"]
    assert len(filled()) == 6


def test_the_share_is_of_new_groups_and_nothing_comes_twice() -> None:
    buffer = filled(share=0.25)
    for new, expected in ((4, 1), (8, 2), (16, 4), (100, 6)):
        drawn = buffer.draw(4, new)
        assert len({group.prompt_id for group in drawn}) == len(drawn) == expected


def test_draws_differ_from_cycle_to_cycle_and_are_functions_of_seed_and_cycle() -> None:
    def drawn(cycle: int) -> list[str]:
        return [group.prompt_id for group in filled(age=9).draw(cycle, 8)]

    assert drawn(4) == drawn(4)
    assert len({tuple(drawn(cycle)) for cycle in range(4, 10)}) > 3


def test_a_group_of_this_cycle_is_not_from_the_past() -> None:
    assert {group.cycle for group in filled(share=10.0, age=9).draw(3, 8)} == {0, 1, 2}


def test_state_is_safe_to_load_and_exact() -> None:
    stream = io.BytesIO()
    torch.save(filled().state_dict(), stream)
    stream.seek(0)
    resumed = ReplayBuffer(0.5, 2, seed=3)
    resumed.load_state_dict(torch.load(stream, weights_only=True))
    assert resumed.draw(4, 8) == filled().draw(4, 8) != []


def test_without_a_share_nothing_is_kept() -> None:
    assert len(filled(share=0.0)) == 0
    assert filled(share=0.0).draw(4, 8) == []


@pytest.mark.parametrize(("share", "age"), [(-0.1, 2), (float("nan"), 2), (0.5, 0)])
def test_numbers_outside_of_their_range(share: float, age: int) -> None:
    with pytest.raises(PolicyError, match="use 0 or more, and 1 or more"):
        ReplayBuffer(share, age, 0)
