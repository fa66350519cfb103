"""Any flow of an installation goes through tokens and comes back, whatever its texts and numbers are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.flows import Codec, CodecError, Domain, DomainError, Flow
from flowsmith.flows.wide.full_domain import full_domain, schema_of_flows
from flowsmith.flows.wide.language import WideLanguage
from flowsmith.flows.wide.width import WidthError
from tests.flows.wide.small_world import codec, domain, dynamic, flows, node, plain, schema

CODEC = codec()
SCHEMA = schema()
VALUES = {**CODEC.domain.values, "Patch.note": ("plain",)}
NOTED = Codec(SCHEMA, replace(CODEC.domain, values=VALUES))


def tokens(graph: dict[str, Any], codec: Codec = CODEC) -> list[str]:
    return [codec.vocabulary[token] for token in codec.encode(Flow.from_template(graph, SCHEMA))]


def test_a_plain_flow_by_hand() -> None:
    assert tokens(plain()) == [
        "Save(format=png)", "Decode", "Sample", "Loader", "Loader.name=a.st", "Sample.steps=30",
        "Encode", 'positive="{prompt}, sharp"', "ref:0", "Encode", 'negative="blurry"', "ref:0",
        "Empty", "Empty.width=768", "Empty.batch_size=1", "ref:0", "Save.format=png", "Save.format.depth=8-bit",
        "end",
    ]  # fmt: skip


def test_links_on_values_switches_grown_inputs_and_shown_texts() -> None:
    written = tokens(dynamic())
    assert {
        "Switch:MODEL", "Math(values.a,values.b)", "Math(values.a,values.b)#1", "Show", "Save(format=exr)",
    } & set(written) >= {"Switch:MODEL", "Show", "Save(format=exr)"}  # fmt: skip
    for flow in flows():
        assert CODEC.decode(CODEC.encode(flow)) == flow


def test_what_has_no_token_is_spelt() -> None:
    graph = plain(
        good=node("Encode", text="a red", clip=["loader", 1]),
        empty=node("Empty", width=40, batch_size=1),
    )
    written = tokens(graph)
    start = written.index("Encode") + 1
    assert written[start : start + 4] == ["text:a", "text:Ġred", "close", "ref:0"]
    start = written.index("Empty") + 1
    assert written[start : start + 4] == ["text:4", "text:0", "close", "Empty.batch_size=1"]


@given(st.text(), st.text(), st.integers(2, 512), st.floats(0, 9).map(lambda x: round(x, 1)))
def test_any_text_and_number_comes_back(positive: str, note: str, size: int, scale: float) -> None:
    graph = plain(
        patch=node("Patch", model=["loader", 0], scale=scale, note=note.replace("{", "").replace("}", "")),
        good=node("Encode", text=positive.replace("{", "{{").replace("}", "}}"), clip=["loader", 1]),
        empty=node("Empty", width=8 * size, batch_size=3),
    )
    graph["sample"]["inputs"]["model"] = ["patch", 0]
    flow = Flow.from_template(graph, SCHEMA)
    assert NOTED.decode(NOTED.encode(flow)) == flow


@pytest.mark.parametrize(
    "text", ["end", "ref:0", "Loader", "close", "text:a", 'positive="{prompt}"', "absent"]
)
def test_texts_that_look_like_tokens_are_spelt_in_pieces(text: str) -> None:
    graph = plain(good=node("Encode", text=text.replace("{", "{{").replace("}", "}}"), clip=["loader", 1]))
    flow = Flow.from_template(graph, SCHEMA)
    ids = CODEC.encode(flow)
    assert isinstance(CODEC.language, WideLanguage)
    inside = [token for token in ids if token > CODEC.language.close]
    assert inside
    assert len(ids) == len(CODEC.encode(flows()[0])) + len(
        inside
    )  # a text that was one token and is a literal now
    assert CODEC.decode(ids) == flow


@given(st.lists(st.integers(-2, CODEC.size), max_size=40))
def test_no_sequence_does_more_than_be_refused(ids: list[int]) -> None:
    valid = CODEC.encode(flows()[0])
    for sequence in (ids, [*valid[: len(ids)], *ids, *valid[len(ids) :]]):
        try:
            CODEC.decode(sequence)
        except CodecError:
            continue


def test_a_domain_without_merges_spells_nothing() -> None:
    bare = codec(merges=False)
    assert not any(name.startswith("text:") for name in bare.vocabulary)
    with pytest.raises(CodecError, match=r"Encode\.text='other': no token for it"):
        tokens(plain(good=node("Encode", text="other", clip=["loader", 1])), bare)


def test_literals_that_mean_nothing_are_refused() -> None:
    ids = CODEC.encode(Flow.from_template(plain(empty=node("Empty", width=40, batch_size=1)), SCHEMA))
    place = [CODEC.vocabulary[token] for token in ids].index("text:4")
    letter = CODEC.vocabulary.index("text:x")
    with pytest.raises(CodecError, match="is no int"):
        CODEC.decode([*ids[:place], letter, *ids[place + 1 :]])
    with pytest.raises(CodecError, match="a piece of a literal or its end"):
        CODEC.decode([*ids[: place + 1], ids[0], *ids[place + 2 :]])


def test_codec_and_domain_are_read_back(tmp_path: Path) -> None:
    CODEC.save(tmp_path)
    again = Codec.load(tmp_path)
    assert (again.vocabulary, again.fingerprint) == (CODEC.vocabulary, CODEC.fingerprint)
    assert again.domain == domain()
    assert "Infinity" not in (tmp_path / "codec.json").read_text(encoding="utf-8")
    with pytest.raises(WidthError, match="make the domain anew"):
        Domain.from_json({**domain().to_json(), "width": {"linked": 3}})


def test_what_occurs_is_what_the_domain_has() -> None:
    found = domain()
    assert found.width is not None
    assert set(found.width.linked) == {"Empty.width", "Sample.steps", "Encode.text"}
    assert found.width.feeding == ("Show",)
    assert found.width.shapes["Math"] == ((("values.a", None), ("values.b", None)),)
    assert found.values["Loader.name"] == ("a.st", "b.st")
    assert found.values["Sample.steps"] == (20, 30)
    assert found.values["Empty.width"] == (512, 768)
    assert found.texts == {"positive": ("{prompt}", "{prompt}, sharp"), "negative": ("", "blurry")}
    assert "Patch.note" not in found.values


def test_flows_outside_the_domain_are_told() -> None:
    known = domain()
    graph = dynamic()
    graph["math"] = node("Math", expression="2 * a", values__a=["number", 0])
    graph["decode"]["inputs"]["latent"] = ["empty", 0]
    issues = known.issues(Flow.from_template(graph, SCHEMA), SCHEMA)
    assert {(issue.type, issue.input) for issue in issues} == {
        ("value_not_in_domain", "inputs"), ("value_not_in_domain", "expression"),
    }  # fmt: skip
    assert all(known.issues(flow, SCHEMA) == [] for flow in flows())


def test_files_that_are_not_installed_are_added_to_the_lists() -> None:
    other = Flow.from_template(plain(), SCHEMA)
    small = schema().restrict(choices={"Loader.name": ["b.st"]})
    assert schema_of_flows(small, [other]).nodes["Loader"].inputs[0].choices == ("b.st", "a.st")
    with pytest.raises(DomainError, match=r"'Loader\.name' has none"):
        full_domain(small.restrict(choices={"Loader.name": []}), [], ["Loader"])
