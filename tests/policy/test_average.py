"""The moving average of the policy: by hand, in the policy's place, and out of it again."""

from pathlib import Path

import pytest
import torch

from flowsmith.policy import Policy, PolicyError, flow_logprobs, generate, load_pair
from flowsmith.policy.average import MovingAverage
from tests.policy.world import BUDGET, PROMPTS, small_codec, small_policy, write_text_model


def moved(policy: Policy, amount: float) -> None:
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(amount)


def test_two_updates_by_hand() -> None:
    policy = small_policy()
    begin = {name: p.detach().clone() for name, p in policy.named_parameters()}
    average = MovingAverage(policy, decay=0.75)
    for _ in range(2):
        moved(policy, 1.0)
        average.update()
    # At 1: 0.25; at 2: 0.75 * 0.25 + 0.25 * 2 = 0.6875.
    for name, buffer in average.named_buffers():
        torch.testing.assert_close(buffer, begin[name.replace("/", ".")] + 0.6875)


def test_in_place_the_policy_speaks_with_the_average_and_then_with_its_own_voice() -> None:
    policy, other = small_policy(spread=2.0), small_policy(spread=2.0)
    average = MovingAverage(policy, decay=1.0)  # stays where it began: at ``other``
    flows = [group[0].flow_tokens for group in generate(other, PROMPTS, 1, seed=0)]
    expected = flow_logprobs(other, PROMPTS, flows)[0]
    moved(policy, 0.1)
    own = flow_logprobs(policy, PROMPTS, flows)[0]
    assert not torch.allclose(own, expected, atol=1e-2)
    with average.in_place():
        assert torch.equal(flow_logprobs(policy, PROMPTS, flows)[0], expected)
    assert torch.equal(flow_logprobs(policy, PROMPTS, flows)[0], own)
    with pytest.raises(PolicyError), average.in_place():
        policy.encode_prompts(["word " * 1000])
    assert torch.equal(flow_logprobs(policy, PROMPTS, flows)[0], own)


def test_only_what_trains_is_averaged_and_the_policy_is_no_part_of_it() -> None:
    policy = small_policy()
    names = [name for name, _ in policy.named_parameters()]
    frozen = dict(policy.named_parameters())[names[0]]
    frozen.requires_grad_(False)
    average = MovingAverage(policy, decay=0.5)
    assert sorted(average.state_dict()) == sorted(name.replace(".", "/") for name in names[1:])
    assert not list(average.parameters())


def test_small_steps_are_not_lost_at_half_precision() -> None:
    policy = small_policy(dtype=torch.bfloat16)
    average = MovingAverage(policy, decay=0.999)
    begin = {name: buffer.clone() for name, buffer in average.named_buffers()}
    moved(policy, 1.0)
    for _ in range(10):
        average.update()
    # 1 - 0.999^10 of the way; bfloat16 near 1 cannot tell a thousandth.
    for name, parameter in policy.named_parameters():
        place = name.replace(".", "/")
        way = (dict(average.named_buffers())[place] - begin[place]) / (parameter.float() - begin[place])
        torch.testing.assert_close(way, torch.full_like(way, 1 - 0.999**10), atol=1e-4, rtol=0)
    with average.in_place():
        assert all(parameter.dtype == torch.bfloat16 for parameter in policy.parameters())


def test_of_lora_the_average_is_one_more_adapter(tmp_path: Path) -> None:
    base = str(write_text_model(tmp_path / "base"))
    Policy.from_text_model(small_codec(), base, BUDGET, lora_rank=4).export(tmp_path / "vocabulary")
    policy, reference = load_pair(tmp_path / "vocabulary", tmp_path / "vocabulary", trainable=True)
    average = MovingAverage(policy, decay=1.0)
    assert all("lora_" in name and "/policy/" in name for name, _ in average.named_buffers())
    flows = [group[0].flow_tokens for group in generate(reference, PROMPTS, 1, seed=0)]
    expected = flow_logprobs(reference, PROMPTS, flows)[0].detach()
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    own = flow_logprobs(policy, PROMPTS, flows)[0].detach()
    assert not torch.allclose(own, expected, atol=1e-2)
    with average.in_place():  # where it began, which is what the reference adapter is
        torch.testing.assert_close(flow_logprobs(policy, PROMPTS, flows)[0].detach(), expected)
    assert torch.equal(flow_logprobs(policy, PROMPTS, flows)[0], own)
    assert torch.equal(flow_logprobs(reference, PROMPTS, flows)[0], expected)


@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan")])
def test_a_decay_outside_of_its_range(decay: float) -> None:
    with pytest.raises(PolicyError, match=r"use 0\.\.1"):
        MovingAverage(small_policy(), decay)
