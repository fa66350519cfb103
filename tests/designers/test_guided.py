import pytest

from flowsmith.designers import GuidedDesigner
from flowsmith.designers.protocol import DesignerError, image_seed, stable_hash
from flowsmith.policy import LinearSchedule, Policy, generate, interpolated
from flowsmith.prompts import Prompt
from tests.policy.world import PROMPTS as TEXTS
from tests.policy.world import small_codec, small_policy

PROMPTS = [Prompt(f"p{i}", text) for i, text in enumerate(TEXTS[:3])]


def keys(policy: Policy, seed: int) -> list[str]:
    """Return what a policy samples alone."""
    groups = generate(
        policy, TEXTS[:3], 3, seed=stable_hash("flows", seed) >> 2, sample_ids=[p.id for p in PROMPTS]
    )
    return [rollout.flow.key for group in groups for rollout in group]


def test_weights_0_and_1_are_reference_and_policy() -> None:
    policy, reference = small_policy(1), small_policy(0)
    proposed = {
        weight: GuidedDesigner(policy, reference, weight).propose(PROMPTS, 3, seed=5)
        for weight in (0.0, 1.0, 2.0)
    }
    told = {weight: [c.flow.key for c in candidates] for weight, candidates in proposed.items()}
    assert told[0.0] == keys(reference, 5)
    assert told[1.0] == keys(policy, 5)
    assert len({tuple(found) for found in told.values()}) == 3
    for weight, name in ((0.0, "vocabulary"), (1.0, "GRPO"), (2.0, "GRPO w=2")):
        for place, c in enumerate(proposed[weight]):
            prompt, sample = PROMPTS[place // 3], place % 3
            assert (c.sample_id, c.prompt) == (f"{name}/{prompt.id}/{sample}", prompt)
            assert (c.designer, c.guidance) == (name, weight)
            assert c.seed == image_seed(prompt, sample, 5), "all designers share the noise"
            assert c.n_tokens == len(small_codec().encode(c.flow))


def test_flows_follow_from_seed_prompt_and_sample_alone() -> None:
    designer = GuidedDesigner(small_policy(1), small_policy(0), 1.5)
    whole = {c.sample_id: c.flow for c in designer.propose(PROMPTS, 3, seed=5)}
    alone = {c.sample_id: c.flow for c in designer.propose(PROMPTS[2:], 2, seed=5)}
    assert alone == {name: whole[name] for name in ("GRPO w=1.5/p2/0", "GRPO w=1.5/p2/1")}
    assert {c.sample_id: c.flow for c in designer.propose(PROMPTS, 3, seed=6)} != whole


def test_the_path_can_be_walked_with_the_weights_of_the_models() -> None:
    policy, reference = small_policy(1), small_policy(0)
    between = keys(interpolated(reference, policy, 1.5), 5)
    designer = GuidedDesigner(policy, reference, 1.5, path="weights")
    proposed = designer.propose(PROMPTS, 3, seed=5)
    assert [c.flow.key for c in proposed] == between
    assert between != [c.flow.key for c in GuidedDesigner(policy, reference, 1.5).propose(PROMPTS, 3, seed=5)]
    assert {(c.designer, c.guidance) for c in proposed} == {("GRPO weights w=1.5", 1.5)}
    ends = [GuidedDesigner(policy, reference, w, path="weights") for w in (0.0, 1.0)]
    assert [end.name for end in ends] == ["vocabulary", "GRPO"]
    assert [[c.flow.key for c in end.propose(PROMPTS, 3, seed=5)] for end in ends] == [
        keys(reference, 5),
        keys(policy, 5),
    ]


def test_a_schedule_is_named_and_kept() -> None:
    policy, reference = small_policy(1), small_policy(0)
    schedule = LinearSchedule(1, begin=0.0, end=0.0)  # the reference, whatever w
    designer = GuidedDesigner(policy, reference, 2.0, schedule=schedule)
    assert designer.name == "GRPO w=2 (0 to 0 over 1)"
    assert [c.flow.key for c in designer.propose(PROMPTS, 3, seed=5)] == keys(reference, 5)
    with pytest.raises(DesignerError, match="one model for the whole flow"):
        GuidedDesigner(policy, reference, 2.0, path="weights", schedule=schedule)
