import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from flowsmith.evaluation.dense_block import DenseBlockError, dense_block
from flowsmith.scored_flows import ScoredFlow, to_table
from tests.evaluation.worlds import rows_of, world
from tests.flows_for_tests import some_flows

PROMPTS, FLOWS = ("a", "b", "c"), some_flows(4)
SCORES = world(0, (3, 4, 4))[0]


def rows(failed: str = "") -> list[ScoredFlow]:
    return rows_of(SCORES, FLOWS, PROMPTS, ("counting", "colors", "position"), failed)


def shuffled(those: Sequence[ScoredFlow]) -> list[ScoredFlow]:
    return random.Random(1).sample(list(those), len(those))


def test_cells_are_where_they_belong_in_whatever_order_rows_come() -> None:
    block = dense_block(to_table(shuffled(rows())))
    order = np.argsort([flow.key for flow in FLOWS])
    np.testing.assert_allclose(block.scores, SCORES[:, order].astype(np.float32))
    assert block.prompts == PROMPTS
    assert block.flows == tuple(FLOWS[i].key for i in order)
    assert block.names[FLOWS[2].key] == "flow 2"
    assert block.tasks == {"a": "counting", "b": "colors", "c": "position"}
    assert not block.failed.any()
    np.testing.assert_allclose(block.standardised.std(), 1)


def test_a_failed_render_has_the_worst_score() -> None:
    block = dense_block(to_table(rows(failed="b/2/1")))
    place = block.flows.index(FLOWS[2].key)
    assert block.failed.sum() == block.failed[1, place, 1] == 1
    assert block.scores[1, place, 1] == block.scores.min() == pytest.approx(SCORES.min(), rel=1e-6)


def test_missing_cells_are_named() -> None:
    left = [row for row in rows() if row.sample_id != "c/1/2"]
    with pytest.raises(
        DenseBlockError, match=f"1 of 48 combinations are missing: prompt c, flow {FLOWS[1].key}, seed 2002"
    ):
        dense_block(to_table(shuffled(left)), "dense.parquet")


def test_a_block_of_unlike_prompts_is_told() -> None:
    with pytest.raises(DenseBlockError, match="48 combinations stand twice"):
        dense_block(
            to_table([*rows(), *(replace(row, sample_id=f"again {row.sample_id}") for row in rows())])
        )
    fewer = [row for row in rows() if not (row.prompt_id == "b" and row.seed == 1003)]
    with pytest.raises(
        DenseBlockError, match="1 prompts have another number of seeds than the 4 of the others: b"
    ):
        dense_block(to_table(fewer))


def test_scores_are_needed() -> None:
    unscored = [replace(row, score=None) for row in rows()[:2]] + rows()[2:]
    with pytest.raises(DenseBlockError, match="2 rendered rows have no score"):
        dense_block(to_table(unscored))
    nothing = [replace(row, score=None, judges={}, status="failed", error="boom") for row in rows()]
    with pytest.raises(DenseBlockError, match="none of its 48 rows was rendered"):
        dense_block(to_table(nothing))
    equal = [replace(row, score=1.5) for row in rows()]
    with pytest.raises(DenseBlockError, match=r"all 48 images score 1\.5"):
        _ = dense_block(to_table(equal)).standardised


def test_a_part_of_the_prompts() -> None:
    part = dense_block(to_table(rows())).only({"c", "a", "elsewhere"})
    assert part.prompts == ("a", "c")
    assert part.scores.shape == (2, 4, 4)
