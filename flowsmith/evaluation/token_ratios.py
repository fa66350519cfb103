"""How many tokens a flow takes, against its JSON under the same tokenizer, and whether it comes back from them."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from flowsmith.evaluation.imported_files import Flows, Measured
from flowsmith.flows import Codec, Flow, Node, Schema
from flowsmith.flows.templates import escape, fill
from flowsmith.flows.wide.full_domain import full_domain, schema_of_flows
from flowsmith.flows.wide.language import WideLanguage
from flowsmith.flows.wide.spelling import Spelling
from flowsmith.prompts import read_prompts

FILE = "installed.safetensors"  # stands for a model where a bare server lists none and no flow names one


@dataclass(frozen=True)
class Wide:
    """A domain of all flows, and what was measured on the way to it."""

    flows: Sequence[Flow]
    schema: Schema
    codec: Codec
    figures: Measured


def captions_of(path: Path) -> list[str]:
    """Return the prompts in a file, none if it is not there."""
    return [prompt.text for prompt in read_prompts(path)] if path.is_file() else []


def classes_of(path: Path) -> list[str]:
    """Return the core classes of a list of frequencies, none if it is not there."""
    return (
        [row["node"] for row in json.loads(path.read_text("utf-8")) if row["core"]] if path.is_file() else []
    )


def minified(graph: Any) -> str:
    """Return JSON without a blank."""
    return json.dumps(graph, separators=(",", ":"), ensure_ascii=False)


def round_trips(
    found: Flows, schema: Schema, captions: Iterable[str], pieces: int, classes: Collection[str]
) -> Wide:
    """Make the domain of all flows, send each through its tokens, and count them.

    JSON and literals are spelt by one byte-level BPE, learnt from the captions and the flows' JSON. The JSON is what
    is sent to a server, with seed 0. Ratios are JSON tokens by flow tokens:

    * ``token_ratio_median``: templated flows, ``{prompt}`` in place, all of whose texts have a token.
    * ``token_ratio_all_median``: the others, too, whose literal texts are spelt on both sides.
    * ``token_ratio_held_out_median``: all flows, each spelt where the other nine tenths give no token.
    * ``token_ratio_text_included_median``: all flows with the prompt filled in and every text of an encoder spelt.
    """
    flows = list(found.flows.values())
    extended = _with_files(schema_of_flows(schema, flows), classes)
    graphs = [minified(flow.to_comfyui("{prompt}", 0, extended)) for flow in flows]
    spelling = Spelling.train([*captions, *graphs], pieces)
    known = [name for name in classes if name in extended.nodes]
    codec = Codec(extended, full_domain(extended, flows, known, spelling.merges))
    ok, ratios, templated = 0, [], []
    for flow, graph in zip(flows, graphs, strict=True):
        tokens = codec.encode(flow)
        ok += codec.decode(tokens) == flow
        ratios.append(len(spelling.spell(graph)) / len(tokens))
        if not _spelt(codec, tokens):
            templated.append(ratios[-1])
    held_out = _held_out(flows, graphs, extended, spelling)
    figures = {
        "roundtrip_ok": ok,
        "roundtrip_total": len(flows),
        "token_ratio_median": median(templated) if templated else None,
        "templated_flows": len(templated),
        "token_ratio_all_median": median(ratios),
        "token_ratio_held_out_median": median(held_out) if held_out else None,
        "token_ratio_text_included_median": median(_text_included(found, extended, codec, spelling)),
        "vocabulary": codec.size,
        "classes": len(codec.domain.classes),
    }
    return Wide(flows, extended, codec, figures)


def _with_files(schema: Schema, classes: Collection[str]) -> Schema:
    empty = {
        f"{name}.{spec.name}": [FILE]
        for name in classes
        if name in schema.nodes
        for spec in schema.nodes[name].inputs
        if spec.kind == "choice" and not spec.choices
    }
    return schema.restrict(choices=empty)


def _spelt(codec: Codec, tokens: Iterable[int]) -> bool:
    """Return whether some value of a flow has no token of its own."""
    assert isinstance(codec.language, WideLanguage)
    return codec.language.close in tokens


def _held_out(
    flows: Sequence[Flow], graphs: Sequence[str], schema: Schema, spelling: Spelling
) -> list[float]:
    """Return the ratio of each flow where its numbers and texts have a token only if another tenth holds them."""
    ratios, whole = [], full_domain(schema, flows, merges=spelling.merges)
    for tenth in range(min(10, len(flows) - 1)):
        rest = [flow for place, flow in enumerate(flows) if place % 10 != tenth]
        part = full_domain(schema, rest, list(whole.classes))
        values = {target: part.values.get(target, grid) for target, grid in whole.values.items()}
        domain = replace(whole, values=values, texts=part.texts)
        codec = Codec(schema, domain)
        for place in range(tenth, len(flows), 10):
            ratios.append(len(spelling.spell(graphs[place])) / len(codec.encode(flows[place])))
    return ratios


def _text_included(found: Flows, schema: Schema, codec: Codec, spelling: Spelling) -> list[float]:
    bare = Codec(schema, replace(codec.domain, texts={"positive": ("{prompt}",), "negative": ("",)}))
    ratios = []
    for key, flow in found.flows.items():
        prompt = found.prompts[key]
        graph = minified(flow.to_comfyui(prompt, 0, schema))
        nodes = []
        for node in flow.nodes:
            texts = {
                s.name
                for s in schema.nodes[node.class_type].inputs_for(dict(node.inputs))
                if s.kind == "text"
            }
            filled = tuple(
                (name, escape(fill(value, prompt)) if name in texts and isinstance(value, str) else value)
                for name, value in node.inputs
            )
            nodes.append(Node(node.class_type, filled))
        tokens = bare.encode(Flow.from_nodes(nodes, schema))
        ratios.append(len(spelling.spell(graph)) / len(tokens))
    return ratios
