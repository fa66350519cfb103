"""A schema from a running server, and all the ways in which there may be none."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flowsmith.flows import Schema, SchemaError
from flowsmith.flows.live_schema import ServerUnavailable, fetch_object_info

DUMP = {"SaveImage": {"input": {"required": {"images": ["IMAGE"]}}, "output_node": True}}
Answer = Callable[[BaseHTTPRequestHandler], None]


def body(handler: BaseHTTPRequestHandler, content: bytes, length: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) if length is None else length))
    handler.end_headers()
    handler.wfile.write(content)


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.05)


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Start servers that answer /object_info in the given way; return their addresses."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path != "/api/object_info" and self.path != "/object_info":
                    self.send_error(404)
                    return
                try:
                    answer(self)
                except OSError:  # who asked has gone
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("path", ["", "/", "/api", "/api/", "/object_info"])
def test_a_server_says_what_is_installed(path: str, serve: Callable[[Answer], str]) -> None:
    url = serve(lambda handler: body(handler, json.dumps(DUMP).encode())) + path
    schema = Schema.from_server(url)
    assert schema == Schema.from_object_info(DUMP) == Schema.load(url)


def test_one_odd_custom_node_does_not_hide_the_others(serve: Callable[[Answer], str]) -> None:
    url = serve(lambda handler: body(handler, json.dumps({**DUMP, "Odd": 3}).encode()))
    schema = Schema.from_server(url)
    assert (set(schema.nodes), set(schema.unreadable)) == ({"SaveImage"}, {"Odd"})


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda handler: handler.send_error(500), "answers 500"),
        (lambda handler: handler.send_error(404), "answers 404"),
        (lambda handler: body(handler, b'{"A"', 50), "connection broke|cannot be read"),
        (lambda handler: handler.wfile.write(b"nonsense\r\n\r\n"), "cannot be read"),
        (lambda handler: time.sleep(3), "no whole answer within 0.3 s"),
        (drip, "no whole answer within 0.3 s"),
    ],
    ids=["500", "404", "breaks off", "no HTTP", "stalls", "drips"],
)
def test_a_server_that_does_not_answer_is_told(
    answer: Answer, says: str, serve: Callable[[Answer], str]
) -> None:
    start = time.monotonic()
    with pytest.raises(ServerUnavailable, match=says):
        Schema.from_server(serve(answer), timeout=0.3)
    assert time.monotonic() - start < 3


def test_an_answer_without_end_is_cut_off(serve: Callable[[Answer], str]) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b" " * 10_000)

    with pytest.raises(ServerUnavailable, match="more than 100000 bytes"):
        fetch_object_info(serve(endless), timeout=30, most_bytes=100_000)


def test_nobody_there() -> None:
    with socket.socket() as bound:  # bound, but not listening: the port is certainly closed
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(ServerUnavailable, match="start ComfyUI there"):
            Schema.from_server(f"http://127.0.0.1:{bound.getsockname()[1]}")


@pytest.mark.parametrize("content", [b"<html></html>", b"[]", b'{"A": {}, "A": {}}', b'{"error": "login"}'])
def test_what_is_no_comfyui_is_told(content: bytes, serve: Callable[[Answer], str]) -> None:
    with pytest.raises(SchemaError, match="/object_info"):
        Schema.from_server(serve(lambda handler: body(handler, content)))


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8188", "ftp://host", "file:///etc/passwd", "http://", "http://host:port", "http://[::1",
     "http://user:secret@host", "http://host/?token=secret"],
)  # fmt: skip
def test_what_is_no_address_is_refused_and_keeps_its_secrets(url: str) -> None:
    with pytest.raises(SchemaError, match="give one such as http://127") as caught:
        Schema.from_server(url)
    assert "secret" not in str(caught.value)
