"""A graph as the editor saves it, with what real files are full of, and what the editor would send for it."""

import json
from pathlib import Path
from typing import Any

from flowsmith.flows import Schema

Graph = dict[str, Any]
FILE = "sd15.safetensors"


def installed(*files: str) -> Schema:
    """The project's nodes, with checkpoints that are installed."""
    return Schema.core().restrict(choices={"CheckpointLoaderSimple.ckpt_name": files})


def node(
    node_id: int, kind: str, inputs: Graph, outputs: list[list[int]], values: Any = None, mode: int = 0
) -> Graph:
    """A node of the editor's format; ``inputs`` maps names to (type, link)."""
    slots = [{"name": name, "type": kind, "link": link} for name, (kind, link) in inputs.items()]
    return {
        "id": node_id, "type": kind, "mode": mode, "pos": [0, 0], "size": [200, 100], "inputs": slots,
        "outputs": [{"name": "x", "type": "x", "links": links} for links in outputs],
        "properties": {}, "widgets_values": values,
    }  # fmt: skip


def editor_graph() -> Graph:
    """A graph with a reroute, a bypassed LoRA, a muted branch, a primitive, a note and a converted setting."""
    sampled = {
        "model": ("MODEL", 2), "positive": ("CONDITIONING", 5), "negative": ("CONDITIONING", 6),
        "latent_image": ("LATENT", 7), "cfg": ("FLOAT", 8),
    }  # fmt: skip
    nodes = [
        node(4, "CheckpointLoaderSimple", {}, [[1], [3, 4], [10]], [FILE]),
        node(10, "LoraLoader", {"model": ("MODEL", 1), "clip": ("CLIP", None)}, [[2], []], ["x.safetensors", 1, 1], 4),
        node(6, "CLIPTextEncode", {"clip": ("CLIP", 3)}, [[5]], ["a {red|blue} fox"]),
        node(7, "CLIPTextEncode", {"clip": ("CLIP", 4)}, [[6]], ["blurry"]),
        node(5, "EmptyLatentImage", {}, [[7]], [512, 768, 1]),
        node(11, "PrimitiveNode", {}, [[8]], [6.5, "fixed"]),
        node(3, "KSampler", sampled, [[9]], [42, "randomize", 20, 8, "euler", "karras", 1]),
        node(12, "Reroute", {"": ("*", 9)}, [[11, 12]]),
        node(8, "VAEDecode", {"samples": ("LATENT", 11), "vae": ("VAE", 10)}, [[13]]),
        node(9, "SaveImage", {"images": ("IMAGE", 13)}, [], ["out"]),
        node(13, "VAEDecode", {"samples": ("LATENT", 12), "vae": ("VAE", None)}, [[14]], None, 2),
        node(14, "SaveImage", {"images": ("IMAGE", 14)}, [], ["second"], 2),
        node(15, "Note", {}, [], ["do not forget"]),
    ]  # fmt: skip
    links = [
        [1, 4, 0, 10, 0, "MODEL"], [2, 10, 0, 3, 0, "MODEL"], [3, 4, 1, 6, 0, "CLIP"], [4, 4, 1, 7, 0, "CLIP"],
        [5, 6, 0, 3, 1, "CONDITIONING"], [6, 7, 0, 3, 2, "CONDITIONING"], [7, 5, 0, 3, 3, "LATENT"],
        [8, 11, 0, 3, 4, "FLOAT"], [9, 3, 0, 12, 0, "*"], [10, 4, 2, 8, 1, "VAE"], [11, 12, 0, 8, 0, "LATENT"],
        [12, 12, 0, 13, 0, "LATENT"], [13, 8, 0, 9, 0, "IMAGE"], [14, 13, 0, 14, 0, "IMAGE"],
    ]  # fmt: skip
    return {
        "last_node_id": 15,
        "last_link_id": 14,
        "nodes": nodes,
        "links": links,
        "groups": [],
        "version": 0.4,
    }


def sent_graph() -> Graph:
    """What the editor sends for `editor_graph`, written by hand."""
    return {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": FILE}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a {red|blue} fox", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 1}},
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": 42, "steps": 20, "cfg": 6.5, "sampler_name": "euler", "scheduler": "karras", "denoise": 1,
                "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
            },
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "out"}},
    }  # fmt: skip


def unfolded(subgraph_mode: int = 0) -> Graph:
    """`editor_graph` with its decoder within a subgraph."""
    graph = editor_graph()
    graph["nodes"] = [each for each in graph["nodes"] if each["id"] not in (8, 13, 14)]
    graph["links"] = [link for link in graph["links"] if link[0] not in (12, 14)]
    outer = node(8, "0-1-2", {"samples": ("LATENT", 11), "vae": ("VAE", 10)}, [[13]], [], subgraph_mode)
    graph["nodes"].append(outer)
    inner = node(1, "VAEDecode", {"samples": ("LATENT", 1), "vae": ("VAE", 2)}, [[3]])
    ends = [(-10, 0, 1, 0, "LATENT"), (-10, 1, 1, 1, "VAE"), (1, 0, -20, 0, "IMAGE")]
    names = ("origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [{"id": place, **dict(zip(names, end, strict=True))} for place, end in enumerate(ends, 1)]
    ports = [
        {"name": "samples", "type": "LATENT", "linkIds": [1]},
        {"name": "vae", "type": "VAE", "linkIds": [2]},
    ]
    subgraph = {
        "id": "0-1-2", "nodes": [inner], "links": links, "inputs": ports,
        "outputs": [{"name": "IMAGE", "type": "IMAGE", "linkIds": [3]}],
    }  # fmt: skip
    return graph | {"definitions": {"subgraphs": [subgraph]}}


def written(folder: Path, graph: Any) -> Path:
    """A file that holds the graph."""
    path = folder / "graph.json"
    path.write_text(json.dumps(graph), encoding="utf-8")
    return path
