"""A file of prompts is read as it was written, or the line that cannot be is named."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.prompts import Prompt, PromptError, read_prompts, write_prompts

TEXTS = st.text(max_size=20) | st.sampled_from(["a\u2028b", "a\x85b", "a\nb\r", '"', "{prompt}"])


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=5, unique_by=lambda texts: texts[0]))
def test_any_texts_come_back_as_they_were(texts: list[tuple[str, str, str]]) -> None:
    prompts = [Prompt(id=i, text=t, split="train", task=k, facts={"n": [1, t]}) for i, t, k in texts]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "prompts.jsonl"
        write_prompts(path, prompts)
        again = read_prompts(path)
    assert again == prompts
    assert [p.facts for p in again] == [p.facts for p in prompts]


def test_one_split_may_be_asked_for(tmp_path: Path) -> None:
    write_prompts(tmp_path / "p", [Prompt("a", "x", "train"), Prompt("b", "y"), Prompt("c", "z", "train")])
    assert [p.id for p in read_prompts(tmp_path / "p", "train")] == ["a", "c"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"id": "a", "text": 3}', r"text=3; give a text in quotes"),
        ('{"id": "a", "text": null}', r"text=None; give a text"),
        ('{"id": "a", "text": "\\ud800"}', r"text='\\ud800'; give a text in quotes, without lone surrogates"),
        ('{"id": [1], "text": "x"}', r"id=\[1\]; give a text"),
        ('{"id": null, "text": "x"}', r"id=None; give a text"),
        ('{"id": 1, "text": "x"}', r"id=1; give a text"),
        ('{"id": "a", "text": "x", "task": ["two"]}', r"task=\['two'\]; give a text"),
        ('{"id": "a", "text": "x", "facts": [1]}', r"facts=\[1\]; give an object"),
        ('{"id": "a", "text": "x", "split": "dev"}', r"split='dev'; use one of train"),
        ('{"id": "a", "text": "x", "split": ["train"]}', r"split=\['train'\]; use one of train"),
        ('{"id": "a", "text": "x", "seed": 3}', "not a prompt"),
        ('{"id": "a"}', "not a prompt"),
        ('["a", "x"]', "not a prompt"),
        ("{", "not a prompt"),
        ("[" * 100_000, "not a prompt"),
        ('{"id": "good", "text": "x"}', "id='good' stands twice"),
    ],
)
def test_a_line_that_is_no_prompt_is_named(line: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"id": "good", "text": "two red stars"}\n\n' + line + "\n")
    with pytest.raises(PromptError, match=rf"prompts\.jsonl:3: .*{says}"):
        read_prompts(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PromptError, match=r"prompts\.jsonl: cannot be read"):
        read_prompts(path)
