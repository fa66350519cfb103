from flowsmith.designers import GuidedDesigner
from flowsmith.designers.protocol import image_seed, stable_hash
from flowsmith.policy import Policy, generate
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
