import torch

from callbacks.gallery import cell
from flowsmith.candidates import Candidate
from flowsmith.prompts import Prompt
from tests.flows_for_tests import some_flows


def test_a_wide_picture_keeps_its_proportions() -> None:
    candidate = Candidate("x", Prompt("p", "x"), some_flows(1)[0], "a", 0)
    assert int(cell(candidate, 8).max()) == 0
    candidate.image = torch.full((3, 4, 8), 200, dtype=torch.uint8)
    picture = cell(candidate, 16)
    assert picture[0, :, 3].tolist() == [0] * 4 + [200] * 8 + [0] * 4
    assert int(picture[:, 4:12].min()) == 200
