"""A domain is checked when it is read, and flows are checked against it."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from flowsmith.flows import Domain, DomainError, Flow, FlowError, Schema, validate

Graph = dict[str, Any]


def test_the_miniatures_domain_is_what_was_decided(domain: Domain) -> None:
    assert domain.max_pixel_steps == 64 * 64 * 60
    assert domain.max_pixels == 192 * 192
    assert domain.classes["KSampler"] == 3
    assert domain.values["KSampler.steps"] == (4, 6, 8, 12, 16, 20, 30)
    assert domain.values["LoraLoader.strength_model"] == (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
    assert domain.texts["negative"] == ("", "blurry, noisy", "dull, grey", "blurry, noisy, dull, grey")
    assert all("{prompt}" in text for text in domain.texts["positive"])
    assert domain.values["EmptyLatentImage.batch_size"] == (1,)
    assert domain.values["KSamplerAdvanced.sampler_name"] == domain.values["KSampler.sampler_name"]
    assert domain.values["KSamplerAdvanced.scheduler"] == domain.values["KSampler.scheduler"]
    assert domain.upscale_factors == {"mini_x2.safetensors": 2}


def test_a_domain_survives_being_written(domain: Domain) -> None:
    assert Domain.from_json(json.loads(json.dumps(domain.to_json()))) == domain


def test_restrict_lists_the_domains_files_where_the_schema_lists_none(domain: Domain) -> None:
    schema = domain.restrict(Schema.core())
    assert schema.nodes["CheckpointLoaderSimple"].inputs[0].choices == (
        "mini_base", "mini_pencil", "mini_crowd",
    )  # fmt: skip
    assert schema.nodes["KSampler"].inputs[4].choices == Schema.core().nodes["KSampler"].inputs[4].choices
    there = Schema.core().restrict(choices={"CheckpointLoaderSimple.ckpt_name": ["mini_base"]})
    with pytest.raises(DomainError, match="'mini_pencil' cannot be used"):
        domain.restrict(there)


def edit(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        section, _, name = path.partition("/")
        if not name:
            content[section] = value
        else:
            content[section][name] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (edit("clases", {}), "'clases' is no setting of a domain; did you mean 'classes'"),
        (edit("classes", []), "give a mapping"),
        (edit("classes/KSampler", 0), "1 or more"),
        (edit("classes/KSampler", True), "1 or more"),
        (edit("max_pixels", -1), "positive number"),
        (edit("max_pixels", float("nan")), "positive number"),
        (edit("values/KSampler.steps", []), "list of one or more"),
        (edit("values/KSampler.steps", [4, 4]), "stands twice"),
        (edit("values/KSampler.steps", 4), "list of one or more"),
        (edit("values/KSampler.steps", [date(2024, 1, 1)]), "is a date; give texts"),
        (edit("values/KSampler.sampler_name", ["euler", None]), "None is a NoneType; give texts"),
        (edit("texts/negative", [["x"]]), r"\['x'\] is a list; give texts"),
        (edit("sample_empty_latents", "no"), "sample_empty_latents='no'; give true or false"),
        (edit("sample_empty_latents", 0), "sample_empty_latents=0; give true or false"),
        (edit("texts/middle", ["x"]), "positive and negative"),
        (edit("texts/3", ["x"]), "positive and negative"),
        (edit("texts/positive", ["no place"]), r"positive texts hold \{prompt\}"),
        (edit("texts/negative", ["{prompt}"]), "negative texts do not"),
        (edit("texts/negative", ["{"]), "single"),
        (edit("texts/negative", [3]), "texts.negative"),
    ],
)
def test_a_domain_that_contradicts_itself(
    change: Callable[[dict[str, Any]], None], says: str, domain: Domain
) -> None:
    content = domain.to_json()
    change(content)
    with pytest.raises(DomainError, match=says):
        Domain.from_json(content)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (edit("classes/KSamplerr", 1), "did you mean 'KSampler'"),
        (edit("values/KSampler.stepz", [1]), "did you mean 'KSampler.steps'"),
        (edit("values/KSampler.model", [1]), "takes no value"),
        (edit("values/KSampler.seed", [1]), "takes no value"),
        (edit("values/KSampler.steps", [0, 4]), "value_smaller|too small"),
        (edit("values/KSampler.cfg", [4.005]), "between the allowed steps"),
        (edit("values/KSampler.sampler_name", ["eular"]), "did you mean 'euler'"),
        (edit("values/KSampler.denoise", [0.5]), "lacks 1.0"),
        (lambda content: content["values"].pop("KSampler.cfg"), "'KSampler.cfg' has none"),
    ],
)
def test_a_domain_that_contradicts_the_schema(
    change: Callable[[dict[str, Any]], None], says: str, domain: Domain
) -> None:
    content = domain.to_json()
    change(content)
    with pytest.raises(DomainError, match=says):
        Domain.from_json(content).restrict(Schema.core())


@pytest.mark.parametrize("text", ["classes: [", "3", "\xff"])
def test_files_that_are_no_domain(text: str, tmp_path: Path) -> None:
    (tmp_path / "domain.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(DomainError, match=r"domain\.yaml"):
        Domain.from_yaml(tmp_path / "domain.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DomainError, match="nowhere"):
        Domain.from_yaml(tmp_path / "nowhere.yaml")


UP = {
    "class_type": "LatentUpscaleBy",
    "inputs": {"samples": ["5", 0], "upscale_method": "bilinear", "scale_by": 2.0},
}


def widen(graph: Graph) -> None:
    """Sample 192 x 192 pixels in 8 steps: not too many pixels, but too many steps over them."""
    graph["5"]["inputs"].update(width=96, height=96)
    graph["20"] = UP
    graph["3"]["inputs"].update(latent_image=["20", 0], steps=8)


def enlarge(graph: Graph) -> None:
    graph["5"]["inputs"].update(width=96, height=96)
    graph["20"] = {
        "class_type": "LatentUpscaleBy",
        "inputs": {"samples": ["3", 0], "upscale_method": "bilinear", "scale_by": 2.0},
    }
    graph["8"]["inputs"]["samples"] = ["20", 0]
    graph["21"] = {
        "class_type": "ImageScaleBy",
        "inputs": {"image": ["8", 0], "upscale_method": "area", "scale_by": 1.5},
    }
    graph["9"]["inputs"]["images"] = ["21", 0]


def set_input(node: str, **values: Any) -> Callable[[Graph], None]:
    return lambda graph: graph[node]["inputs"].update(values)


def second_image(graph: Graph) -> None:
    graph["30"] = {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "flowsmith"}}


@pytest.mark.parametrize(
    ("change", "kinds"),
    [
        (set_input("3", steps=21), ["value_not_in_domain"]),
        (set_input("6", text="{prompt}!"), ["text_not_in_domain"]),
        (set_input("6", text="blurry, noisy"), ["text_not_in_domain"]),
        (set_input("7", text="{prompt}"), ["link_not_in_domain"]),
        (set_input("3", denoise=0.6), ["noise_left"]),
        (set_input("8", samples=["5", 0]), ["noise_left", "noise_left"]),
        (widen, ["too_many_pixel_steps"]),
        (enlarge, ["too_many_pixels"]),
        (second_image, ["link_not_in_domain", "too_many_nodes"]),
        (set_input("5", batch_size=2), ["value_not_in_domain"]),
    ],
)
def test_valid_flows_outside_of_the_domain(
    change: Callable[[Graph], None], kinds: list[str], graph: Graph, domain: Domain, schema: Schema
) -> None:
    domain.check(Flow.from_template(graph, schema), schema)
    change(graph)
    flow = Flow.from_template(graph, schema)
    assert validate(flow, schema) == []
    assert sorted(issue.type for issue in domain.issues(flow, schema)) == kinds
    with pytest.raises(FlowError):
        domain.check(flow, schema)


def test_classes_outside_of_the_domain(graph: Graph, domain: Domain, schema: Schema) -> None:
    flow = Flow.from_template(graph, schema)
    content = domain.to_json()
    del content["classes"]["VAEDecode"]
    smaller = Domain.from_json(content)
    assert [issue.type for issue in smaller.issues(flow, schema)] == ["class_not_in_domain"]
