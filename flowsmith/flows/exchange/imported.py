"""What came out of a file: a flow, and a report of what it needs and what was changed or left out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from flowsmith.flows.flow import Flow
from flowsmith.flows.issues import FlowError, FlowIssue, shown
from flowsmith.flows.schema import Schema


@dataclass(frozen=True)
class MissingNode:
    """A node class that the schema does not have.

    Attributes:
        class_type: Its name.
        nodes: Ids of its nodes in the file (of unfolded subgraphs: after unfolding).
        pack: The custom node pack that holds it, as the file says: its registry id or its repository.
        needed: Whether a known output depends on it; a flow can do without the others.
    """

    class_type: str
    nodes: tuple[str, ...]
    pack: str | None
    needed: bool


@dataclass(frozen=True)
class MissingFile:
    """A model file that a node names and that the schema does not list.

    Attributes:
        class_type: Class of the node.
        input: Its input.
        name: The file.
    """

    class_type: str
    input: str
    name: str


@dataclass(frozen=True)
class Imported:
    """What a file gives.

    Attributes:
        source: Name of the file.
        form: Which of ComfyUI's two formats was read.
        flow: The flow, with ``{prompt}`` in place; None if there is an issue.
        schema: The schema of the import, its lists extended by the files in `missing_files`: the flow is valid
            under it. Under the given one it is valid if no file is missing.
        prompt: The text that became ``{prompt}``; None if all positive texts are empty.
        literals: Positive texts that stay as they are, whatever the prompt.
        missing_nodes: Classes that the schema does not have.
        missing_files: Files that it does not list.
        issues: Why there is no flow.
        notes: What was changed or could not be converted, in words.
    """

    source: str
    form: Literal["api", "ui"]
    flow: Flow | None
    schema: Schema
    prompt: str | None = None
    literals: tuple[str, ...] = ()
    missing_nodes: tuple[MissingNode, ...] = ()
    missing_files: tuple[MissingFile, ...] = ()
    issues: tuple[FlowIssue, ...] = ()
    notes: tuple[str, ...] = ()

    def require(self) -> Flow:
        """Return the flow.

        Raises:
            FlowError: There is none; it lists the issues.
        """
        if self.flow is None:
            raise FlowError(self.issues, self.source)
        return self.flow

    def report(self) -> str:
        """Say in lines what came out; names out of the file are quoted, so that none can pose as another line."""
        lines = [f"{self.source}: {'a flow' if self.flow else 'no flow'} ({self.form} format)"]
        for node in self.missing_nodes:
            pack = f" of the pack {shown(node.pack)}" if node.pack else ""
            use = (
                "an output depends on it"
                if node.needed
                else "no known output depends on it, so it was left out"
            )
            lines.append(f"  node class {shown(node.class_type)}{pack} is not installed; {use}")
        for file in self.missing_files:
            lines.append(f"  file {shown(file.name)} is not installed ({file.class_type}.{file.input})")
        lines += [f"  [{issue.type}] {issue.message}" for issue in self.issues]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def group_missing(
    unknown: Iterable[tuple[str, str]], needed: set[str], packs: dict[str, str]
) -> tuple[MissingNode, ...]:
    """Group unknown nodes by class.

    Args:
        unknown: Id and class of each.
        needed: Ids of nodes that an output depends on.
        packs: Pack by class, where the file says so.
    """
    ids: dict[str, list[str]] = {}
    for node_id, class_type in unknown:
        ids.setdefault(class_type, []).append(node_id)
    return tuple(
        MissingNode(name, tuple(nodes), packs.get(name), bool(needed.intersection(nodes)))
        for name, nodes in ids.items()
    )
