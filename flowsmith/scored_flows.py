"""Scored flows: one parquet row per rendered sample, in shards that are written whole or not at all.

The file is the contract between collecting and training. Rows of different renderers or weights would teach
a surrogate differences that no flow made, so a table that mixes them is refused at reading.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flowsmith.candidates import Candidate
from flowsmith.errors import FlowsmithError
from flowsmith.files import atomic_write
from flowsmith.prompts import Split

JUDGE_PREFIX = "judge_"
"""Every judge has a float32 column of this prefix and its name."""

SCHEMA = pa.schema(
    [
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("sample_id", "prompt_id", "prompt", "split")
        ),
        *(pa.field(name, pa.string(), nullable=False) for name in ("task", "designer", "flow", "flow_key")),
        pa.field("base_flow", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("score", pa.float32()),
        pa.field("seconds", pa.float32()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        *(pa.field(name, pa.string(), nullable=False) for name in ("renderer", "weights")),
    ]
)
"""The columns that every file has; judges follow them."""


class ScoredFlowsError(FlowsmithError):
    """A file of scored flows cannot be read or written."""


class MixedVersionsError(ScoredFlowsError):
    """Rows of different renderer versions or weights stand side by side."""


@dataclass(frozen=True)
class ScoredFlow:
    """One rendered sample and what the judges said of it.

    Attributes:
        sample_id: Unique name; merging keeps one row of each.
        prompt_id: Name of the prompt; the unit of every split and bootstrap.
        prompt: What the user typed.
        split: Which stage may see the row.
        task: GenEval's task, or "".
        designer: Who proposed the flow.
        flow: Templated API JSON, compact, without seed.
        flow_key: Hash of the canonical flow.
        base_flow: Name of the hand-written flow that it descends from, or "".
        seed: Seed of the first sampling node.
        renderer: Version of the executor.
        weights: Hash of all weights that the executor may load and that judges have.
        judges: Finite value per judge; empty for a failed sample.
        score: Standardised weighted sum of judges; None for a failed sample or before it is fitted.
        seconds: Time of rendering.
        status: Whether there is an image.
        error: Why there is none.
    """

    sample_id: str
    prompt_id: str
    prompt: str
    split: Split
    task: str
    designer: str
    flow: str
    flow_key: str
    base_flow: str
    seed: int
    renderer: str
    weights: str
    judges: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None
    seconds: float | None = None
    status: Literal["ok", "failed"] = "ok"
    error: str | None = None

    @classmethod
    def from_candidate(cls, candidate: Candidate, *, renderer: str, weights: str) -> Self:
        """Return the row of a candidate that was rendered (or failed) and judged."""
        failed = candidate.error is not None
        return cls(
            sample_id=candidate.sample_id,
            prompt_id=candidate.prompt.id,
            prompt=candidate.prompt.text,
            split=candidate.prompt.split,
            task=candidate.prompt.task,
            designer=candidate.designer,
            flow=json.dumps(candidate.flow.to_template(), ensure_ascii=False, separators=(",", ":")),
            flow_key=candidate.flow.key,
            base_flow=candidate.base_flow,
            seed=candidate.seed,
            renderer=renderer,
            weights=weights,
            judges={} if failed else dict(candidate.judges),
            score=None if failed else candidate.score,
            seconds=candidate.seconds,
            status="failed" if failed else "ok",
            error=candidate.error,
        )

    def columns(self) -> dict[str, Any]:
        """Return the row under its column names.

        Raises:
            ScoredFlowsError: A judge or the score is not finite, or a row that says it is ok has an error.
        """
        for name, value in [
            *self.judges.items(),
            *([("score", self.score)] if self.score is not None else []),
        ]:
            if not math.isfinite(value):
                raise ScoredFlowsError(
                    f"sample_id={self.sample_id!r}: {name}={value}; a sample without a finite value has "
                    "status='failed' and says why in error"
                )
        if (self.status == "ok") != (self.error is None):
            raise ScoredFlowsError(
                f"sample_id={self.sample_id!r}: status={self.status!r} with error={self.error!r}; "
                "give an error to every failed row and to no other"
            )
        fixed = {name: getattr(self, name) for name in SCHEMA.names}
        return fixed | {JUDGE_PREFIX + name: value for name, value in self.judges.items()}


def to_table(rows: Iterable[ScoredFlow]) -> pa.Table:
    """Return rows as a table: the columns of `SCHEMA`, then one float32 column per judge by name."""
    records = [row.columns() for row in rows]
    judges = sorted({name for record in records for name in record if name.startswith(JUDGE_PREFIX)})
    schema = pa.schema([*SCHEMA, *(pa.field(name, pa.float32()) for name in judges)])
    return pa.Table.from_pylist(records, schema=schema)


def write_scored_flows(path: Path | str, table: pa.Table) -> None:
    """Write a table as one zstd parquet file with page checksums, whole or not at all.

    Repeated texts (flows, prompts) are dictionary encoded: 6,000 rows of 200 flows take well under 4 MB.
    """
    with atomic_write(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            compression_level=9,
            write_page_checksum=True,
            write_statistics=False,  # no reader filters by them, and a damaged one would go unnoticed
        )


def read_scored_flows(path: Path | str, split: Split | None = None) -> pa.Table:
    """Read a file, or all ``*.parquet`` of a folder merged by sample id.

    Args:
        path: A parquet file or a folder of shards.
        split: Keep the rows of one split.

    Returns:
        A table with the columns of `SCHEMA` and a ``judge_*`` column per judge (null where a sample failed).

    Raises:
        ScoredFlowsError: Nothing is there, or a file is corrupt or of other columns; the message names it.
        MixedVersionsError: The rows come from more than one renderer version or set of weights.
    """
    path = Path(path)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise ScoredFlowsError(
            f"scored flows={path}: no parquet file is there; run `evaluate.py --config collect.yaml`"
        )
    table = merge_scored_flows([_read_file(file) for file in files], source=str(path))
    return table if split is None else table.filter(pc.equal(table["split"], split))


def merge_scored_flows(tables: Sequence[pa.Table], source: str = "tables") -> pa.Table:
    """Join tables to one row per sample id: a rendered sample beats a failed one, then the earlier table wins.

    Raises:
        MixedVersionsError: The rows come from more than one renderer version or set of weights.
    """
    table = pa.concat_tables(tables, promote_options="default")
    for column in ("renderer", "weights"):
        versions = sorted(pc.unique(table[column]).to_pylist())
        if len(versions) > 1:
            raise MixedVersionsError(
                f"{source}: rows of {column} {', '.join(versions)} stand side by side, but their scores cannot be "
                "compared; keep the files of one version, or collect again into an empty folder"
            )
    chosen: dict[str, int] = {}
    status = table["status"].to_pylist()
    for index, sample_id in enumerate(table["sample_id"].to_pylist()):
        first = chosen.setdefault(sample_id, index)
        if status[first] == "failed" and status[index] == "ok":
            chosen[sample_id] = index
    return table if len(chosen) == len(table) else table.take(list(chosen.values()))


def judge_values(table: pa.Table) -> dict[str, Any]:
    """Return each judge's values of the rendered rows: name (without prefix) -> float64 array [rows ok]."""
    ok = table.filter(pc.equal(table["status"], "ok"))
    names = [name for name in ok.column_names if name.startswith(JUDGE_PREFIX)]
    return {name.removeprefix(JUDGE_PREFIX): ok[name].to_numpy().astype("float64") for name in names}


def replace_scores(table: pa.Table, scores: Sequence[float]) -> pa.Table:
    """Return the table with new scores for its rendered rows, in their order; failed rows have none."""
    values: Iterator[float] = iter(scores)
    column = [float(next(values)) if status == "ok" else None for status in table["status"].to_pylist()]
    return table.set_column(
        table.column_names.index("score"), SCHEMA.field("score"), pa.array(column, pa.float32())
    )


def _read_file(path: Path) -> pa.Table:
    try:
        # A file of its own: the reader would otherwise treat a name like "split=a.parquet" as a partition.
        with path.open("rb") as stream:
            table = pq.read_table(stream, page_checksum_verification=True)
            names = table.column_names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ScoredFlowsError(
            f"{path}: no readable parquet file ({error}); delete it and collect again"
        ) from error
    for column in SCHEMA:
        if column.name not in names or table.schema.field(column.name).type != column.type:
            raise ScoredFlowsError(
                f"{path}: column {column.name} of type {column.type} is missing; it is no file of scored flows, "
                "or of an older layout: collect again"
            )
    return table


class ShardWriter:
    """Append rows to a folder in numbered shards; a restarted run continues after what it finds there.

    Used as a context manager it also writes what is pending when the block ends by an error or Ctrl-C.

    Args:
        folder: Where shards go; made if missing.
        name: First part of file names; give every process its own.
        rows: Rows per shard.

    Attributes:
        finished: Ids of the samples that were already rendered when the writer was opened.
    """

    def __init__(self, folder: Path | str, name: str = "shard", rows: int = 512) -> None:
        self._folder = Path(folder)
        self._name = name
        self._rows = rows
        self._pending: list[ScoredFlow] = []
        self.finished: frozenset[str] = frozenset()
        if any(self._folder.glob("*.parquet")):
            table = read_scored_flows(self._folder)
            self.finished = frozenset(table.filter(pc.equal(table["status"], "ok"))["sample_id"].to_pylist())

    def add(self, rows: Iterable[ScoredFlow]) -> None:
        """Take rows; write a shard whenever enough are pending."""
        self._pending.extend(rows)
        while len(self._pending) >= self._rows:
            self._write(self._rows)

    def flush(self) -> None:
        """Write what is pending."""
        if self._pending:
            self._write(len(self._pending))

    def _write(self, count: int) -> None:
        table = to_table(self._pending[:count])
        taken = [int(file.stem.rpartition("-")[2]) for file in self._folder.glob(f"{self._name}-*.parquet")]
        write_scored_flows(self._folder / f"{self._name}-{max(taken, default=-1) + 1:05d}.parquet", table)
        del self._pending[:count]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
