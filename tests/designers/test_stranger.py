"""Flows that were written for another prompt."""

from pathlib import Path

import pytest

from flowsmith.designers import DesignerError, GuidedDesigner, StrangerDesigner
from flowsmith.designers.protocol import image_seed
from flowsmith.policy import Policy
from flowsmith.prompts import Prompt, write_prompts
from tests.policy.world import PROMPTS as TEXTS
from tests.policy.world import small_policy

FACTS = {"setting": "day"}
PROMPTS = [Prompt(f"p{i}", text, "test", facts=FACTS) for i, text in enumerate(TEXTS[:3])]
OTHERS = [Prompt("t0", "a cat", "train"), Prompt("t1", TEXTS[0], "test")]


@pytest.fixture
def policies(tmp_path: Path) -> tuple[Policy, Policy]:
    policy, reference = small_policy(1), small_policy(0)
    policy.export(tmp_path / "export" / "policy")
    reference.export(tmp_path / "export" / "reference")
    write_prompts(tmp_path / "prompts.jsonl", [*PROMPTS, *OTHERS])
    return policy, reference


def designer(folder: Path) -> StrangerDesigner:
    return StrangerDesigner(str(folder / "export"), str(folder / "prompts.jsonl"))


def test_flows_are_those_that_the_policy_writes_for_the_stranger(
    policies: tuple[Policy, Policy], tmp_path: Path
) -> None:
    proposed = designer(tmp_path).propose(PROMPTS, 2, seed=5)
    own = GuidedDesigner(*policies, 1.0)
    for place, c in enumerate(proposed):
        prompt, sample = PROMPTS[place // 2], place % 2
        stranger = designer(tmp_path).stranger(prompt, 5)
        assert (stranger.split, stranger.text != prompt.text) == ("test", True)
        theirs = own.propose([stranger], 2, seed=5)[sample]
        assert (c.flow, c.n_tokens) == (theirs.flow, theirs.n_tokens)
        assert (c.prompt, c.seed) == (prompt, image_seed(prompt, sample, 5))
        assert c.sample_id == f"GRPO, for another prompt/{prompt.id}/{sample}"


def test_proposals_follow_from_seed_prompt_and_sample_alone(
    policies: tuple[Policy, Policy], tmp_path: Path
) -> None:
    whole = {c.sample_id: c.flow for c in designer(tmp_path).propose(PROMPTS, 2, seed=5)}
    alone = {c.sample_id: c.flow for c in designer(tmp_path).propose(PROMPTS[2:], 2, seed=5)}
    assert alone == {name: flow for name, flow in whole.items() if "/p2/" in name}


def test_every_other_prompt_of_the_split_may_be_the_stranger(
    policies: tuple[Policy, Policy], tmp_path: Path
) -> None:
    met = {designer(tmp_path).stranger(PROMPTS[0], seed).id for seed in range(40)}
    assert met == {"p1", "p2"}  # not t0, of another split, nor t1, which is its own words again


def test_a_prompt_without_company_is_told(tmp_path: Path) -> None:
    write_prompts(tmp_path / "prompts.jsonl", OTHERS)
    with pytest.raises(DesignerError, match="train has no prompt but t0"):
        designer(tmp_path).stranger(OTHERS[0], 5)
