"""Workflow files of a folder as flows, and the validator on them: what `benchmarks/flows.py` counts first."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from flowsmith.flows import Flow, FlowError, FlowIssue, Schema, validate
from flowsmith.flows.exchange import import_file

Measured = dict[str, Any]
_SUFFIXES = (".json", ".png", ".webp")
_LIST = "manifest.json"  # of a folder's files; no workflow itself


@dataclass(frozen=True)
class Flows:
    """Flows that were imported: by key, the flow and the text that is its prompt."""

    flows: dict[str, Flow]
    prompts: dict[str, str]

    def __len__(self) -> int:
        return len(self.flows)


def import_folder(folder: Path, schema: Schema) -> tuple[Flows, Measured]:
    """Import every file: a flow, a report, or a crash, which is any error that is not ours."""
    flows, prompts = dict[str, Flow](), dict[str, str]()
    counts = {"files": 0, "imported": 0, "reported": 0, "crashed": 0}
    paths = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in _SUFFIXES)
    for path in paths:
        if path.name == _LIST:
            continue
        counts["files"] += 1
        try:
            found = import_file(path, schema)
        except FlowError:
            counts["reported"] += 1
            continue
        except Exception as error:  # a crash is what is counted here
            print(f"{path}: {error!r}")
            counts["crashed"] += 1
            continue
        counts["imported" if found.flow else "reported"] += 1
        if found.flow:
            flows[found.flow.key], prompts[found.flow.key] = found.flow, found.prompt or ""
    return Flows(flows, prompts), counts


def validator_time(found: Flows, schema: Schema) -> Measured:
    """Return the median microseconds that the validator takes for a flow."""
    times = []
    for flow in found.flows.values():
        graph = flow.to_template()
        start = time.thread_time()
        validate(graph, schema, template=True)
        times.append((time.thread_time() - start) * 1e6)
    return {"validator_us": median(times)}


def agreement(path: Path, schema: Schema) -> Measured:
    """Compare the validator with recorded answers: whatever the server refuses, it refuses, for the same reasons.

    A graph that a server queues may be refused here: it would fail or mislead later. Where a server only names an
    exception, any issue of that node will do.
    """
    if not path.is_file():
        return {}
    records = json.loads(path.read_text("utf-8"))
    agree = sum(_agrees(record, validate(record["prompt"], schema)) for record in records.values())
    return {"recorded_agree": agree, "recorded_total": len(records)}


def _agrees(record: dict[str, Any], issues: Sequence[FlowIssue]) -> bool:
    body = record["body"] if isinstance(record["body"], dict) else {}
    refused, nodes = record["status"] != 200, body.get("node_errors") or {}
    if not refused and not nodes:
        return True
    said = {(issue.node, issue.type) for issue in issues}
    for node, found in nodes.items():
        for error in found["errors"]:
            raised = error["type"].startswith("exception")
            if not (any(place == node for place, _ in said) if raised else (node, error["type"]) in said):
                return False
    if refused and not nodes and body.get("error"):
        return body["error"]["type"] in {issue.type for issue in issues}
    return bool(issues)
