"""A domain chooses from the installation that was written beside it."""

import json
from pathlib import Path

import pytest

from flowsmith.flows import Schema, SchemaError
from flowsmith.flows.schema_beside import schema_beside


def test_without_a_schema_beside_it_the_core_nodes_are_meant(tmp_path: Path) -> None:
    assert schema_beside(tmp_path / "domain.yaml").to_object_info() == Schema.core().to_object_info()


def test_the_schema_beside_it_is_read(tmp_path: Path) -> None:
    mine = Schema.core().restrict(["KSampler", "SaveImage"], {"KSampler.sampler_name": ["lms"]})
    (tmp_path / "schema.json").write_text(json.dumps(mine.to_object_info()))
    found = schema_beside(str(tmp_path / "domain.yaml"))
    assert set(found.nodes) == {"KSampler", "SaveImage"}
    assert next(s for s in found.node("KSampler").inputs if s.name == "sampler_name").choices == ("lms",)


def test_a_broken_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text("[1]")
    with pytest.raises(SchemaError):
        schema_beside(tmp_path / "domain.yaml")
