"""What a cycle learned from, for people: a table of all samples, and some of them as text."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from flowsmith.files import atomic_write
from flowsmith.flows import Codec, Flow
from flowsmith.flows.flow import Link
from flowsmith.policy.groups import Group

SCHEMA = pa.schema(
    [
        *(
            pa.field(name, pa.int32(), nullable=False)
            for name in ("cycle", "sampled_in", "attempt", "sample")
        ),
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("prompt_id", "prompt", "flow", "flow_key")
        ),
        pa.field("tokens", pa.int32(), nullable=False),
        *(pa.field(name, pa.float32()) for name in ("mean", "doubt", "reward")),
        pa.field("advantage", pa.float32(), nullable=False),
    ]
)
"""Columns of the table; the three predicted ones are null where the reward gave no number."""


@dataclass(frozen=True)
class Completions:
    """The samples of a cycle, of all processes.

    Attributes:
        groups: New ones first, then what came again.
        advantages: Groups x samples, finite; 0 for a sample without a reward.
    """

    groups: list[Group]
    advantages: Tensor

    def table(self, codec: Codec, cycle: int) -> pa.Table:
        """Return one row a sample, with the columns of `SCHEMA`.

        Args:
            codec: Reads the flows, which are written as templated API JSON.
            cycle: Number of this cycle.
        """
        flows: dict[str, str] = {}
        rows = []
        for group, merits in zip(self.groups, self.advantages.tolist(), strict=True):
            for sample, key in enumerate(group.keys):
                if key not in flows:
                    template = codec.decode(group.tokens[sample]).to_template()
                    flows[key] = json.dumps(template, ensure_ascii=False, separators=(",", ":"))
                row = {
                    "cycle": cycle,
                    "sampled_in": group.cycle,
                    "attempt": group.attempt,
                    "sample": sample,
                    "prompt_id": group.prompt_id,
                    "prompt": group.prompt,
                    "flow": flows[key],
                    "flow_key": key,
                    "tokens": len(group.tokens[sample]),
                    "mean": _number(group.mean[sample]),
                    "doubt": _number(group.doubt[sample]),
                    "reward": _number(group.rewards[sample]),
                    "advantage": merits[sample],
                }
                rows.append(row)
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def text(self, codec: Codec, prompts: int, samples: int) -> str:
        """Return Markdown of the first samples of the first prompts, best first."""
        parts = []
        for group, merits in list(zip(self.groups, self.advantages.tolist(), strict=True))[:prompts]:
            parts.append(f"**{group.prompt}**")
            order = sorted(range(len(merits)), key=lambda sample: -merits[sample])
            for sample in order[:samples]:
                worth = f"{group.mean[sample]:+.2f} ± {group.doubt[sample]:.2f}"
                told = "no number" if math.isnan(group.mean[sample]) else worth
                parts.append(
                    f"reward {told}, advantage {merits[sample]:+.2f}, {len(group.tokens[sample])} tokens"
                )
                lines = described(codec.decode(group.tokens[sample]))
                parts.append("\n".join("    " + line for line in lines))
        return "\n\n".join(parts)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table as one parquet file, whole or not at all."""
    with atomic_write(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def described(flow: Flow) -> list[str]:
    """Return a line a node: its number, its class, its inputs; ``model=1`` and ``clip=1.1`` are outputs of node 1."""
    return [
        " ".join(
            [
                f"{number}",
                node.class_type,
                *(f"{name}={_written(value)}" for name, value in node.inputs),
            ]
        )
        for number, node in enumerate(flow.nodes, 1)
    ]


def _written(value: object) -> str:
    if isinstance(value, Link):
        return f"{value.node + 1}" + (f".{value.slot}" if value.slot else "")
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
