"""Variants keep to what is installed and to what the family fits; checked by walking links anew."""

from collections.abc import Iterator
from random import Random

import pytest

from flowsmith.flows import Flow, Link, validate
from flowsmith.flows.building.triggers import with_triggers
from flowsmith.flows.building.variants import Variants
from tests.flows.building_world import FAMILIES, MODELS, flow, installation

SCHEMA = installation()


def bases() -> dict[str, Flow]:
    made = {
        "old": flow(SCHEMA, "old_a.safetensors", ("ink.safetensors",), steps=20, cfg=7, sampler_name="euler"),
        "old2": flow(
            SCHEMA, "old_b.safetensors", steps=30, cfg=6.5, sampler_name="dpmpp_2m", scheduler="karras"
        ),
        "big": flow(SCHEMA, "big_a.safetensors", steps=4, cfg=1.0, sampler_name="ddim", scheduler="simple"),
        "riddle": flow(SCHEMA, "riddle.safetensors", steps=16, cfg=3, sampler_name="heun"),
    }
    return {name: with_triggers(one, SCHEMA, MODELS) for name, one in made.items()}


def lora_bases(made: Flow) -> Iterator[tuple[str, str]]:
    """Yield each LoRA file with the checkpoint at the end of its chain of links."""
    for node in made.nodes:
        name, below = node.get("lora_name"), node
        while isinstance(link := below.get("model"), Link):
            below = made.nodes[link.node]
        if isinstance(name, str):
            yield name, str(below.get("ckpt_name"))


@pytest.fixture(scope="module")
def grown() -> dict[str, Flow]:
    return Variants(bases().values(), SCHEMA, MODELS).grow(bases(), Random(5), 150)


def checkpoint(made: Flow) -> str:
    return next(str(node.get("ckpt_name")) for node in made.nodes if node.get("ckpt_name"))


def test_variants_are_valid_and_different(grown: dict[str, Flow]) -> None:
    assert len(grown) == len({made.key for made in grown.values()}) == 150
    assert {name: grown[name] for name in bases()} == bases()
    for name, made in grown.items():
        assert validate(made, SCHEMA) == [], name


def test_a_lora_stands_on_its_own_family(grown: dict[str, Flow]) -> None:
    seen = set()
    for name, made in grown.items():
        for lora, below in lora_bases(made):
            families = FAMILIES[f"loras/{lora}"].family, FAMILIES[f"checkpoints/{below}"].family
            assert families[0] == families[1] is not None, name
            seen.add((lora, below))
    assert {lora for lora, _ in seen} == {"ink.safetensors", "clay.safetensors", "neon.safetensors"}
    assert {below for _, below in seen} >= {"old_a.safetensors", "old_b.safetensors", "big_b.safetensors"}


def test_a_model_gives_way_to_its_family_alone(grown: dict[str, Flow]) -> None:
    reached: dict[str, set[str]] = {}
    for name, made in grown.items():
        reached.setdefault(name.split("~")[0], set()).add(checkpoint(made))
    assert reached == {
        "old": {"old_a.safetensors", "old_b.safetensors"},
        "old2": {"old_a.safetensors", "old_b.safetensors"},
        "big": {"big_a.safetensors", "big_b.safetensors"},
        "riddle": {"riddle.safetensors"},
    }


def test_settings_are_those_that_the_family_bears(grown: dict[str, Flow]) -> None:
    samplers: dict[str | None, set[object]] = {}
    for made in grown.values():
        family = FAMILIES[f"checkpoints/{checkpoint(made)}"].family
        sampler = next(node for node in made.nodes if node.class_type == "KSampler")
        samplers.setdefault(family, set()).add(sampler.get("sampler_name"))
        steps, cfg = sampler.get("steps"), sampler.get("cfg")
        assert isinstance(steps, int)
        assert isinstance(cfg, float)
        if family == "sdxl":
            assert (steps, cfg) == (4, 1.0), "a model of few steps gets no more, and no guidance"
        elif family is None:
            assert (steps, cfg, sampler.get("sampler_name")) == (16, 3.0, "heun"), (
                "of an unknown family, as it was"
            )
        else:
            assert 8 <= steps <= 102
            assert 2 <= cfg <= 10
    assert samplers == {"sd1": {"euler", "dpmpp_2m"}, "sdxl": {"ddim"}, None: {"heun"}}


def test_trigger_words_and_strengths_follow_the_lora(grown: dict[str, Flow]) -> None:
    strengths = {name: set[object]() for name in ("ink.safetensors", "neon.safetensors")}
    for name, made in grown.items():
        loras = {lora for lora, _ in lora_bases(made)}
        texts = [str(node.get("text")) for node in made.nodes if "{prompt}" in str(node.get("text"))]
        assert len(texts) == 1, name
        assert ("ink drawing" in texts[0]) == ("ink.safetensors" in loras), name
        assert ("neon {{glow}}" in texts[0]) == ("neon.safetensors" in loras), name
        for node in made.nodes:
            if node.get("lora_name") in strengths and "~" in name:
                strengths[str(node.get("lora_name"))].add(node.get("strength_model"))
    assert strengths["ink.safetensors"] <= {0.2, 0.3, 0.4, 1.0}  # 1.0: as its author had it
    assert strengths["neon.safetensors"] == {0.6, 0.8, 1.0}


def test_trigger_words_come_once_and_go() -> None:
    dressed = flow(SCHEMA, loras=("ink.safetensors",))
    told = with_triggers(dressed, SCHEMA, MODELS)
    assert [node.get("text") for node in told.nodes if node.get("text") == "{prompt}, ink drawing"]
    assert with_triggers(told, SCHEMA, MODELS) == told
    negative = [
        node.get("text") for node in told.nodes if "{prompt}" not in str(node.get("text") or "{prompt}")
    ]
    assert negative == ["blurry"], "negatives stay as they are"
    taken = Variants([told], SCHEMA, MODELS)._take_lora(told, Random(0))
    assert taken == flow(SCHEMA)


def test_the_same_seed_gives_the_same_corpus(grown: dict[str, Flow]) -> None:
    variants = Variants(bases().values(), SCHEMA, MODELS)
    assert variants.grow(bases(), Random(5), 40) == dict(list(grown.items())[:40])
    assert variants.grow(bases(), Random(6), 40) != dict(list(grown.items())[:40])
    assert variants.grow(bases(), Random(5), 2) == bases(), "what people made is never left out"
    assert variants.grow({}, Random(5), 9) == {}


def test_an_installation_without_choice_gives_what_there_is() -> None:
    alone = {"riddle": bases()["riddle"]}
    assert Variants(alone.values(), SCHEMA, MODELS).grow(alone, Random(1), 10) == alone
