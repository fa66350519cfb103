"""Which prompts a cycle gets: a function of (seed, cycle), split among processes without loss."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.prompts import Prompts, cycle_prompts, spare_prompts
from flowsmith.policy import PolicyError
from flowsmith.prompts import Prompt, write_prompts


def prompts(count: int, split: Any = "train") -> list[Prompt]:
    return [Prompt(id=f"{split}{i}", text=f"prompt {i}", split=split) for i in range(count)]


@pytest.fixture
def path(tmp_path: Path) -> str:
    write_prompts(tmp_path / "prompts.jsonl", [*prompts(20), *prompts(7, "validation"), *prompts(3, "test")])
    return str(tmp_path / "prompts.jsonl")


@given(st.integers(1, 30), st.data())
def test_a_pass_takes_no_prompt_twice(count: int, data: st.DataObject) -> None:
    batch = data.draw(st.integers(1, count))
    cycles = count // batch
    seen = [p.id for cycle in range(cycles) for p in cycle_prompts(prompts(count), batch, 3, cycle)]
    assert len(seen) == len(set(seen)) == cycles * batch


def test_passes_differ_and_all_prompts_come() -> None:
    first, second = (
        [p.id for c in range(a, a + 4) for p in cycle_prompts(prompts(20), 5, 0, c)] for a in (0, 4)
    )
    assert sorted(first) == sorted(second) == sorted(p.id for p in prompts(20))
    assert first != second
    counts = Counter(p.id for cycle in range(300) for p in cycle_prompts(prompts(20), 6, 0, cycle))
    assert set(counts) == {p.id for p in prompts(20)}  # what a pass leaves over differs from pass to pass


def attach(data: Prompts, rank: int = 0, world: int = 1, cycle: int = 0) -> Prompts:
    module = SimpleNamespace(cycle=cycle)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world, lightning_module=module)  # type: ignore[assignment]
    data.setup()
    return data


def test_an_epoch_continues_after_the_finished_cycles(path: str) -> None:
    whole = list(attach(Prompts(path, cycles=6, batch_prompts=4)).train_dataloader())
    assert len(whole) == len(attach(Prompts(path, cycles=6, batch_prompts=4)).train_dataloader()) == 6
    assert list(attach(Prompts(path, cycles=6, batch_prompts=4), cycle=4).train_dataloader()) == whole[4:]
    second = list(attach(Prompts(path, cycles=6, batch_prompts=4), cycle=6).train_dataloader())
    assert len(second) == 6
    assert second != whole


def test_processes_share_a_cycle_and_the_validation_prompts(path: str) -> None:
    one = attach(Prompts(path, cycles=3, batch_prompts=4, validation_prompts=7, validation_batch=2))
    two = [
        attach(Prompts(path, cycles=3, batch_prompts=4, validation_prompts=7, validation_batch=2), rank, 2)
        for rank in range(2)
    ]
    for whole, *parts in zip(*(d.train_dataloader() for d in (one, *two)), strict=True):
        assert sorted(p.id for part in parts for p in part) == sorted(p.id for p in whole)
    seen = [p.id for d in two for batch in d.val_dataloader() for p in batch]
    assert sorted(seen) == sorted(p.id for p in prompts(7, "validation"))  # unpadded: none twice
    assert [len(batch) for batch in one.val_dataloader()] == [2, 2, 2, 1]


def test_training_never_sees_another_split(path: str) -> None:
    data = attach(Prompts(path, cycles=20, batch_prompts=20))
    assert {p.split for batch in data.train_dataloader() for p in batch} == {"train"}


@pytest.mark.parametrize(
    ("batch", "world", "message"), [(21, 1, "20 training"), (0, 1, "from 1"), (5, 2, "multiple of 2")]
)
def test_batches_that_cannot_be(path: str, batch: int, world: int, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        attach(Prompts(path, batch_prompts=batch), world=world)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cycles": 0}, "cycles=0.*1 or more"),
        ({"cycles": -1}, "cycles=-1.*1 or more"),
        ({"validation_batch": 0}, "validation_batch=0.*1 or more"),
        ({"validation_prompts": -1}, r"validation_prompts=-1.*0 \(no validation\) or more"),
    ],
)
def test_numbers_outside_of_their_range(path: str, settings: dict[str, int], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        Prompts(path, **settings)


def test_each_process_validates_or_none_does(path: str) -> None:
    # The file has seven validation prompts: asking for more does not help eight processes.
    for wanted, world in ((1, 2), (7, 8), (32, 8)):
        with pytest.raises(PolicyError, match=f"use {world} or more, or 0 for no validation"):
            attach(Prompts(path, batch_prompts=16, validation_prompts=wanted), world=world)
    for wanted, world in ((0, 2), (2, 2), (7, 4)):
        attach(Prompts(path, batch_prompts=16, validation_prompts=wanted), world=world)


@given(st.integers(1, 30), st.integers(0, 40), st.integers(1, 5), st.data())
def test_who_steps_in_is_not_in_the_cycle_while_there_are_others(
    count: int, cycle: int, attempt: int, data: st.DataObject
) -> None:
    batch = data.draw(st.integers(1, count))
    own = {p.id for p in cycle_prompts(prompts(count), batch, 3, cycle)}
    spare = [p.id for p in spare_prompts(prompts(count), batch, 3, cycle, attempt)]
    assert len(set(spare)) == len(spare) == batch
    assert set(spare) == own if count < 2 * batch else own.isdisjoint(spare)


def test_each_attempt_has_the_next_prompts_and_processes_share_them(path: str) -> None:
    one = attach(Prompts(path, batch_prompts=4))
    attempts = [one.spare_prompts(7, attempt) for attempt in (1, 2, 3, 4)]
    assert len({p.id for spare in attempts for p in spare}) == 16  # all others
    assert one.spare_prompts(7, 5) == [*attempts[0][1:], attempts[1][0]]  # for another prompt than before
    assert one.spare_prompts(8, 1) != attempts[0]
    two = [attach(Prompts(path, batch_prompts=4), rank, 2) for rank in range(2)]
    for place, prompt in enumerate(attempts[1]):
        assert two[place % 2].spare_prompts(7, 2)[place // 2] == prompt


def test_a_file_without_training_prompts_is_told_as_that(tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.jsonl", prompts(3, "test"))
    with pytest.raises(PolicyError, match=r"prompts.jsonl: no prompt in it has the split train"):
        attach(Prompts(str(tmp_path / "prompts.jsonl")))
