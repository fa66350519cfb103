from typing import Any

import pytest

from flowsmith.execution import ExecutionError
from flowsmith.execution.graph import plan_graph
from flowsmith.execution.models import LatentFormat
from flowsmith.execution.nodes.values import EmptyLatent, latent_shape
from tests.tiny_world import tiny_graph


def test_only_what_an_output_needs_is_planned() -> None:
    graph = tiny_graph()
    graph["idle"] = {"class_type": "CLIPTextEncode", "inputs": {"text": "unused", "clip": ["1", 1]}}
    plan = plan_graph(graph)
    assert [step.node.name for step in plan.steps][-1] == "SaveImage"
    assert len(plan.steps) == 7
    seen: set[str] = set()
    for step in plan.steps:
        assert all(source in seen for source, _ in step.links.values())
        seen.add(step.key)


def test_key_depends_on_everything_upstream_and_on_nothing_else() -> None:
    def output(**changes: Any) -> str:
        return plan_graph(tiny_graph(**changes)).outputs[0]

    renamed = {f"n{name}": node for name, node in reversed(tiny_graph().items())}
    for node in renamed.values():
        links = {k: [f"n{v[0]}", v[1]] for k, v in node["inputs"].items() if isinstance(v, list)}
        node["inputs"] = {**node["inputs"], **links}
    assert plan_graph(renamed).outputs[0] == output()
    changes: list[dict[str, Any]] = [
        {"seed": 6}, {"cfg": 3.5}, {"positive": "x"}, {"negative": "x"}, {"ckpt_name": "b"}, {"width": 72},
    ]  # fmt: skip
    keys = {output(**change) for change in changes}
    assert len(keys | {output()}) == 7


def test_steps_follow_the_links_in_their_order() -> None:
    """And so are the same in every process, whatever Python hashes texts to."""
    graph = tiny_graph()
    for k in range(8):  # eight more outputs, each with texts of its own
        graph[f"p{k}"] = {"class_type": "CLIPTextEncode", "inputs": {"text": f"+{k}", "clip": ["1", 1]}}
        graph[f"n{k}"] = {"class_type": "CLIPTextEncode", "inputs": {"text": f"-{k}", "clip": ["1", 1]}}
        inputs = {**graph["5"]["inputs"], "positive": [f"p{k}", 0], "negative": [f"n{k}", 0]}
        graph[f"s{k}"] = {"class_type": "KSampler", "inputs": inputs}
        graph[f"d{k}"] = {"class_type": "VAEDecode", "inputs": {"samples": [f"s{k}", 0], "vae": ["1", 2]}}
        graph[f"o{k}"] = {
            "class_type": "SaveImage",
            "inputs": {"images": [f"d{k}", 0], "filename_prefix": "x"},
        }
    texts = [step.values["text"] for step in plan_graph(graph).steps if "text" in step.values]
    assert texts == ["two red stars", "", *(f"{sign}{k}" for k in range(8) for sign in "+-")]


def test_equal_nodes_are_evaluated_once() -> None:
    graph = tiny_graph(positive="same", negative="same")
    assert len(plan_graph(graph).steps) == 6


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"class_type": "Exec", "inputs": {}}, "Exec"),
        ({"class_type": "VAEDecode", "inputs": {"samples": ["nowhere", 0]}}, "nowhere"),
        ({"class_type": "VAEDecode", "inputs": {"samples": ["7", 0]}}, "circle"),
    ],
)
def test_unsound_graphs_are_refused(node: dict[str, Any], message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        plan_graph({**tiny_graph(), "6": node})


def test_graph_without_an_output_is_refused() -> None:
    graph = tiny_graph()
    del graph["7"]
    with pytest.raises(ExecutionError, match="SaveImage"):
        plan_graph(graph)


def test_empty_latents_take_the_checkpoints_form() -> None:
    empty = EmptyLatent(72, 64).scaled(1.5)
    assert latent_shape(empty, LatentFormat(4, 4, 1.0)) == (1, 4, 24, 27)
    assert latent_shape(empty, LatentFormat(16, 8, 1.0)) == (1, 16, 12, 14)  # 13.5, halves to even
    with pytest.raises(ExecutionError, match="less than one"):
        latent_shape(EmptyLatent(4, 64), LatentFormat(4, 8, 1.0))
