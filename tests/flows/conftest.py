"""What the tests of flows share: the miniature's domain and codec, and a plain graph."""

from pathlib import Path
from typing import Any

import pytest

from flowsmith.flows import Codec, Domain, Flow, Schema, load_corpus

DOMAIN = Path(__file__).parents[2] / "miniature" / "domain.yaml"


@pytest.fixture(scope="session")
def domain() -> Domain:
    return Domain.from_yaml(DOMAIN)


@pytest.fixture(scope="session")
def codec(domain: Domain) -> Codec:
    return Codec(Schema.core(), domain)


@pytest.fixture(scope="session")
def schema(codec: Codec) -> Schema:
    return codec.schema


@pytest.fixture
def graph() -> dict[str, Any]:
    """A plain graph in templated API format, its nodes in the order of a typical export."""
    sampler = {"steps": 20, "cfg": 4, "sampler_name": "euler", "scheduler": "normal", "denoise": 1}
    links = {"model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    return {
        "3": {"class_type": "KSampler", "inputs": {**sampler, **links}},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "mini_base"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "{prompt}", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "flowsmith", "images": ["8", 0]}},
    }


@pytest.fixture(scope="session")
def corpus(schema: Schema) -> dict[str, Flow]:
    return load_corpus(DOMAIN.parent / "flows", schema)
