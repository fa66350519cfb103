"""What can be wrong with a flow, told so that a program can act on it and a person can mend it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from heapq import nlargest
from itertools import islice
from reprlib import Repr
from typing import Literal

from flowsmith.errors import FlowsmithError
from flowsmith.flows.flow import Value

# The first group carries the names that ComfyUI's server gives; it has none for the second and accepts or
# crashes on those graphs; the third is about what a domain allows within a schema.
IssueType = Literal[
    "prompt_no_outputs", "missing_node_type", "required_input_missing", "bad_linked_input",
    "return_type_mismatch", "invalid_input_type", "value_smaller_than_min", "value_bigger_than_max",
    "value_not_in_list", "dependency_cycle",
    "invalid_json", "invalid_graph", "invalid_node", "ui_format", "unknown_input", "literal_on_link_input",
    "value_not_finite", "value_off_step", "bad_template", "invalid_text", "structured_value",
    "too_many_issues", "unsafe_path", "class_not_in_domain", "too_many_nodes", "value_not_in_domain",
    "text_not_in_domain", "link_not_in_domain", "noise_left", "parts_do_not_fit", "too_many_pixels",
    "too_many_pixel_steps",
]  # fmt: skip


MOST_COMPARED = 5000  # names
MOST_MATCHED = 100  # of those, letter by letter
MOST_SHOWN = 200  # characters of a name
_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = MOST_SHOWN
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 12


@dataclass(frozen=True)
class FlowIssue:
    """One thing that is wrong.

    Attributes:
        type: What kind of mistake; the server's error type where it has one.
        node: Id of the node in the graph that was given (for a `Flow`: its place, counted from 1), or None.
        input: Name of the input, or None.
        given: What was found there.
        allowed: What may stand there instead, in words.
        message: The whole story in one sentence, in printable characters.
        nearest: The allowed name or number that is closest to what was given, if one is close.
    """

    type: IssueType
    node: str | None
    input: str | None
    given: object
    allowed: str
    message: str
    nearest: Value | None = None

    def __post_init__(self) -> None:
        # Names out of a file may hold what a terminal obeys or an encoder refuses.
        for name in ("allowed", "message"):
            object.__setattr__(self, name, _printable(getattr(self, name)))


class FlowError(FlowsmithError):
    """A flow cannot be used; ``issues`` lists all that was found, ``source`` says where the flow is from."""

    def __init__(self, issues: Sequence[FlowIssue], source: str = "flow") -> None:
        self.issues = tuple(issues)
        self.source = source
        shown = "; ".join(f"[{issue.type}] {issue.message}" for issue in self.issues[:5])
        more = f"; and {len(self.issues) - 5} more" if len(self.issues) > 5 else ""
        super().__init__(f"{source} cannot be used: {shown}{more}")

    def __reduce__(self) -> tuple[type["FlowError"], tuple[tuple[FlowIssue, ...], str]]:
        """Survive the way from a worker process to its parent."""
        return type(self), (self.issues, self.source)


def whole(kind: IssueType, given: object, allowed: str, message: str) -> FlowIssue:
    """Return an issue that concerns the graph as a whole."""
    return FlowIssue(kind, None, None, given, allowed, message)


def shown(given: object) -> str:
    """Write a value that may be of any kind and size, in one line of a message."""
    try:
        if isinstance(given, str):
            given = given[:MOST_SHOWN]
        text = _SHORT.repr(given) if isinstance(given, dict | list | tuple) else repr(given)
    except (ValueError, RecursionError):  # an integer of thousands of digits; lists too deep in lists
        return f"({type(given).__name__} too large to show)"
    return text if len(text) <= 120 else f"{text[:117]}..."


def suggest(given: object, names: Iterable[object]) -> tuple[str, str | None]:
    """Return in words what is allowed, and the allowed name that was probably meant, if there is one.

    Of very many names only the first `MOST_COMPARED` are looked at.
    """
    known = {str(name)[:MOST_SHOWN]: str(name) for name in islice(names, MOST_COMPARED)}
    if not known:
        return "none is listed; give the schema the names that are installed", None
    word = given[:MOST_SHOWN] if isinstance(given, str) else shown(given)
    close = next(iter(get_close_matches(word, _likely(word, list(known)), n=1, cutoff=0.5)), None)
    hint = "" if close is None else f"did you mean {close!r}? "
    listed = f"allowed: {', '.join(islice(known, 12))}{', …' if len(known) > 12 else ''}"
    return hint + listed, None if close is None else known[close]


def _likely(word: str, names: list[str]) -> list[str]:
    """Of many names, return those with the most pairs of letters in common; to compare all takes too long."""
    if len(names) <= MOST_MATCHED:
        return names
    pairs = {word[place : place + 2] for place in range(len(word) - 1)}
    return nlargest(MOST_MATCHED, names, key=lambda name: sum(pair in name for pair in pairs))


def nearest(given: object, names: Iterable[object]) -> str:
    """Say which allowed name was probably meant, and list the allowed ones briefly."""
    return suggest(given, names)[0]


def is_text(value: object) -> bool:
    """Return whether a value is a text that can be written as UTF-8: no half of a surrogate pair in it."""
    if not isinstance(value, str):
        return False
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
