from pathlib import Path

from flowsmith.designers import EveryFlowDesigner
from flowsmith.flows import Domain, Schema, load_corpus
from flowsmith.prompts import read_prompts

ROOT = Path(__file__).parents[2]
DOMAIN, FLOWS = ROOT / "miniature" / "domain.yaml", ROOT / "miniature" / "flows"


def test_every_flow_meets_every_prompt_with_the_same_seeds() -> None:
    prompts = read_prompts(ROOT / "miniature" / "data" / "prompts.jsonl", "test")[:3]
    designer = EveryFlowDesigner(str(FLOWS), str(DOMAIN))
    proposed = designer.propose(prompts, 4, seed=7)
    flows = load_corpus(FLOWS, Domain.from_yaml(DOMAIN).restrict(Schema.core()))
    assert len(proposed) == len({c.sample_id for c in proposed}) == 3 * len(flows) * 4
    for prompt in prompts:
        mine = [c for c in proposed if c.prompt.id == prompt.id]
        seeds = {name: [c.seed for c in mine if c.base_flow == name] for name in flows}
        assert len(set(seeds["default"])) == 4
        assert all(those == seeds["default"] for those in seeds.values())
        assert {c.base_flow: c.flow.key for c in mine} == {name: flow.key for name, flow in flows.items()}
    assert len({c.seed for c in proposed}) == 12, "each prompt has seeds of its own"


def test_proposals_do_not_depend_on_what_else_is_asked() -> None:
    prompts = read_prompts(ROOT / "miniature" / "data" / "prompts.jsonl", "test")[:2]
    designer = EveryFlowDesigner(str(FLOWS), str(DOMAIN))
    together = {c.sample_id: c.seed for c in designer.propose(prompts, 2, seed=1)}
    alone = {c.sample_id: c.seed for c in designer.propose(prompts[1:], 2, seed=1)}
    assert together.items() >= alone.items()
