"""What an evaluation shows: a sheet of the first prompts' pictures, and the flows that were proposed for one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flowsmith.evaluation.contact_sheet import Sample, contact_sheet
from flowsmith.evaluation.designer_summary import parsed
from flowsmith.evaluation.flow_picture import flow_figure
from flowsmith.evaluation.kept_pictures import KeptPictures
from flowsmith.files import atomic_write
from flowsmith.flows import Flow, Schema


def rows_of(table: pa.Table, prompts: Mapping[str, str]) -> pa.Table:
    """Return the rows of some prompts (id -> text)."""
    return table.filter(pc.is_in(table["prompt_id"], pa.array(prompts, pa.string())))


def write_sheets(
    folder: Path,
    table: pa.Table,
    prompts: Mapping[str, str],
    designers: Sequence[str],
    pictures: KeptPictures,
    schema: Schema,
) -> None:
    """Write ``samples.png`` and ``flows.png``; nothing where no row is of a shown prompt.

    They follow from the rows and the kept pictures alone, so a run that was stopped shows what a whole one does.

    Args:
        folder: Where they go.
        table: Scored rows.
        prompts: Id -> text of the prompts to show, in this order.
        designers: The columns.
        pictures: The pictures of these prompts.
        schema: What flows are read with.
    """
    first: dict[str, dict[str, dict[str, Any]]] = {prompt: {} for prompt in prompts}
    for row in rows_of(table, prompts).sort_by("sample_id").to_pylist():
        first[row["prompt_id"]].setdefault(row["designer"], row)
    first = {prompt: rows for prompt, rows in first.items() if rows}
    if not first:
        return
    sheet = [
        (prompts[p], {d: Sample(pictures.get(row["sample_id"]), row["score"]) for d, row in rows.items()})
        for p, rows in first.items()
    ]
    with atomic_write(folder / "samples.png") as temporary:
        contact_sheet(sheet, designers).savefig(temporary, format="png")
    prompt, rows = next(iter(first.items()))
    flows: dict[str, Flow] = {}  # equal ones once
    for designer in designers:
        flow = parsed(rows[designer]["flow"], schema) if designer in rows else None
        if flow is not None and flow not in flows.values():
            flows[f"{designer}: {prompts[prompt]}"] = flow
    if flows:
        with atomic_write(folder / "flows.png") as temporary:
            flow_figure(flows).savefig(temporary, format="png")
