from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flowsmith.designers import SurrogateArgMaxDesigner
from flowsmith.designers.protocol import image_seed
from flowsmith.flows import Flow
from flowsmith.prompts import Prompt
from tests.designers.collection import write_collection
from tests.flows_for_tests import DOMAIN, some_flows

PROMPTS = [Prompt("p0", "calm"), Prompt("p1", "wild")]


class Oracle:
    """Knows each flow's mean and doubt, by prompt."""

    def __init__(self, known: dict[str, dict[int, tuple[float, float]]]) -> None:
        self.known = {
            prompt: {some_flows(6)[i].key: told for i, told in by_flow.items()}
            for prompt, by_flow in known.items()
        }

    def predict(self, prompts: Sequence[str], flows: Sequence[Flow]) -> tuple[Tensor, Tensor]:
        told = [self.known[prompt][flow.key] for prompt, flow in zip(prompts, flows, strict=True)]
        mean, std = torch.tensor(told).unbind(1)
        return mean, std


@pytest.mark.parametrize(
    ("doubt_penalty", "expected"),
    [
        (0.0, [1, 4]),  # means 2.0 and 5.0
        (1.0, [1, 2]),  # 2.0 - 0.1; 5.0 - 3.0 is less than 3.0 - 0.5
        (30.0, [2, 0]),  # -1 of 2.0 - 3.0 is less than 0.5 - 0; 1.0 - 0 beats 3.0 - 15.0
    ],
)
def test_each_prompt_gets_its_best_known_flow(
    tmp_path: Path, doubt_penalty: float, expected: list[int]
) -> None:
    path = write_collection(tmp_path / "rows.parquet", {0: [0.0], 1: [0.0], 2: [0.0], 4: [9.0]})
    designer = SurrogateArgMaxDesigner("nowhere", path, str(DOMAIN), doubt_penalty)
    oracle = Oracle(
        {
            "calm": {0: (0.0, 0.0), 1: (2.0, 0.1), 2: (0.5, 0.0), 4: (-1.0, 0.0)},
            "wild": {0: (1.0, 0.0), 1: (0.0, 0.0), 2: (3.0, 0.5), 4: (5.0, 3.0)},
        }
    )
    designer.__dict__["ensemble"] = oracle
    proposed = designer.propose(PROMPTS, 2, seed=7)
    assert [c.sample_id for c in proposed] == [
        f"surrogate arg-max/p{p}/{sample}" for p in (0, 1) for sample in (0, 1)
    ]
    for c in proposed:
        best = expected[PROMPTS.index(c.prompt)]
        assert (c.flow, c.base_flow) == (some_flows(6)[best], f"base{best}")
        mean, std = oracle.known[c.prompt.text][c.flow.key]
        assert c.predicted_mean == pytest.approx(mean)
        assert c.predicted_std == pytest.approx(std)
        assert c.seed == image_seed(c.prompt, int(c.sample_id[-1]), 7)
