"""Dynamic sampling: others step in where all rewards are equal, a bounded number of times."""

from collections.abc import Sequence

from flowsmith.policy.groups import Group
from flowsmith.policy.refill import chosen, sampled_with_refills
from flowsmith.prompts import Prompt
from tests.policy.group_world import made_up


def prompt(name: str) -> Prompt:
    return Prompt(id=name, text=name)


def spare(attempt: int) -> list[Prompt]:
    return [prompt(f"spare{attempt}.{place}") for place in range(4)]


class Sampler:
    """Rewards vary for the prompts that are named; remembers who was asked for."""

    def __init__(self, varied: set[str]) -> None:
        self.varied = varied
        self.asked: list[tuple[int, list[str]]] = []

    def __call__(self, prompts: Sequence[Prompt], attempt: int) -> list[Group]:
        self.asked.append((attempt, [p.id for p in prompts]))
        return [made_up(p.id, (0.0, float(p.id in self.varied)), attempt=attempt) for p in prompts]


OWN = [prompt(name) for name in "abcd"]


def test_only_flat_places_are_refilled_each_by_its_own_stand_in() -> None:
    sample = Sampler({"a", "c", "spare1.3", "spare2.1"})
    tries = sampled_with_refills(sample, OWN, spare, 5)
    assert sample.asked == [(0, list("abcd")), (1, ["spare1.1", "spare1.3"]), (2, ["spare2.1"])]
    assert [[group.prompt_id for group in groups] for groups in tries] == [
        ["a"],
        ["b", "spare1.1", "spare2.1"],
        ["c"],
        ["d", "spare1.3"],
    ]
    assert [group.prompt_id for group in chosen(tries)] == ["a", "spare2.1", "c", "spare1.3"]


def test_attempts_are_bounded_and_the_own_prompt_stays_where_none_helped() -> None:
    sample = Sampler({"a"})
    tries = sampled_with_refills(sample, OWN, spare, 3)
    assert [attempt for attempt, _ in sample.asked] == [0, 1, 2, 3]
    assert [group.prompt_id for group in chosen(tries)] == list("abcd")
    assert sampled_with_refills(Sampler(set()), OWN, spare, 0) == [[made_up(p.id, (0.0, 0.0))] for p in OWN]


def test_places_do_not_depend_on_one_another() -> None:
    """Two processes, each with every second prompt, come to the groups of one."""
    varied = {"a", "spare1.1", "spare3.2"}
    whole = chosen(sampled_with_refills(Sampler(varied), OWN, spare, 3))
    parts = [
        chosen(sampled_with_refills(Sampler(varied), OWN[r::2], lambda a, r=r: spare(a)[r::2], 3))  # type: ignore[misc]
        for r in range(2)
    ]
    assert [parts[place % 2][place // 2] for place in range(4)] == whole


def test_a_missing_reward_is_no_variance() -> None:
    nan = float("nan")
    assert not made_up("a", (nan, 1.0, 1.0)).varied
    assert not made_up("a", (nan, nan, 1.0)).varied
    assert not made_up("a", (nan, nan)).varied
    assert made_up("a", (nan, 0.0, 1.0)).varied
