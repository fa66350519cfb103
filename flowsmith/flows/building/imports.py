"""Imports that are kept: what a file gave is read again only if the file, the schema or the reading changed."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from flowsmith.errors import FlowsmithError
from flowsmith.files import atomic_write
from flowsmith.flows.building.filters import Reason, unfit
from flowsmith.flows.exchange import Imported, import_file
from flowsmith.flows.flow import Flow, Link, Node, Value
from flowsmith.flows.issues import FlowError
from flowsmith.flows.schema import Schema

_ENDINGS = (".json", ".png", ".webp")
_VERSION = 1  # raised when what is kept of an import changes
_BATCH, _PREFIX = "batch_size", "filename_prefix"  # of these, a flow of a corpus has one value


class SourceError(FlowsmithError):
    """A folder of workflows is none."""


@dataclass(frozen=True)
class Kept:
    """What a file gave.

    Attributes:
        file: Its path within the folder.
        template: The flow in templated API format, as JSON text; None if there is none.
        files: (class, input, name) of the model files that are not installed.
        reason: Why it is no flow or no text-to-image flow, or None.
        notes: What was changed.
    """

    file: str
    template: str | None
    files: tuple[tuple[str, str, str], ...] = ()
    reason: Reason | None = None
    notes: tuple[str, ...] = ()

    def flow(self, schema: Schema) -> Flow:
        """Return the flow, under a schema that lists its files."""
        return Flow.from_template(self.template or "{}", schema)


def workflow_files(folder: Path | str) -> list[Path]:
    """Return the workflow files below a folder, in the order of names.

    Raises:
        SourceError: There are none.
    """
    root = Path(folder)
    found = sorted(
        path for path in root.rglob("*") if path.name.lower().endswith(_ENDINGS) and path.is_file()
    )
    if not found:
        raise SourceError(f"from={folder}: holds no {', '.join(_ENDINGS)} file; name a folder of workflows")
    return found


def import_all(
    folder: Path | str, schema: Schema, work: Path, watch: Callable[[Iterable[Path]], Iterable[Path]] = iter
) -> list[Kept]:
    """Import every workflow file of a folder; what was imported before is not read again.

    Args:
        folder: Of workflows.
        schema: What is installed.
        work: Folder for what is kept of each import, one file each.
        watch: Wraps the files, to show progress.
    """
    root, mark = Path(folder), _mark(schema)
    kept = []
    for path in watch(workflow_files(root)):
        name = path.relative_to(root).as_posix()
        try:
            content = path.read_bytes()
        except OSError as error:
            kept.append(Kept(name, None, reason=Reason("no_graph", f"cannot be read ({error.strerror})")))
            continue
        place = work / f"{hashlib.sha256(mark + content).hexdigest()[:24]}.json"
        known = _read(place)
        if known is None:
            known = _imported(path, name, schema)
            with atomic_write(place) as temporary:
                temporary.write_text(json.dumps(asdict(known)), encoding="utf-8")
        kept.append(replace(known, file=name))
    return kept


def normalised(flow: Flow, schema: Schema) -> tuple[Flow, bool]:
    """Return the flow with batches of one picture and one file name, and whether there was a larger batch."""
    nodes, batch = [], False
    for node in flow.nodes:
        output = schema.node(node.class_type).is_output
        inputs: list[tuple[str, Value | Link]] = []
        for name, value in node.inputs:
            if name == _BATCH and isinstance(value, int) and value != 1:
                value, batch = 1, True
            elif name == _PREFIX and output and isinstance(value, str):
                value = "flowsmith"
            inputs.append((name, value))
        nodes.append(Node(node.class_type, tuple(inputs)))
    return Flow.from_nodes(nodes, schema), batch


def _imported(path: Path, name: str, schema: Schema) -> Kept:
    try:
        found = import_file(path, schema)
    except FlowError as error:
        return Kept(name, None, reason=Reason("no_graph", error.issues[0].message))
    if found.flow is None:
        return Kept(name, None, reason=_why(found), notes=found.notes)
    reason = unfit(found.flow, found.prompt, found.literals, found.schema)
    if reason is not None:
        return Kept(name, None, reason=reason, notes=found.notes)
    flow, batch = normalised(found.flow, found.schema)
    notes = (*found.notes, *(["a batch of several pictures became one"] if batch else []))
    files = tuple((file.class_type, file.input, file.name) for file in found.missing_files)
    return Kept(name, json.dumps(flow.to_template()), files, None, notes)


def _why(found: Imported) -> Reason:
    needed = [node.class_type for node in found.missing_nodes if node.needed]
    if needed:
        return Reason("node_not_installed", ", ".join(sorted(needed)))
    issue = found.issues[0]
    return Reason("no_output" if issue.type == "prompt_no_outputs" else "invalid", issue.message)


def _mark(schema: Schema) -> bytes:
    text = json.dumps([_VERSION, schema.to_object_info()], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _read(place: Path) -> Kept | None:
    """Return what was kept; None if it is not there or not whole."""
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        reason = content["reason"] and Reason(**content["reason"])
        files = tuple((one, two, three) for one, two, three in content["files"])
        return Kept(content["file"], content["template"], files, reason, tuple(content["notes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
