from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flowsmith.scored_flows as module
from flowsmith.candidates import Candidate
from flowsmith.flows import Flow
from flowsmith.prompts import Prompt
from flowsmith.scored_flows import (
    MixedVersionsError,
    ScoredFlow,
    ScoredFlowsError,
    ShardWriter,
    judge_values,
    merge_scored_flows,
    read_scored_flows,
    replace_scores,
    to_table,
    write_scored_flows,
)
from tests.flows_for_tests import codec, some_flows
from tests.rewards.world import scored_flows

ROW = ScoredFlow(
    sample_id="s0",
    prompt_id="p0",
    prompt='a "red" star, {brace}',
    split="train",
    task="colors",
    designer="corpus",
    flow='{"1":{}}',
    flow_key="k0",
    base_flow="default",
    seed=2**62,
    renderer="1",
    weights="w",
    judges={"clip": 21.5, "aesthetic": 5.25},
    score=0.5,
    seconds=0.25,
)
FAILED = replace(ROW, sample_id="s1", judges={}, score=None, status="failed", error="out of memory")


def write(path: Path, *rows: ScoredFlow) -> Path:
    write_scored_flows(path, to_table(rows))
    return path


def test_round_trip(tmp_path: Path) -> None:
    table = read_scored_flows(write(tmp_path / "rows.parquet", ROW, FAILED))
    first, second = table.to_pylist()
    assert first == {
        **{name: getattr(ROW, name) for name in module.SCHEMA.names},
        "judge_clip": 21.5,
        "judge_aesthetic": 5.25,
    }
    assert (second["judge_clip"], second["score"], second["error"]) == (None, None, "out of memory")
    assert table.schema.field("judge_clip").type == pa.float32()
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]


def test_from_candidate_gives_back_the_flow() -> None:
    flow = some_flows(1)[0]
    prompt = Prompt("p", "a star", "validation", "counting")
    candidate = Candidate("id", prompt, flow, "policy", 7, judges={"clip": 1.0}, score=2.0, base_flow="b")
    row = ScoredFlow.from_candidate(candidate, renderer="r", weights="w")
    assert Flow.from_template(row.flow, codec().schema) == flow
    assert (row.prompt_id, row.prompt, row.split, row.task) == ("p", "a star", "validation", "counting")
    assert (row.flow_key, row.base_flow, row.seed, row.status, row.judges) == (
        flow.key,
        "b",
        7,
        "ok",
        {"clip": 1.0},
    )
    candidate.error = "broken"
    failed = ScoredFlow.from_candidate(candidate, renderer="r", weights="w")
    assert (failed.status, failed.error, failed.judges, failed.score) == ("failed", "broken", {}, None)


def test_six_thousand_rows_stay_small(tmp_path: Path) -> None:
    rows = scored_flows(prompts=1000, flows_per_prompt=6)
    rows = [replace(r, judges={f"j{i}": r.judges["taste"] * i for i in range(1, 6)}) for r in rows]
    path = write(tmp_path / "rows.parquet", *rows)
    assert len(read_scored_flows(path)) == 6000
    assert path.stat().st_size < 1_000_000


def test_split(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", ROW, replace(ROW, sample_id="v", split="validation"))
    assert read_scored_flows(path, "validation")["sample_id"].to_pylist() == ["v"]
    assert len(read_scored_flows(path, "test")) == 0


def test_shards_of_different_judges_are_joined_by_sample_id(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", FAILED, ROW)
    again = replace(ROW, score=9.0)  # the earlier of two rendered rows stays
    mended = replace(FAILED, judges={"preference": 1.0}, score=1.0, status="ok", error=None)
    write(tmp_path / "b.parquet", again, mended)
    rows = {row["sample_id"]: row for row in read_scored_flows(tmp_path).to_pylist()}
    assert len(rows) == 2
    assert rows["s0"]["score"] == 0.5
    assert (rows["s1"]["status"], rows["s1"]["judge_preference"]) == ("ok", 1.0)
    assert rows["s0"]["judge_preference"] is None


def test_a_rendered_row_is_not_undone_by_a_later_failure() -> None:
    ok = replace(FAILED, judges={"clip": 1.0}, score=1.0, status="ok", error=None)
    assert merge_scored_flows([to_table([ok]), to_table([FAILED])])["status"].to_pylist() == ["ok"]


@pytest.mark.parametrize("column", ["renderer", "weights"])
def test_refuses_to_mix_versions(tmp_path: Path, column: str) -> None:
    write(tmp_path / "a.parquet", ROW)
    write(tmp_path / "b.parquet", replace(ROW, sample_id="other", **{column: "2"}))  # type: ignore[arg-type]
    with pytest.raises(MixedVersionsError, match=rf"rows of {column}"):
        read_scored_flows(tmp_path)


def test_a_damaged_byte_is_noticed_or_harmless(tmp_path: Path) -> None:
    rows = to_table(scored_flows(prompts=20, flows_per_prompt=4))
    path = tmp_path / "rows.parquet"
    write_scored_flows(path, rows)
    whole = path.read_bytes()
    noticed = 0
    for position in range(0, len(whole), 53):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            assert read_scored_flows(path).equals(rows)
        except ScoredFlowsError as error:
            assert "rows.parquet" in str(error)  # noqa: PT017
            noticed += 1
    assert noticed > 0.9 * len(range(0, len(whole), 53))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all" * 10])
def test_other_files_are_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "a.parquet", ROW)
    (tmp_path / "b.parquet").write_bytes(content)
    with pytest.raises(ScoredFlowsError, match=r"b\.parquet"):
        read_scored_flows(tmp_path)


def test_truncated_file(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", ROW)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ScoredFlowsError, match=r"rows\.parquet"):
        read_scored_flows(path)


def test_parquet_of_something_else(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    with pytest.raises(ScoredFlowsError, match="column sample_id"):
        read_scored_flows(tmp_path)


@pytest.mark.parametrize("name", ["absent.parquet", "."])
def test_nothing_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(ScoredFlowsError, match=r"collect\.yaml"):
        read_scored_flows(tmp_path / name)


@pytest.mark.parametrize(
    "row",
    [
        replace(ROW, judges={"clip": float("nan")}),
        replace(ROW, score=float("inf")),
        replace(ROW, error="why?"),
        replace(ROW, status="failed"),
    ],
)
def test_contradictory_rows_are_refused(row: ScoredFlow) -> None:
    with pytest.raises(ScoredFlowsError, match="sample_id='s0'"):
        to_table([row])


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.parquet", ROW)
    before = path.read_bytes()

    def half(table: pa.Table, where: Path, **_: object) -> None:
        where.write_bytes(b"PAR1 half")
        raise OSError("disk full")

    monkeypatch.setattr("pyarrow.parquet.write_table", half)
    with pytest.raises(OSError, match="disk full"):
        write(path, FAILED)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_restarted_writer_goes_on(tmp_path: Path) -> None:
    rows = [replace(ROW, sample_id=f"s{i}") for i in range(5)]

    def stopped() -> None:
        with ShardWriter(tmp_path, "rank0", rows=2) as writer:
            writer.add([*rows[:3], replace(FAILED, sample_id="bad")])
            writer.add(rows[3:4])
            raise KeyboardInterrupt  # what was rendered is not lost

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"rank0-0000{i}.parquet" for i in range(3)]

    again = ShardWriter(tmp_path, "rank0", rows=2)
    assert again.finished == {"s0", "s1", "s2", "s3"}  # the failed one is tried again
    with again:
        again.add(rows[4:])
    table = read_scored_flows(tmp_path)
    assert sorted(table["sample_id"].to_pylist()) == ["bad", "s0", "s1", "s2", "s3", "s4"]
    assert (tmp_path / "rank0-00003.parquet").exists()


def test_writers_of_two_processes_share_a_folder(tmp_path: Path) -> None:
    for rank in range(2):
        with ShardWriter(tmp_path, f"rank{rank}") as writer:
            writer.add([replace(ROW, sample_id=f"s{rank}")])
    assert len(read_scored_flows(tmp_path)) == 2


def test_a_writer_without_rows_writes_nothing(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()


def test_new_scores_go_to_rendered_rows_in_order() -> None:
    table = to_table([ROW, FAILED, replace(ROW, sample_id="s2", judges={"clip": 10.0, "aesthetic": 1.0})])
    np.testing.assert_array_equal(judge_values(table)["clip"], [21.5, 10.0])
    scored = replace_scores(table, [1.5, -2.0])
    assert scored["score"].to_pylist() == [1.5, None, -2.0]
    assert scored.schema == table.schema
