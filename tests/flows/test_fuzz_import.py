"""Mutated graphs and picture chunks: a flow, a report or a `FlowError` comes out, never anything else."""

import io
import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowsmith.flows import Flow, FlowError, validate
from flowsmith.flows.exchange import import_graph, to_workflow
from flowsmith.flows.exchange.picture_metadata import read_metadata
from tests.flows.editor_graphs import FILE, editor_graph, installed, sent_graph, unfolded
from tests.flows.test_picture_metadata import API, UI, chunk, itxt, png, webp

HERE = installed(FILE)
_GRAPHS = [json.dumps(graph()) for graph in (sent_graph, editor_graph, unfolded)]
_PICTURES = [
    png(chunk(b"tEXt", b"prompt\0" + API.encode()), itxt(b"workflow", UI.encode(), packed=True)),
    webp({0x0110: f"prompt:{API}", 0x010F: f"workflow:{UI}"}),
]

_LEAVES: st.SearchStrategy[Any] = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 2**63, 10**400, 0.5, -0.0, float("nan"), float("inf"), "", "1", "KSampler",
        "0-1-2", "euler", "../x.safetensors", "y.safetensors", "{prompt}", "\ud800", "\0", "Reroute", "PrimitiveNode",
        [], {}, ["4", 0], ["4", -1], ["3", 0], [[]], {"__value__": 3}, 4, 3, 13, -10, -20, "x" * 5_000,
    ]
)  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every container of a JSON value with one of its keys or places."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        container = waiting.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        found += [(container, key) for key in keys]
        waiting += [container[key] for key in keys if isinstance(container[key], dict | list)]
    return found


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A graph of either format after one to four changes: values replaced, taken out, doubled, swapped."""
    graph = json.loads(draw(st.sampled_from(_GRAPHS)))
    for _ in range(draw(st.integers(1, 4))):
        where = places(graph)
        container, key = where[draw(st.integers(0, len(where) - 1))]
        change = draw(st.sampled_from(["replace", "replace", "delete", "copy", "rename"]))
        if change == "replace":
            container[key] = deepcopy(draw(_LEAVES))  # later changes must not reach into the next graph
        elif change == "delete":
            del container[key]
        elif change == "copy":
            other, place = where[draw(st.integers(0, len(where) - 1))]
            container[key] = json.loads(json.dumps(other[place] if place in _keys(other) else None))
        elif isinstance(container, dict):
            container[draw(st.sampled_from(["inputs", "class_type", "id", "text", "nodes", "x"]))] = (
                container.pop(key)
            )
        if not places(graph):
            break
    return graph


def _keys(container: Any) -> Any:
    return container if isinstance(container, dict) else range(len(container))


def check_graph(graph: Any) -> None:
    text = json.dumps(graph)
    try:
        found = import_graph(text, HERE)
    except FlowError:
        return
    assert (found.flow is None) == bool(found.issues)
    assert found.report()
    if found.flow is not None:
        assert validate(found.flow, found.schema) == []
        sent = found.flow.to_comfyui(found.prompt or "", 0, found.schema)
        assert Flow.from_comfyui(sent, found.schema, found.prompt) is not None
        assert to_workflow(found.flow, "x", 0, found.schema)["nodes"]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A picture with bytes changed, cut out, cut off or put in; checksums are made good again half of the time."""
    content = bytearray(draw(st.sampled_from(_PICTURES)))
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        change = draw(st.sampled_from(["set", "set", "cut", "end", "insert"]))
        if change == "set" and content:
            content[place] = draw(st.integers(0, 255))
        elif change == "cut":
            del content[place : place + draw(st.integers(1, 40))]
        elif change == "end":
            del content[place:]
        else:
            content[place:place] = draw(st.binary(max_size=20))
    return bytes(content)


@st.composite
def odd_chunks(draw: st.DrawFn) -> bytes:
    """A picture of chunks that are well-formed outside, whatever they hold."""
    text = draw(st.sampled_from([API.encode(), UI.encode(), b"{}", b"", b"\xff"]) | st.binary(max_size=60))
    key = draw(st.sampled_from([b"prompt", b"workflow", b""]))
    raw = draw(st.binary(max_size=30))
    kinds = [
        chunk(b"tEXt", key + b"\0" + text), itxt(key, text, packed=True), itxt(key, text, packed=False),
        chunk(b"zTXt", key + b"\0\0" + raw), chunk(b"iTXt", key + b"\0\1" + raw), chunk(b"tEXt", raw),
    ]  # fmt: skip
    return png(*draw(st.lists(st.sampled_from(kinds), max_size=4)))


def check_picture(content: bytes) -> None:
    try:
        texts = read_metadata(io.BytesIO(content))
    except FlowError:
        return
    assert set(texts) <= {"prompt", "workflow"}
    for text in texts.values():
        try:
            import_graph(text, HERE)
        except FlowError:
            continue


_QUICK = settings(max_examples=1_000, deadline=None, suppress_health_check=list(HealthCheck))
# In parts, since Hypothesis remembers all that one test has tried.
_LONG = settings(max_examples=5_000, deadline=None, suppress_health_check=list(HealthCheck))


@_QUICK
@given(mutated())
def test_mutated_graphs(graph: Any) -> None:
    check_graph(graph)


@_QUICK
@given(damaged() | odd_chunks())
def test_damaged_pictures(content: bytes) -> None:
    check_picture(content)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
@_LONG
@given(mutated())
def test_many_mutated_graphs(part: int, graph: Any) -> None:
    check_graph(graph)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
@_LONG
@given(damaged() | odd_chunks())
def test_many_damaged_pictures(part: int, content: bytes) -> None:
    check_picture(content)
