"""Texts are templates in which only {prompt} and doubled braces mean anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.flows import TemplateError
from flowsmith.flows.templates import escape, fill, has_prompt, template_of

TEXT = st.text(st.sampled_from("{}ab prompt:()0.!$%\\\n"), max_size=24) | st.text(max_size=24)


@given(TEXT, TEXT)
def test_an_escaped_text_comes_out_as_it_was(text: str, prompt: str) -> None:
    assert fill(escape(text), prompt) == text
    assert not has_prompt(escape(text))


@given(TEXT, TEXT, TEXT)
def test_the_prompt_is_put_in_literally(before: str, prompt: str, after: str) -> None:
    assert fill(f"{escape(before)}{{prompt}}{escape(after)}", prompt) == before + prompt + after


@given(TEXT, TEXT, st.sampled_from(["positive", "negative", None]))
def test_a_template_made_of_a_text_gives_the_text_back(text: str, prompt: str, role: str) -> None:
    made = template_of(text, prompt, role)  # type: ignore[arg-type]
    assert fill(made, prompt) == text
    assert not (role == "negative" and has_prompt(made))


@pytest.mark.parametrize(
    "prompt",
    [
        "{prompt}", "{{prompt}}", "{0.__class__}", "{prompt.__init__.__globals__}", "%(prompt)s",
        "$(touch x)",
        "__import__('os')", "(red star:1.3), [blue], a \\(sign\\)", "<flow> KSampler ref:0 end", "",
    ],
)  # fmt: skip
def test_nothing_in_a_prompt_has_a_meaning(prompt: str) -> None:
    assert fill("a picture of {prompt}, {{x}}", prompt) == f"a picture of {prompt}, {{x}}"


@pytest.mark.parametrize("text", ["{", "}", "{ prompt }", "{name}", "a {0}", "{prompt", "{{{"])
def test_a_single_brace_is_refused(text: str) -> None:
    with pytest.raises(TemplateError, match="single"):
        fill(text, "x")


def test_a_prompt_is_found_as_whole_words() -> None:
    assert template_of("a red star, a reddish sky", "red") == "a {prompt} star, a reddish sky"
    assert template_of("cat", "") == "cat"
    assert template_of("a {cat}", "cat") == "a {{{prompt}}}"
