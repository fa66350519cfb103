import io

import numpy as np
from PIL import Image

from flowsmith.evaluation.flow_picture import depths, flow_figure, settings_of
from flowsmith.flows import Flow
from flowsmith.flows.flow import Link, Node
from tests.flows_for_tests import some_flows


def test_links_lead_from_left_to_right() -> None:
    for flow in some_flows(40):
        place = depths(flow)
        for i, node in enumerate(flow.nodes):
            sources = [place[link.node] for _, link in node.links()]
            assert place[i] == (max(sources) + 1 if sources else 0)
        saved = [i for i, node in enumerate(flow.nodes) if node.class_type == "SaveImage"]
        assert place[saved[0]] == max(place), "the image stands at the right end"


def test_settings_are_told_and_links_are_not() -> None:
    node = Node("KSampler", (("model", Link(0, 0)), ("steps", 20), ("cfg", 4.5), ("text", "x" * 80)))
    assert settings_of(node) == ["steps: 20", "cfg: 4.5", "text: " + "x" * 23 + "…"]


def test_every_flow_is_drawn_and_prompts_are_no_markup() -> None:
    flows: dict[str, Flow] = {f"designer {i}": flow for i, flow in enumerate(some_flows(3))}
    figure = flow_figure(flows)
    for axis, (title, flow) in zip(figure.axes, flows.items(), strict=True):
        told = [text.get_text() for text in axis.texts]
        assert axis.get_title(loc="left") == title
        assert [node.class_type for node in flow.nodes] == [t for t in told if t in _classes(flow)]
        assert len(axis.patches) == len(flow.nodes)
    file = io.BytesIO()
    flow_figure({"$\\frac{$": some_flows(1)[0]}).savefig(file, format="png")
    assert np.asarray(Image.open(file)).std() > 5, "something must be drawn"


def _classes(flow: Flow) -> set[str]:
    return {node.class_type for node in flow.nodes}
