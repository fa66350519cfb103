import pytest

from flowsmith.rewards.splits import SplitError, assign_parts, held_out, row_weights

NAMES = [f"n{i}" for i in range(20)]


def test_counts_and_independence_of_order_and_repetition() -> None:
    chosen = held_out(NAMES, 0.25, seed=0, what="prompts")
    assert len(chosen) == 5
    assert held_out(list(reversed(NAMES)) * 3, 0.25, seed=0, what="prompts") == chosen
    assert held_out(NAMES, 0.25, seed=1, what="prompts") != chosen
    assert held_out(NAMES, 0.25, seed=0, what="base flows") != chosen


def test_a_larger_share_holds_out_the_same_and_more() -> None:
    assert held_out(NAMES, 0.1, seed=0, what="x") < held_out(NAMES, 0.5, seed=0, what="x")


def test_zero_holds_out_nothing_and_little_holds_out_one() -> None:
    assert held_out(NAMES, 0, seed=0, what="x") == frozenset()
    assert len(held_out(NAMES, 0.001, seed=0, what="x")) == 1


def test_refuses_to_leave_nothing() -> None:
    with pytest.raises(SplitError, match="nothing would be left"):
        held_out(["only"], 0.1, seed=0, what="prompts")
    with pytest.raises(SplitError, match="from 0 to below 1"):
        held_out(NAMES, 1.0, seed=0, what="prompts")


def test_parts_by_hand() -> None:
    parts = assign_parts(["p", "q", "p", "q"], ["f", "f", "g", "g"], frozenset("q"), frozenset("g"))
    assert parts == ["train", "unseen_prompts", "unseen_flows", "unseen_both"]


def test_weights_by_hand() -> None:
    prompts, flows = ["a", "a", "a", "b"], ["f", "g", "g", "g"]
    assert row_weights(prompts, flows, "rows") == [1, 1, 1, 1]
    assert row_weights(prompts, flows, "prompts") == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2])
    assert row_weights(prompts, flows, "base_flows") == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3])
