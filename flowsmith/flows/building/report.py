"""The paper trail of a corpus: what was kept, dropped and why, and what it speaks of."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from flowsmith.flows.building.installed import Models
from flowsmith.flows.building.selection import Selected
from flowsmith.flows.building.statistics import vocabulary_of
from flowsmith.flows.flow import Flow

_FILTERS = {
    "no_graph": "hold no graph", "invalid": "no valid graph here", "no_output": "nothing is saved or shown",
    "node_not_installed": "need nodes that are not installed", "video": "make or read a video",
    "no_picture": "sound or solids", "control_image": "led by a control image",
    "picture_input": "start from a picture", "paid_service": "call a service outside",
    "no_sampling": "sample nothing", "no_prompt": "have no prompt", "fixed_text": "hold texts that no prompt replaces",
    "model_not_installed": "no model of that family is installed",
    "file_not_installed": "need a file that is not installed",
    "other_family": "not of the family that was asked for", "families_mixed": "a LoRA on another family",
    "duplicate": "the same flow as another file",
    "rare_block": "hold a rare node class", "no_tokens": "hold what no token can say",
}  # fmt: skip


def report_of(
    selected: Selected, corpus: Mapping[str, Flow], models: Models, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the report as plain objects.

    Args:
        selected: What became of the files.
        corpus: The flows, variants among them.
        models: Families of what is installed.
        settings: What the corpus was made with.
    """
    counts = Counter(reason.kind for reason in selected.dropped.values())
    by_family = Counter(models.files[name].family or "unknown" for name in models.installed)
    return {
        "settings": dict(settings),
        "files": len(selected.dropped) + len(selected.flows),
        "kept": len(selected.flows),
        "variants": len(corpus) - len(selected.flows),
        "flows": len(corpus),
        "dropped": {kind: counts[kind] for kind in _FILTERS if counts[kind]},
        "families": dict(by_family.most_common()),
        "contradicted": list(models.contradicted),
        "kept_files": [
            {"flow": name, "file": file, "notes": selected.notes[name]}
            for name, file in selected.files.items()
        ],
        "dropped_files": [
            {"file": file, "reason": reason.kind, "detail": reason.detail}
            for file, reason in sorted(selected.dropped.items())
        ],
        "vocabulary": vocabulary_of(list(corpus.values())) if corpus else {},
    }


def text_of(report: Mapping[str, Any]) -> str:
    """Return the report for people to read."""
    lines = [
        f"{report['files']} files: {report['kept']} kept, {report['files'] - report['kept']} dropped; "
        f"{report['variants']} variants make {report['flows']} flows"
    ]
    lines += [f"  {count:5}  {kind}: {_FILTERS[kind]}" for kind, count in report["dropped"].items()]
    lines.append(
        "models installed, by family: "
        + (", ".join(f"{family} {count}" for family, count in report["families"].items()) or "none")
    )
    lines += [f"  {told}" for told in report["contradicted"]]
    if report["vocabulary"]:
        words = report["vocabulary"]
        lines.append(
            f"{len(words['classes'])} node classes; a flow has {words['nodes']['median']:g} nodes at the median, "
            f"{words['nodes']['p90']:g} at the 90th percentile"
        )
        lines += [f"  {count:5}  {name}" for name, count in words["classes"].items()]
    if "tokens" in report:
        tokens = report["tokens"]
        lines.append(
            f"{tokens['vocabulary']} tokens in the vocabulary; a flow has {tokens['tokens_median']:g} at the "
            f"median and {tokens['tokens_max']} at most: set budget to {tokens['budget']}"
        )
    lines += ["", "kept"]
    for one in report["kept_files"]:
        lines.append(f"  {one['flow']}  ({one['file']})")
        lines += [f"      {note}" for note in one["notes"]]
    lines += ["", "dropped"]
    lines += [f"  {one['file']}  {one['reason']}: {one['detail']}" for one in report["dropped_files"]]
    # Names out of files may hold what a terminal obeys.
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines) + "\n"
