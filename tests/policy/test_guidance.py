"""Guided sampling: exact ends, a weight for each sequence, schedules, and the same path walked with the weights."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flowsmith.policy import (
    LinearSchedule,
    Policy,
    PolicyError,
    Rollout,
    flow_logprobs,
    generate,
    interpolated,
    load_pair,
)
from flowsmith.policy.interpolation import interpolating
from tests.policy.world import BUDGET, PROMPTS, small_codec, small_policy, write_text_model

Groups = list[list[Rollout]]
Pair = tuple[Policy, Policy]


def tokens(groups: Groups) -> list[list[tuple[int, ...]]]:
    return [[rollout.flow_tokens for rollout in group] for group in groups]


def shake(policy: Policy, adapter: str, seed: int, by: float = 0.1) -> None:
    """Move an adapter away from where it is."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if adapter in name.split(".") and ("lora_" in name or "trainable_tokens" in name):
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(by * noise.to(parameter))


def lora_pair(folder: Path, tied: bool = False) -> Pair:
    """Policy and reference as two different adapters on one base, token rows included."""
    base = str(write_text_model(folder / "base", tied, dropout=0.3))
    first = Policy.from_text_model(small_codec(), base, BUDGET, lora_rank=3)
    shake(first, "vocabulary", 1)
    first.export(folder / "vocabulary")
    policy, reference = load_pair(folder / "vocabulary", folder / "vocabulary", trainable=True)
    shake(policy, "policy", 2)
    policy.double()
    return policy, reference


@pytest.fixture(params=["full", "lora", "tied"], scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    if request.param == "full":
        return small_policy(0, 2.0, torch.double), small_policy(1, 2.0, torch.double)
    return lora_pair(tmp_path_factory.mktemp(request.param), request.param == "tied")


def combined(pair: Pair, prompt: str, rollout: Rollout, weights: list[float], temperature: float) -> Tensor:
    """Log-probabilities by hand: whole sequences, each model alone, the grammar's own masks."""
    policy, reference = pair
    offset, begin = policy.tokenizer.flow_offset, policy.tokenizer.encode_prompt(prompt)
    ids = torch.tensor([begin + [offset + t for t in rollout.flow_tokens]])
    logits = []
    for voice in (reference, policy):
        if voice.adapter is not None:
            voice.model.set_adapter(voice.adapter)  # type: ignore[operator]
        with torch.no_grad():
            logits.append(voice.causal.eval()(ids, use_cache=False).logits[0, len(begin) - 1 : -1, offset:])
    w = torch.tensor(weights, dtype=torch.double)[:, None]
    mask = policy.grammar.mask(policy.grammar.replay(rollout.flow_tokens))
    mixed = (logits[0] + w * (logits[1] - logits[0])) / temperature
    every = mixed.masked_fill(~mask, -torch.inf).log_softmax(-1)
    told: Tensor = every[range(len(mask)), list(rollout.flow_tokens)]
    return told


def test_ends_are_reference_and_policy_token_for_token(pair: Pair) -> None:
    policy, reference = pair
    alone = [tokens(generate(voice, PROMPTS, 5, seed=0)) for voice in (reference, policy)]
    assert alone[0] != alone[1]
    for weight in (0.0, 1.0):
        guided = generate(policy, PROMPTS, 5, seed=0, reference=reference, guidance=weight)
        assert tokens(guided) == alone[int(weight)]
        with interpolating(reference, policy, weight) as between:
            assert tokens(generate(between, PROMPTS, 5, seed=0)) == alone[int(weight)]


def test_each_sequence_has_its_own_weight(pair: Pair) -> None:
    policy, reference = pair
    weights = [0.0, 1.0, 1.7, -0.5]
    mixed = generate(policy, PROMPTS, 4, seed=0, reference=reference, guidance=weights, temperature=0.8)
    for column, weight in enumerate(weights):
        every = generate(policy, PROMPTS, 4, seed=0, reference=reference, guidance=weight, temperature=0.8)
        for prompt, one, other in zip(PROMPTS, mixed, every, strict=True):
            assert one[column].flow_tokens == other[column].flow_tokens
            told = torch.tensor(one[column].logprobs, dtype=torch.double)
            by_hand = combined(pair, prompt, one[column], [weight] * len(told), 0.8)
            torch.testing.assert_close(told, by_hand, atol=1e-9, rtol=0)
    table = torch.tensor(weights).roll(1).expand(len(PROMPTS), 4)
    rolled = tokens(generate(policy, PROMPTS, 4, seed=0, reference=reference, guidance=table))
    assert rolled != tokens(generate(policy, PROMPTS, 4, seed=0, reference=reference, guidance=weights))


def test_batch_split_changes_no_guided_token(pair: Pair) -> None:
    policy, reference = pair
    given: dict[str, Any] = {
        "seed": 3,
        "reference": reference,
        "guidance": [2.0, 0.5, 1.0, 0.0, 3.0, 1.5, -1.0],
    }
    whole = tokens(generate(policy, PROMPTS, 7, batch_size=64, **given))
    for batch_size in (1, 7, 14):
        assert tokens(generate(policy, PROMPTS, 7, batch_size=batch_size, **given)) == whole


def test_a_schedule_changes_the_weight_over_the_places_of_a_flow(pair: Pair) -> None:
    policy, reference = pair
    schedule = LinearSchedule(20, begin=1.0)
    groups = generate(policy, PROMPTS, 2, seed=0, reference=reference, guidance=[2.5, 0.0], schedule=schedule)
    for prompt, group in zip(PROMPTS, groups, strict=True):
        for rollout, weight in zip(group, (2.5, 0.0), strict=True):
            share = [min(place / 20, 1.0) for place in range(len(rollout.flow_tokens))]
            weights = [1 + (weight - 1) * part for part in share]
            told = torch.tensor(rollout.logprobs, dtype=torch.double)
            torch.testing.assert_close(told, combined(pair, prompt, rollout, weights, 1.0), atol=1e-9, rtol=0)


def test_schedules_by_hand() -> None:
    weights, places = torch.tensor([3.0, 3.0, 3.0, 3.0]), torch.tensor([0, 2, 4, 9])
    assert LinearSchedule(4, begin=1.0).at(weights, places).tolist() == [1.0, 2.0, 3.0, 3.0]
    assert LinearSchedule(4, end=1.0).at(weights, places).tolist() == [3.0, 2.0, 1.0, 1.0]
    assert LinearSchedule(4, 0.0, 2.0).at(weights, places).tolist() == [0.0, 1.0, 2.0, 2.0]
    assert LinearSchedule(4).at(weights, places).tolist() == weights.tolist()
    assert str(LinearSchedule(24, begin=1.0)) == "1 to w over 24"
    with pytest.raises(PolicyError, match="at least 1 token"):
        LinearSchedule(0)


def test_both_adapters_share_one_forward_pass(tmp_path: Path) -> None:
    policy, reference = lora_pair(tmp_path)
    seen = []
    policy.causal.base_model.register_forward_pre_hook(
        lambda module, args, given: seen.append(given["input_ids"].shape[0]), with_kwargs=True
    )
    generate(policy, PROMPTS, 2, seed=0)
    alone = len(seen)
    generate(policy, PROMPTS, 2, seed=0, reference=reference, guidance=1.5)
    assert set(seen[:alone]) == {1}
    assert set(seen[alone:]) == {2}


def test_sampling_with_adapters_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    policy, reference = lora_pair(tmp_path)
    names = [name for name, _ in policy.named_modules()]
    trained = [name for name, p in policy.named_parameters() if p.requires_grad]
    state = {name: value.clone() for name, value in policy.state_dict().items()}
    generate(policy, PROMPTS, 2, seed=0, reference=reference, guidance=1.5)
    with pytest.raises(PolicyError), interpolating(reference, policy, 2.0) as between:
        generate(between, ["two red stars " * 200], 2, seed=0)
    assert [name for name, _ in policy.named_modules()] == names
    assert [name for name, p in policy.named_parameters() if p.requires_grad] == trained
    assert policy.model.active_adapter == "policy"
    assert policy.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in policy.state_dict().items())


@pytest.mark.parametrize("weight", [0.3, 1.8, -0.7])
def test_interpolated_updates_are_those_of_dense_weights(weight: float, tmp_path: Path) -> None:
    policy, reference = lora_pair(tmp_path)
    between = interpolated(reference, policy, weight)
    checked = 0
    for module in policy.model.modules():
        delta_weight: Any = getattr(module, "get_delta_weight", None)
        if delta_weight is not None:
            start, end, got = (delta_weight(name) for name in ("vocabulary", "policy", between.adapter))
            torch.testing.assert_close(got, start + weight * (end - start), atol=1e-12, rtol=0)
            # Interpolating A and B apart is something else.
            assert (got - start - weight * (end - start)).abs().max() < (end - start).abs().max() / 1000
            checked += 1
        rows = getattr(module, "trainable_tokens_delta", {})
        if between.adapter in rows:
            expected = rows["vocabulary"] + weight * (rows["policy"] - rows["vocabulary"])
            torch.testing.assert_close(rows[between.adapter], expected, atol=1e-12, rtol=0)
            checked += 1
    assert checked > 14
    assert not any(
        p.requires_grad for name, p in between.named_parameters() if between.adapter in name.split(".")
    )


def test_interpolated_policies_speak_and_score_alike(pair: Pair) -> None:
    policy, reference = pair
    prompts = [prompt for prompt in PROMPTS for _ in range(3)]
    with interpolating(reference, policy, 1.4) as between:
        groups = generate(between, PROMPTS, 3, seed=0)
        flat = [rollout for group in groups for rollout in group]
        logprobs, _, _ = flow_logprobs(between, prompts, [rollout.flow_tokens for rollout in flat])
    for row, rollout in enumerate(flat):
        told = torch.tensor(rollout.logprobs, dtype=torch.double)
        torch.testing.assert_close(logprobs[row, : len(told)], told, atol=1e-9, rtol=0)
    guided = generate(policy, PROMPTS, 3, seed=0, reference=reference, guidance=1.4)
    assert tokens(guided) != tokens(groups)  # these two readings of the path differ


def test_interpolated_full_weights_by_hand() -> None:
    policy, reference = small_policy(0, dtype=torch.double), small_policy(1, dtype=torch.double)
    before = copy.deepcopy(policy.state_dict())
    between = interpolated(reference, policy, 2.5)
    for name, parameter in between.model.named_parameters():
        start, end = reference.model.state_dict()[name], policy.model.state_dict()[name]
        torch.testing.assert_close(parameter, start + 2.5 * (end - start), atol=1e-12, rtol=0)
        assert not parameter.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
    assert interpolated(reference, policy, 1.0) is policy
    assert interpolated(reference, policy, 0.0) is reference


def test_no_line_leads_between_different_kinds(tmp_path: Path) -> None:
    policy, _ = lora_pair(tmp_path)
    with pytest.raises(PolicyError, match="two LoRA adapters on one base"):
        interpolated(small_policy(), policy, 0.5)
    with pytest.raises(PolicyError, match="differ in their weight"):
        interpolated(small_policy(hidden=16), small_policy(), 0.5)
    with pytest.raises(PolicyError, match="finite"):
        interpolated(small_policy(), small_policy(1), float("nan"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guidance": [1.0, 2.0]}, "shape"),
        ({"guidance": torch.ones(3, 1)}, "shape"),
        ({"guidance": [1.0, 2.0, float("nan")]}, "finite"),
        ({"guidance": [1.0, 1.0, 2.0], "reference": None}, "give reference"),
        ({"schedule": LinearSchedule(3), "reference": None}, "give reference"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"seed": 0, "reference": small_policy(1)} | settings
    with pytest.raises(PolicyError, match=message):
        generate(small_policy(), PROMPTS, 3, **given)


def test_an_adapter_that_is_no_plain_lora_is_named(tmp_path: Path) -> None:
    policy, _ = lora_pair(tmp_path)
    policy.model.merge_adapter()  # type: ignore[operator]
    with pytest.raises(PolicyError, match="no plain LoRA"):
        generate(policy, PROMPTS, 1, seed=0)
