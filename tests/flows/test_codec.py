"""Tokens stand for flows, exactly and both ways."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from flowsmith.flows import Codec, CodecError, Domain, Flow, Grammar, Link, Node, Schema, random_flow


def test_ten_thousand_flows_come_back_as_they_were(codec: Codec) -> None:
    rng = Random(6)
    keys = set()
    for _ in range(10_000):
        flow = random_flow(codec.domain, codec.schema, rng)
        tokens = codec.encode(flow)
        assert codec.decode(tokens) == flow
        keys.add(flow.key)
    assert len(keys) > 9_000


def test_golden_tokens(codec: Codec, corpus: dict[str, Flow]) -> None:
    assert [codec.vocabulary[token] for token in codec.encode(corpus["hires_poster"])] == [
        "SaveImage", "ImageSharpen", "VAEDecode",
        "KSampler",
        "LoraLoader", "CheckpointLoaderSimple", "CheckpointLoaderSimple.ckpt_name=mini_base",
        "ref:0", "LoraLoader.lora_name=mini_poster.safetensors",
        "LoraLoader.strength_model=0.75", "LoraLoader.strength_clip=0.5",
        "KSampler.steps=6", "KSampler.cfg=5.0", "KSampler.sampler_name=euler", "KSampler.scheduler=normal",
        "CLIPTextEncode", 'positive="{prompt}"', "ref:0",
        "CLIPTextEncode", 'negative=""', "ref:0",
        "LatentUpscaleBy",
        "KSampler", "ref:0",
        "KSampler.steps=12", "KSampler.cfg=4.0", "KSampler.sampler_name=dpmpp_2m", "KSampler.scheduler=karras",
        "ref:0", "ref:0",
        "EmptyLatentImage",
        "EmptyLatentImage.width=64", "EmptyLatentImage.height=64", "EmptyLatentImage.batch_size=1",
        "KSampler.denoise=1.0",
        "LatentUpscaleBy.upscale_method=nearest-exact", "LatentUpscaleBy.scale_by=1.25",
        "KSampler.denoise=0.3",
        "ref:0",
        "ImageSharpen.sharpen_radius=1", "ImageSharpen.sigma=1.0", "ImageSharpen.alpha=0.05",
        'SaveImage.filename_prefix="flowsmith"', "end",
    ]  # fmt: skip


def test_the_corpus_has_tokens(codec: Codec, corpus: dict[str, Flow]) -> None:
    for flow in corpus.values():
        assert codec.decode(codec.encode(flow)) == flow


def test_several_outputs_and_shared_nodes(domain: Domain) -> None:
    content = domain.to_json()
    content["classes"] |= {"SaveImage": 3, "ImageScaleBy": 2}
    codec = Codec(Schema.core(), Domain.from_json(content))
    load = Node("CheckpointLoaderSimple", (("ckpt_name", "mini_base"),))
    text = [Node("CLIPTextEncode", (("text", t), ("clip", Link(0, 1)))) for t in ("{prompt}", "")]
    size = Node("EmptyLatentImage", (("width", 64), ("height", 64), ("batch_size", 1)))
    links = (
        ("positive", Link(1, 0)),
        ("negative", Link(2, 0)),
        ("latent_image", Link(3, 0)),
        ("denoise", 1.0),
    )
    how = (("steps", 4), ("cfg", 4.0), ("sampler_name", "euler"), ("scheduler", "normal"))
    rest = [
        Node("KSampler", (("model", Link(0, 0)), *how, *links)),
        Node("VAEDecode", (("samples", Link(4, 0)), ("vae", Link(0, 2)))),
        Node("ImageScaleBy", (("image", Link(5, 0)), ("upscale_method", "area"), ("scale_by", 1.5))),
        Node("ImageScaleBy", (("image", Link(5, 0)), ("upscale_method", "area"), ("scale_by", 2.0))),
        *(Node("SaveImage", (("images", Link(n, 0)), ("filename_prefix", "flowsmith"))) for n in (5, 6, 7)),
    ]
    flow = Flow.from_nodes([load, *text, size, *rest], codec.schema)
    assert len(flow.nodes) == 11
    tokens = [codec.vocabulary[token] for token in codec.encode(flow)]
    assert tokens.count("KSampler") == 1
    assert tokens.count("SaveImage") == 3
    assert codec.decode(codec.encode(flow)) == flow


def test_vocabulary_is_what_the_domain_has(codec: Codec, domain: Domain) -> None:
    values = [token for token in codec.vocabulary if "=" in token]
    assert len(values) == sum(map(len, domain.values.values())) + sum(map(len, domain.texts.values()))
    assert set(domain.classes) <= set(codec.vocabulary)
    # Nine LATENT outputs at most: one empty, three sampled and two in parts, two enlarged, one encoded.
    assert [token for token in codec.vocabulary if token.startswith("ref:")] == [f"ref:{k}" for k in range(9)]
    assert len(set(codec.vocabulary)) == codec.size == len(codec.vocabulary)


def test_flows_outside_of_the_domain_have_no_tokens(
    codec: Codec, graph: dict[str, Any], schema: Schema
) -> None:
    graph["3"]["inputs"]["steps"] = 21
    with pytest.raises(CodecError, match=r"KSampler\.steps=21: no token for it; the domain has \[4, 6"):
        codec.encode(Flow.from_template(graph, schema))
    graph["3"]["inputs"].update(steps=20, negative=["6", 0])
    with pytest.raises(CodecError, match="negative"):
        codec.encode(Flow.from_template(graph, schema))
    graph["3"]["inputs"]["negative"] = ["7", 0]
    graph["9"]["inputs"]["images"] = ["10", 0]
    graph["10"] = {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "flowsmith"}}
    with pytest.raises(CodecError, match=r"IMAGE, but leads to .* an output node"):
        codec.encode(Flow.from_template(graph, schema))


def test_a_chain_too_long_to_walk_along_is_told(codec: Codec) -> None:
    scale = (("upscale_method", "bilinear"), ("scale_by", 1.25))
    ups = [Node("LatentUpscaleBy", (("samples", Link(n, 0)), *scale)) for n in range(2000)]
    size = (("width", 64), ("height", 64), ("batch_size", 1))
    ends = [
        Node("CheckpointLoaderSimple", (("ckpt_name", "mini_base"),)),
        Node("VAEDecode", (("samples", Link(2000, 0)), ("vae", Link(2001, 2)))),
        Node("SaveImage", (("images", Link(2002, 0)), ("filename_prefix", "flowsmith"))),
    ]
    flow = Flow.from_nodes([Node("EmptyLatentImage", size), *ups, *ends], codec.schema)
    with pytest.raises(CodecError, match="the 2004 nodes of the flow link more nodes in a row"):
        codec.encode(flow)
    ids = {name: place for place, name in enumerate(codec.vocabulary)}
    with pytest.raises(CodecError, match="what 2002 tokens say link more nodes in a row"):
        codec.decode([ids["SaveImage"], ids["VAEDecode"], *[ids["LatentUpscaleBy"]] * 2000])


def test_tokens_that_are_no_flow(codec: Codec, corpus: dict[str, Flow]) -> None:
    tokens = codec.encode(corpus["default"])
    ids = {name: place for place, name in enumerate(codec.vocabulary)}
    for wrong, says in [
        ([], "not complete"),
        (tokens[:-1], "not complete"),
        ([ids["end"]], "end comes first"),
        ([*tokens, ids["end"]], "after the end token"),
        ([ids["KSampler"]], "'KSampler' at place 0, where an output class or end"),
        ([tokens[0], ids["ref:0"]], "'ref:0' at place 1, where a class or reference that gives a IMAGE"),
        (
            [tokens[0], tokens[1], tokens[2], tokens[3], ids["KSampler.steps=4"]],
            "a value of CheckpointLoaderSimple",
        ),
        ([tokens[0], codec.size], f"id {codec.size}"),
        ([-1], "id -1"),
    ]:
        with pytest.raises(CodecError, match=says):
            codec.decode(wrong)


def test_every_cut_and_every_swap_is_refused_or_another_flow(codec: Codec, corpus: dict[str, Flow]) -> None:
    flow = corpus["default"]
    tokens = codec.encode(flow)
    rng = Random(7)
    for place in range(len(tokens)):
        with pytest.raises(CodecError):
            codec.decode(tokens[:place])
        changed = [*tokens]
        changed[place] = rng.choice([token for token in range(codec.size) if token != tokens[place]])
        try:
            other = codec.decode(changed)
        except CodecError:
            continue
        assert other != flow


def test_a_codec_survives_being_saved(codec: Codec, tmp_path: Path) -> None:
    codec.save(tmp_path)
    again = Codec.load(tmp_path)
    assert (again.vocabulary, again.fingerprint) == (codec.vocabulary, codec.fingerprint)
    assert (again.domain, again.schema) == (codec.domain, codec.schema)
    content = json.loads((tmp_path / "codec.json").read_text())
    content["domain"]["values"]["KSampler.steps"][0] = 5
    (tmp_path / "codec.json").write_text(json.dumps(content))
    with pytest.raises(CodecError, match="edited or written by another version"):
        Codec.load(tmp_path)
    (tmp_path / "codec.json").write_text("{")
    with pytest.raises(CodecError, match="cannot be read"):
        Codec.load(tmp_path)
    with pytest.raises(CodecError, match="cannot be read"):
        Codec.load(tmp_path / "nowhere")


def test_the_fingerprint_changes_with_the_domain(codec: Codec, domain: Domain) -> None:
    content = domain.to_json()
    content["max_pixels"] += 1
    assert Codec(Schema.core(), Domain.from_json(content)).fingerprint != codec.fingerprint
    assert Codec(Schema.core(), Domain.from_json(domain.to_json())).fingerprint == codec.fingerprint


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("SaveImage", "none ends a flow"),
        ("EmptyLatentImage", "can never be completed"),
        ("VAEDecode", "IMAGE"),
    ],
)
def test_domains_without_a_language(name: str, says: str, domain: Domain) -> None:
    content = domain.to_json()
    del content["classes"][name]
    content["values"] = {k: v for k, v in content["values"].items() if not k.startswith(f"{name}.")}
    smaller = Domain.from_json(content)
    with pytest.raises(CodecError, match=says):
        Grammar(Codec(Schema.core(), smaller), 96)
