"""From imported files to the flows of a corpus: on what is installed, each once, of blocks that are common."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from flowsmith.flows.building.filters import Reason, mixed
from flowsmith.flows.building.imports import Kept
from flowsmith.flows.building.installed import Models
from flowsmith.flows.building.missing import on_installed
from flowsmith.flows.building.model_use import model_families
from flowsmith.flows.building.triggers import with_triggers
from flowsmith.flows.exchange.file_lists import with_files
from flowsmith.flows.flow import Flow
from flowsmith.flows.issues import FlowError
from flowsmith.flows.schema import Schema
from flowsmith.flows.validate import validate


@dataclass
class Selected:
    """What became of each file.

    Attributes:
        flows: By their names in the corpus.
        files: File of each.
        notes: What was changed in each.
        dropped: Why a file is not in the corpus.
    """

    flows: dict[str, Flow] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    dropped: dict[str, Reason] = field(default_factory=dict)

    def drop(self, name: str, reason: Reason) -> None:
        """Take a flow out again."""
        self.dropped[self.files.pop(name)] = reason
        del self.flows[name], self.notes[name]


def select(
    imports: Sequence[Kept], schema: Schema, models: Models, min_uses: int, family: str | None = None
) -> Selected:
    """Choose the flows of a corpus.

    Args:
        imports: What the files gave.
        schema: What is installed.
        models: Families of what is installed.
        min_uses: A node class must stand in so many flows; what has a rarer one is left out, until none has.
        family: Of all models that a flow uses; None: any.
    """
    selected, owners = Selected(), dict[str, str]()
    for kept in imports:
        found = kept.reason or _installed(kept, schema, models, family)
        if isinstance(found, Reason):
            selected.dropped[kept.file] = found
            continue
        flow, notes = found
        if flow.key in owners:
            selected.dropped[kept.file] = Reason("duplicate", f"the same flow as {owners[flow.key]}")
            continue
        owners[flow.key] = kept.file
        name = _name(kept.file, selected.flows)
        selected.flows[name], selected.files[name] = flow, kept.file
        selected.notes[name] = [*kept.notes, *notes]
    _drop_rare(selected, min_uses)
    return selected


def _installed(
    kept: Kept, schema: Schema, models: Models, family: str | None
) -> tuple[Flow, list[str]] | Reason:
    names: dict[tuple[str, str], list[str]] = {}
    for class_type, name, file in kept.files:
        names.setdefault((class_type, name), []).append(file)
    try:
        flow = kept.flow(with_files(schema, names))
    except FlowError as error:
        return Reason("invalid", error.issues[0].message)
    placed = on_installed(flow, schema, models)
    if isinstance(placed, Reason):
        return placed
    flow = with_triggers(placed[0], schema, models)
    issues = validate(flow, schema)
    if issues:
        return Reason("invalid", issues[0].message)
    used = model_families(flow, models)
    if family is not None and used != {family}:
        told = ", ".join(sorted(one or "unknown" for one in used)) or "none"
        return Reason("other_family", f"models of the family {told}")
    return mixed(flow, schema, models) or (flow, placed[1])


def _drop_rare(selected: Selected, min_uses: int) -> None:
    while True:
        uses = Counter(
            name for flow in selected.flows.values() for name in {n.class_type for n in flow.nodes}
        )
        rare = {name for name, count in uses.items() if count < min_uses}
        if not rare:
            return
        for name, flow in list(selected.flows.items()):
            found = sorted(rare & {node.class_type for node in flow.nodes})
            if found:
                told = f"{', '.join(found)}: in fewer than {min_uses} flows"
                selected.drop(name, Reason("rare_block", told))


def _name(file: str, taken: dict[str, Flow]) -> str:
    """Return a file name that any system takes, and that no other flow has."""
    stem = file.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_")[:60] or "flow"
    name, number = plain, 2
    while name.lower() in {one.lower() for one in taken}:
        name, number = f"{plain}_{number}", number + 1
    return name
