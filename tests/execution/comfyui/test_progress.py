"""Progress by the websocket's messages, in whatever order they come."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowsmith.execution.comfyui.progress import Progress
from tests.execution.comfyui.recordings import SESSIONS, session, websocket

ID = "76b7fa3b-8cc9-4309-888d-9d6e96a3b2f8"
PNG = b"\0\0\0\1\0\0\0\2"
JPEG = b"\0\0\0\1\0\0\0\1"


def said(kind: str, prompt_id: str = ID, **data: Any) -> str:
    return json.dumps({"type": kind, "data": {**data, "prompt_id": prompt_id}})


def states(**values: tuple[float, float]) -> str:
    nodes = {name[1:]: {"value": value, "max": most} for name, (value, most) in values.items()}
    return said("progress_state", nodes=nodes)


def test_every_node_counts_the_same_and_what_was_cached_is_done() -> None:
    seen: list[float] = []
    progress = Progress(ID, "9", 4, seen.append)
    for message in (
        said("execution_start"),
        said("execution_cached", nodes=["1"]),
        states(_2=(0, 1)),
        said("progress", node="2", value=5, max=10),
        states(_2=(1, 1), _3=(1, 4)),
        said("executed", node="9", output={}),
    ):
        progress.feed(message)
    assert seen == [0.25, 0.375, 0.5625, 0.8125]
    assert progress.started
    assert not progress.over


def test_progress_never_falls() -> None:
    progress = Progress(ID, "9", 1)
    progress.feed(said("progress", node="2", value=8, max=10))
    progress.feed(said("progress", node="2", value=1, max=10))
    assert progress.fraction == 0.8


@pytest.mark.parametrize(
    "ending",
    [said("executing", node=None), said("execution_error"), said("execution_interrupted")],
)
def test_what_ends_a_prompt(ending: str) -> None:
    progress = Progress(ID, "9", 1)
    # The history is not written yet when this one comes.
    progress.feed(said("execution_success"))
    assert not progress.over
    progress.feed(ending.replace(ID, "another"))
    assert not progress.over
    progress.feed(ending)
    assert progress.over


def test_only_the_first_png_of_the_image_node_of_our_prompt_is_the_picture() -> None:
    progress = Progress(ID, "9", 2)
    progress.feed(PNG + b"before anything")
    progress.feed(said("executing", node="3"))
    progress.feed(PNG + b"another node's")
    progress.feed(said("executing", node="9"))
    progress.feed(said("executing", node="9", prompt_id="another"))
    progress.feed(PNG + b"another prompt's")
    progress.feed(said("executing", node="9"))
    progress.feed(JPEG + b"a preview")
    assert progress.picture is None
    progress.feed(PNG + b"ours")
    progress.feed(PNG + b"the second of the batch")
    assert progress.picture == b"ours"


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(ID),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "data", "node", "nodes", "value", "max", "prompt_id", "1"]), inner
            )
        ),
    ),
    st.sampled_from(["progress_state", "progress", "executing", "execution_cached", "executed"]),
    st.binary(max_size=12),
)
def test_no_message_can_break_it(content: Any, kind: str, data: bytes) -> None:
    progress = Progress(ID, "9", 2)
    fields = content if isinstance(content, dict) else {"nodes": content, "node": content, "value": content}
    for message in (content, {"type": kind, "data": {**fields, "prompt_id": ID}}):
        progress.feed(json.dumps(message))
    progress.feed(data)
    assert 0.0 <= progress.fraction <= 1.0


@pytest.mark.parametrize("name", SESSIONS)
def test_recorded_sessions(name: str) -> None:
    events = session(name)
    body, graph = events[0]["body"], events[0]["request"]["prompt"]
    seen: list[float] = []
    progress = Progress(body.get("prompt_id", ID), "3", len(graph), seen.append)
    messages = websocket(events)
    over_at = None
    for place, message in enumerate(messages):
        picture = isinstance(message, int)
        progress.feed(PNG + b"p" * (message - 8) if picture else json.dumps(message))
        if progress.over and over_at is None:
            over_at = place
    assert seen == sorted(set(seen))
    if name == "rejected":
        assert (progress.started, over_at) == (False, None)
        return
    ended_early = name in ("runtime_error", "interrupted")
    assert over_at == len(messages) - (2 if ended_early else 1)
    if not ended_early and name != "partly_rejected":  # there a node is left out
        assert progress.fraction == 1.0
    assert (progress.picture is not None) == (name == "websocket_image")
