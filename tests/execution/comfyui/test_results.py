"""Refusals, endings, pictures and file names: what a server says is read, never trusted."""

from io import BytesIO
from typing import Any

import pytest
import torch
from PIL import Image

from flowsmith.execution.comfyui.delivery import file_query, prepare
from flowsmith.execution.comfyui.errors import RenderFailure, ServerFault
from flowsmith.execution.comfyui.results import MAX_PIXELS, check_outcome, decode, refusal
from tests.execution.comfyui.recordings import session
from tests.flows.records import recorded

ID = "76b7fa3b-8cc9-4309-888d-9d6e96a3b2f8"
GRAPH: dict[str, Any] = {
    "1": {"class_type": "VAEDecode", "inputs": {"samples": ["0", 0], "vae": ["0", 2]}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    "3": {"class_type": "ImageScaleBy", "inputs": {"image": ["2", 0], "scale_by": 2.0}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "../../x"}},
}


def ending(*messages: tuple[str, dict[str, Any]], status: str = "error") -> dict[str, Any]:
    return {"status": {"status_str": status, "messages": [list(message) for message in messages]}}


def file(name: object, folder: object = "flowsmith", kind: object = "output") -> dict[str, Any]:
    image = {"filename": name, "subfolder": folder, "type": kind}
    return {"outputs": {"4": {"images": [image]}}}


def test_pictures_for_the_websocket() -> None:
    graph, node = prepare(GRAPH, "websocket", ID)
    assert node == "2"
    assert graph == {
        "1": GRAPH["1"],
        "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
        # What went through a node that saves now comes from before it.
        "3": {"class_type": "ImageScaleBy", "inputs": {"image": ["1", 0], "scale_by": 2.0}},
        "4": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["3", 0]}},
    }


def test_files_are_named_by_the_prompt_and_the_flows_own_prefix_is_dropped() -> None:
    graph, _ = prepare(GRAPH, "view", ID)
    for node, source in (("2", ["1", 0]), ("4", ["3", 0])):
        assert graph[node] == {
            "class_type": "SaveImage",
            "inputs": {"images": source, "filename_prefix": f"flowsmith/{ID}"},
        }
    assert GRAPH["4"]["inputs"]["filename_prefix"] == "../../x"  # the given graph is left alone


def test_a_graph_that_saves_nothing_is_refused() -> None:
    with pytest.raises(RenderFailure, match="saves no picture; end it with SaveImage"):
        prepare({"1": GRAPH["1"]}, "view", ID)


def test_the_prompts_own_file_is_fetched() -> None:
    assert file_query(file(f"{ID}_00001_.png"), "4", ID) == {
        "filename": f"{ID}_00001_.png",
        "subfolder": "flowsmith",
        "type": "output",
    }


@pytest.mark.parametrize(
    "entry",
    [
        file("old_00001_.png"),
        file("../../../etc/passwd"),
        file("/etc/passwd"),
        file(f"../{ID}_00001_.png"),
        file(f"{ID}_00001_.png/../../x"),
        file(f"{ID}_00001_.png\n"),
        file(f"{ID}_00001_.svg"),
        file(f"{ID}_00001_.png", folder="../models"),
        file(f"{ID}_00001_.png", kind="input"),
        file(7),
        file(None, None, None),
        {},
        {"outputs": []},
        {"outputs": {"4": {"images": []}}},
        {"outputs": {"4": {"images": [3]}}},
        {"outputs": {"5": file(f"{ID}_00001_.png")["outputs"]["4"]}},
    ],
)
def test_no_other_file_is_ever_asked_for(entry: dict[str, Any]) -> None:
    with pytest.raises(ServerFault, match=r"holds no picture|did not make"):
        file_query(entry, "4", ID)


def test_seconds_are_the_servers_own() -> None:
    start, end = ("execution_start", {"timestamp": 1000}), ("execution_success", {"timestamp": 3500})
    assert check_outcome(ending(start, end, status="success")) == 2.5
    assert check_outcome(ending(end, status="success")) == 3.5
    assert check_outcome(ending(("execution_start", {"timestamp": "x"}), status="success")) == 0


def test_interrupts_and_errors_are_told_apart() -> None:
    with pytest.raises(ServerFault, match="interrupted"):
        check_outcome(ending(("execution_interrupted", {"node_id": "3"})))
    error = {
        "node_id": "2",
        "node_type": "KSampler",
        "exception_message": "no\n such",
        "exception_type": "KeyError",
    }
    with pytest.raises(RenderFailure, match=r"^node 2 \(KSampler\) KeyError: no such$"):
        check_outcome(ending(("execution_error", error)))
    # Another server may have more memory, or less in it.
    with pytest.raises(ServerFault, match="OutOfMemory"):
        check_outcome(ending(("execution_error", {**error, "exception_type": "torch.OutOfMemoryError"})))


@pytest.mark.parametrize(
    "entry", [{}, {"status": None}, {"status": {"messages": 3}}, ending(), ending(status="x")]
)
def test_an_ending_that_says_nothing_is_no_success(entry: dict[str, Any]) -> None:
    with pytest.raises(ServerFault, match="not success"):
        check_outcome(entry)


def test_messages_are_cut() -> None:
    error = {"exception_message": "x" * 10**6, "exception_type": "y" * 10**6, "node_type": ["z" * 10**6]}
    with pytest.raises(RenderFailure) as raised:
        check_outcome(ending(("execution_error", error)))
    assert len(str(raised.value)) < 600
    assert len(str(refusal({"error": {"message": "x" * 10**6}, "node_errors": {"y" * 10**6: None}}))) < 600


def test_messages_carry_nothing_that_a_terminal_or_a_table_trips_over() -> None:
    error = {"exception_type": "E\x1b[31m", "exception_message": "a\ud800\0\n  b", "node_type": "K\u202e"}
    with pytest.raises(RenderFailure) as raised:
        check_outcome(ending(("execution_error", error)))
    assert str(raised.value).isprintable()
    assert str(raised.value).encode()


def test_recorded_endings() -> None:
    for name, error in (("runtime_error", RenderFailure), ("interrupted", ServerFault)):
        (entry,) = next(e["body"] for e in session(name) if e["kind"] == "GET /history/{prompt_id}").values()
        with pytest.raises(error, match="movedim" if name == "runtime_error" else "interrupted"):
            check_outcome(entry)
    (entry,) = session("success_text_to_image")[-2]["body"].values()
    assert check_outcome(entry) == pytest.approx(1.434)  # its own time stamps: 1795420326755 - …5321


def test_recorded_refusals() -> None:
    """What the server takes is no refusal, and partial success is one."""
    for name, case in recorded("server_errors.json").items():
        if not isinstance(case["body"], dict):
            continue
        why = refusal(case["body"])
        whole = case["status"] == 200 and not case["body"]["node_errors"]
        assert (why is None) == whole, name
    assert "value_smaller_than_min" in str(refusal(session("rejected")[0]["body"]))
    assert "node 9 (SaveImage) [exception_during_validation]" in str(
        refusal(session("partly_rejected")[0]["body"])
    )


@pytest.mark.parametrize(
    "answer", [{"node_errors": [1]}, {"error": "no"}, {"node_errors": {"1": {"errors": {}}}}]
)
def test_odd_refusals_are_refusals(answer: dict[str, Any]) -> None:
    assert refusal(answer) is not None


def png(mode: str, size: tuple[int, int], colour: Any) -> bytes:
    written = BytesIO()
    Image.new(mode, size, colour).save(written, format="PNG")
    return written.getvalue()


def test_pixels_are_exact() -> None:
    picture = decode(png("RGB", (5, 3), (1, 128, 255)))
    assert picture.dtype == torch.uint8
    assert picture.shape == (3, 3, 5)
    assert picture[:, 2, 4].tolist() == [1, 128, 255]
    assert decode(png("L", (2, 2), 7)).tolist() == [[[7, 7], [7, 7]]] * 3


def test_what_is_no_picture_or_too_large_is_refused() -> None:
    small = png("RGB", (64, 64), (1, 2, 3))
    gif = BytesIO()
    Image.new("P", (2, 2)).save(gif, format="GIF")
    side = int(MAX_PIXELS**0.5) + 1
    for content in (b"", b"not a png", small[:-30], gif.getvalue(), png("1", (side, side), 0)):
        with pytest.raises(ServerFault, match="cannot be read"):
            decode(content)
