import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.execution.prompt_weights import weighted_segments


@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("a red cat", [("a red cat", 1.0)]),
        ("", []),
        ("a (red:1.3) cat", [("a ", 1.0), ("red", 1.3), (" cat", 1.0)]),
        ("(soft)", [("soft", 1.1)]),
        ("((red))", [("red", 1.21)]),
        ("(a (b:1.5) c)", [("a ", 1.1), ("b", 1.5), (" c", 1.1)]),
        ("((b) c:2)", [("b", 2.2), (" c", 2.0)]),
        ("(red:-0.5)", [("red", -0.5)]),
        (r"a \(red\) cat", [("a (red) cat", 1.0)]),
        (r"(a \(b\):1.2)", [("a (b)", 1.2)]),
        ("[red]", [("[red]", 1.0)]),
        ("a (red", [("a ", 1.0), ("(red", 1.0)]),
        ("a) b", [("a) b", 1.0)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(:1.3)", [(":1.3", 1.1)]),
        ("(a:nan)", [("a:nan", 1.1)]),
        ("(a:inf)", [("a:inf", 1.1)]),
        ("()", []),
        ("one:1.3", [("one:1.3", 1.0)]),
    ],
)
def test_segments(text: str, segments: list[tuple[str, float]]) -> None:
    got = weighted_segments(text)
    assert [piece for piece, _ in got] == [piece for piece, _ in segments]
    assert [weight for _, weight in got] == pytest.approx([weight for _, weight in segments])


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="()\\")))
def test_text_without_parentheses_is_itself(text: str) -> None:
    assert weighted_segments(text) == ([(text, 1.0)] if text else [])


@given(st.text(alphabet=st.sampled_from("()\\:1.3a \ud800\ue000\0"), max_size=60))
def test_any_text_gives_finite_weights_and_drops_no_letter(text: str) -> None:
    segments = weighted_segments(text)
    assert all(math.isfinite(weight) for _, weight in segments)
    joined = "".join(piece for piece, _ in segments)
    assert joined.count("a") == text.count("a")
    joined.encode("utf-8")  # nothing that a tokenizer would refuse


def test_deep_nesting_ends() -> None:
    depth = 5_000
    segments = weighted_segments("(" * depth + "x" + ")" * depth)
    assert "x" in segments[0][0]
    assert segments[0][1] == pytest.approx(1.1**64)
