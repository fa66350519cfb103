import json
from pathlib import Path

import pytest

from datamodules.design_prompts import DesignPrompts
from flowsmith.metrics import TASKS, read_geneval_prompts
from flowsmith.metrics.geneval.names import CLASSES, COLOURS
from flowsmith.metrics.geneval.prompt_file import is_geneval_file
from flowsmith.prompts import PromptError

# One line of each task, as published.
LINES = [
    '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}',
    '{"tag": "two_object", "include": [{"class": "bench", "count": 1}, {"class": "sports ball", "count": 1}],'
    ' "prompt": "a photo of a bench and a sports ball"}',
    '{"tag": "counting", "include": [{"class": "clock", "count": 3}], "exclude": [{"class": "clock", "count": 4}],'
    ' "prompt": "a photo of three clocks"}',
    '{"tag": "colors", "include": [{"class": "computer mouse", "count": 1, "color": "blue"}],'
    ' "prompt": "a photo of a blue computer mouse"}',
    '{"tag": "position", "include": [{"class": "teddy bear", "count": 1}, {"class": "dog", "count": 1, "position":'
    ' ["right of", 0]}], "prompt": "a photo of a dog right of a teddy bear"}',
    '{"tag": "color_attr", "include": [{"class": "wine glass", "count": 1, "color": "purple"}, {"class": "apple",'
    ' "count": 1, "color": "black"}], "prompt": "a photo of a purple wine glass and a black apple"}',
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "evaluation_metadata.jsonl"
    path.write_text("\n".join(LINES) + "\n")
    return path


def test_published_lines(file: Path) -> None:
    prompts = read_geneval_prompts(file)
    assert [p.task for p in prompts] == [*TASKS[:2], "counting", "colors", "position", "color_attr"]
    assert [p.id for p in prompts] == ["00000", "00001", "00002", "00003", "00004", "00005"]
    assert prompts[4].text == "a photo of a dog right of a teddy bear"
    assert {p.split for p in prompts} == {"test"}
    assert prompts[2].facts == {
        "include": [{"class": "clock", "count": 3}],
        "exclude": [{"class": "clock", "count": 4}],
    }


def test_a_stage_reads_them(file: Path) -> None:
    data = DesignPrompts(str(file), ["test"])
    data.setup()
    assert [p.text for p in data.prompts] == [json.loads(line)["prompt"] for line in LINES]
    with pytest.raises(PromptError, match="no prompt is left"):
        DesignPrompts(str(file), ["train"]).setup()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"tag": "shapes"}, r"tag='shapes'; use single_object"),
        ({"include": [{"class": "mouse", "count": 1}]}, r"class='mouse' is none of GenEval's names.*computer mouse"),
        ({"include": [{"class": "dog", "count": 0}]}, "count=0; give a whole number"),
        ({"include": [{"class": "dog"}]}, r"no line of GenEval's \(KeyError: 'count'\)"),
        ({"include": [{"class": "dog", "count": 1, "color": "mauve"}]}, "color='mauve'; use red"),
        ({"include": [{"class": "dog", "count": 1, "position": ["under", 0]}]}, "position='under'; use left of"),
        ({"include": [{"class": "dog", "count": 1, "position": ["above", 0]}]}, r"position=.* refers to no earlier"),
        ({"include": 3}, "no line of GenEval's"),
        ({"prompt": None}, "prompt=None; give a text"),
    ],
)  # fmt: skip
def test_what_no_rule_knows_is_refused(change: dict[str, object], told: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(LINES[0] + "\n\n" + json.dumps(json.loads(LINES[0]) | change) + "\n")
    with pytest.raises(PromptError, match=rf"prompts\.jsonl:3: {told}"):
        read_geneval_prompts(path)


def test_files_of_another_kind(tmp_path: Path, file: Path) -> None:
    assert is_geneval_file(file)
    other = tmp_path / "other.jsonl"
    other.write_text('{"id": "a", "text": "b"}\n')
    assert not is_geneval_file(other)
    assert not is_geneval_file(tmp_path / "nowhere.jsonl")
    with pytest.raises(PromptError, match="cannot be read"):
        read_geneval_prompts(tmp_path / "nowhere.jsonl")


def test_names() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 80
    assert (CLASSES[0], CLASSES[15], CLASSES[64], CLASSES[79]) == (
        "person",
        "cat",
        "computer mouse",
        "toothbrush",
    )
    assert len(COLOURS) == 10
