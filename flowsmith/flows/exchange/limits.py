"""How large a stranger's file may be. The largest of some 1,500 public workflows has 0.2 MB and 209 nodes."""

from flowsmith.flows.issues import FlowError, IssueType, whole

MAX_TEXT = 8 * 2**20  # bytes of JSON text, after decompression
MAX_DEPTH = 64  # levels of objects and lists
MAX_VALUES = 200_000  # objects, lists and literals of one graph
MAX_NODES = 1_000  # after subgraphs are unfolded
MAX_NESTED = 16  # subgraphs within subgraphs
MAX_CHUNKS = 10_000  # parts of a picture file


def refusal(kind: IssueType, given: object, allowed: str, message: str) -> FlowError:
    """Return the error of a file that cannot be used as a whole."""
    return FlowError([whole(kind, given, allowed, message)], "file")


def measure(content: object) -> None:
    """Walk a parsed JSON value, level by level, and stop at what is too deep or too much.

    Raises:
        FlowError: More than `MAX_DEPTH` levels or `MAX_VALUES` values.
    """
    count, level, depth = 1, [content], 0
    while level:
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
            if count + len(inner) > MAX_VALUES:
                message = f"the graph holds more than {MAX_VALUES} values; give one workflow at a time"
                raise refusal("invalid_graph", "too many values", f"up to {MAX_VALUES} values", message)
        count, level, depth = count + len(inner), inner, depth + 1
        if depth > MAX_DEPTH:
            message = f"objects and lists nest more than {MAX_DEPTH} deep; give a workflow that ComfyUI saved"
            raise refusal("invalid_graph", "deep nesting", f"up to {MAX_DEPTH} levels", message)


def check_nodes(count: int) -> None:
    """Refuse graphs of more than `MAX_NODES` nodes.

    Raises:
        FlowError: There are more.
    """
    if count > MAX_NODES:
        message = f"the graph has {count} nodes; give one of up to {MAX_NODES}"
        raise refusal("too_many_nodes", count, f"up to {MAX_NODES} nodes", message)
