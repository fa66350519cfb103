from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.metrics.score import JudgeScale, Score, ScoreError


def test_by_hand() -> None:
    score = Score({"clip": JudgeScale(mean=20, std=4, weight=2), "aesthetic": JudgeScale(mean=5, std=0.5)})
    assert score({"clip": 22, "aesthetic": 4.5, "held_out": 1e9}) == pytest.approx(2 * 0.5 - 1)


def test_fit_by_hand() -> None:
    score = Score.fit({"a": [1, 2, 3], "b": [0, 0, 0]}, {"a": 0.5})
    assert score.judges == {"a": JudgeScale(mean=2, std=1, weight=0.5)}
    assert score({"a": 4}) == pytest.approx(1)


@given(st.floats(0.1, 100), st.floats(-100, 100), st.integers(0, 100))
def test_unit_and_offset_of_a_judge_do_not_matter(factor: float, offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=20), rng.normal(size=20)
    plain = Score.fit({"a": a, "b": b}, {"a": 1, "b": 3}).column({"a": a, "b": b})
    moved = Score.fit({"a": factor * a + offset, "b": b}, {"a": 1, "b": 3})
    np.testing.assert_allclose(moved.column({"a": factor * a + offset, "b": b}), plain, atol=1e-9)
    assert abs(plain.mean()) < 1e-9


def test_column_equals_single_calls() -> None:
    score = Score.fit({"a": [1, 2, 4], "b": [3, 1, 2]}, {"a": 1, "b": -1})
    column = score.column({"a": [1, 2, 4], "b": [3, 1, 2]})
    assert list(column) == [score({"a": a, "b": b}) for a, b in [(1, 3), (2, 1), (4, 2)]]


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    score = Score.fit({"a": [0.1, 0.2, 0.4]}, {"a": 1.5})
    score.save(tmp_path / "score.json")
    assert Score.load(tmp_path / "score.json").judges == score.judges
    assert [p.name for p in tmp_path.iterdir()] == ["score.json"]


@pytest.mark.parametrize(
    "text", ["", "{}", '{"judges": {}}', '{"judges": {"a": {"mean": 1}}}', '{"judges": [1]}']
)
def test_unreadable_score(tmp_path: Path, text: str) -> None:
    (tmp_path / "score.json").write_text(text)
    with pytest.raises(ScoreError):
        Score.load(tmp_path / "score.json")


def test_missing_file() -> None:
    with pytest.raises(ScoreError, match=r"nowhere\.json"):
        Score.load("nowhere.json")


def test_missing_judge_is_named() -> None:
    score = Score({"a": JudgeScale(0, 1), "b": JudgeScale(0, 1)})
    with pytest.raises(ScoreError, match="also needs b"):
        score({"a": 1.0})


@pytest.mark.parametrize("values", [[1.0], [], [0.1, 0.1, 0.1], [1.0, float("nan")]])
def test_fit_refuses_what_has_no_spread(values: list[float]) -> None:
    with pytest.raises(ScoreError, match=r"\.a="):
        Score.fit({"a": values}, {"a": 1})


def test_no_judge_is_no_score() -> None:
    with pytest.raises(ScoreError, match="at least one judge"):
        Score({})
