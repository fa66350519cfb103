"""A small installation with one node of each kind that makes a domain wide, and flows over it."""

from typing import Any

from flowsmith.flows import Codec, Domain, Flow, Schema
from flowsmith.flows.wide.full_domain import full_domain
from flowsmith.flows.wide.spelling import Spelling

NODES: dict[str, Any] = {
    "Loader": {"input": {"required": {"name": [["a.st", "b.st"], {}]}}, "output": ["MODEL", "CLIP", "VAE"]},
    "Patch": {
        "input": {
            "required": {"model": ["MODEL"], "scale": ["FLOAT", {"default": 1.0, "min": 0, "max": 9, "step": 0.1}]},
            "optional": {"note": ["STRING", {}], "mask": ["MASK"]},
        },
        "output": ["MODEL"],
    },
    "Encode": {
        "input": {"required": {"text": ["STRING", {"multiline": True}], "clip": ["CLIP"]}},
        "output": ["CONDITIONING"],
    },
    "ZeroOut": {"input": {"required": {"conditioning": ["CONDITIONING"]}}, "output": ["CONDITIONING"]},
    "Empty": {
        "input": {
            "required": {
                "width": ["INT", {"default": 512, "min": 16, "max": 4096, "step": 8}],
                "batch_size": ["INT", {"default": 1, "min": 1, "max": 64}],
            }
        },
        "output": ["LATENT"],
    },
    "Sample": {
        "input": {
            "required": {
                "model": ["MODEL"], "seed": ["INT", {"min": 0, "max": 2**64 - 1}],
                "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
                "positive": ["CONDITIONING"], "negative": ["CONDITIONING"], "latent": ["LATENT"],
            }
        },
        "output": ["LATENT"],
    },
    "Decode": {"input": {"required": {"latent": ["LATENT"], "vae": ["VAE"]}}, "output": ["IMAGE"]},
    "Save": {
        "input": {
            "required": {
                "images": ["IMAGE"],
                "format": ["COMFY_DYNAMICCOMBO_V3", {"options": [
                    {"key": "png", "inputs": {"required": {"depth": ["COMBO", {"options": ["8-bit", "16-bit"]}]}}},
                    {"key": "exr", "inputs": {}},
                ]}],
            }
        },
        "output": [], "output_node": True,
    },
    "Show": {"input": {"required": {"source": ["*"]}}, "output": ["STRING"], "output_node": True},
    "Switch": {
        "input": {
            "required": {
                "switch": ["BOOLEAN", {}],
                "off": ["COMFY_MATCHTYPE_V3", {"template": {"template_id": "t", "allowed_types": "*"}}],
                "on": ["COMFY_MATCHTYPE_V3", {"template": {"template_id": "t", "allowed_types": "*"}}],
            }
        },
        "output": ["COMFY_MATCHTYPE_V3"], "output_matchtypes": ["t"],
    },
    "Math": {
        "input": {
            "required": {
                "expression": ["STRING", {"default": "a"}],
                "values": ["COMFY_AUTOGROW_V3", {"template": {
                    "input": {"required": {"value": ["FLOAT,INT", {"forceInput": True}]}},
                    "names": ["a", "b", "c"], "min": 1,
                }}],
            }
        },
        "output": ["FLOAT", "INT"],
    },
    "Number": {"input": {"required": {"value": ["INT", {"min": 0, "max": 9999}]}}, "output": ["INT"]},
}  # fmt: skip


def schema() -> Schema:
    return Schema.from_object_info(NODES)


def node(class_type: str, /, **inputs: Any) -> dict[str, Any]:
    return {
        "class_type": class_type,
        "inputs": {key.replace("__", "."): value for key, value in inputs.items()},
    }


def plain(**changes: Any) -> dict[str, Any]:
    """Return a graph of a model, two texts, a sampler and a picture; ``changes`` replace nodes or add some."""
    return {
        "loader": node("Loader", name="a.st"),
        "good": node("Encode", text="{prompt}, sharp", clip=["loader", 1]),
        "bad": node("Encode", text="blurry", clip=["loader", 1]),
        "empty": node("Empty", width=768, batch_size=1),
        "sample": node(
            "Sample",
            model=["loader", 0],
            steps=30,
            positive=["good", 0],
            negative=["bad", 0],
            latent=["empty", 0],
        ),
        "decode": node("Decode", latent=["sample", 0], vae=["loader", 2]),
        "save": node("Save", images=["decode", 0], format="png", format__depth="8-bit"),
        **changes,
    }


def dynamic() -> dict[str, Any]:
    """Return a graph with computed sizes, a switched model, a text read from what shows it, and a zeroed negative."""
    return plain(
        patch=node("Patch", model=["loader", 0], scale=1.5),
        number=node("Number", value=100),
        math=node("Math", expression="a + b", values__a=["number", 0], values__b=["number", 0]),
        empty=node("Empty", width=["math", 1], batch_size=1),
        switch=node("Switch", switch=True, off=["loader", 0], on=["patch", 0]),
        show=node("Show", source=["math", 0]),
        good=node("Encode", text=["show", 0], clip=["loader", 1]),
        bad=node("ZeroOut", conditioning=["good", 0]),
        sample=node(
            "Sample", model=["switch", 0], steps=["math", 1], positive=["good", 0], negative=["bad", 0],
            latent=["empty", 0],
        ),
        save=node("Save", images=["decode", 0], format="exr"),
        shown=node("Show", source=["switch", 0]),
    )  # fmt: skip


def flows() -> list[Flow]:
    return [Flow.from_template(graph, schema()) for graph in (plain(), dynamic())]


def spelling() -> Spelling:
    return Spelling.train(["a red fox, sharp", "a red house, sharp", "blurry"], 280)


def domain(merges: bool = True) -> Domain:
    return full_domain(schema(), flows(), merges=spelling().merges if merges else None)


def codec(merges: bool = True) -> Codec:
    return Codec(schema(), domain(merges))
