"""What a policy may choose within a schema: classes, values, texts and bounds."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, get_args

import yaml

from flowsmith.flows.domain_check import domain_issues
from flowsmith.flows.domain_schema import DomainError, check_against_schema
from flowsmith.flows.flow import Flow, Value
from flowsmith.flows.issues import FlowError, FlowIssue, nearest
from flowsmith.flows.roles import Role
from flowsmith.flows.schema import InputSpec, Schema, normalise
from flowsmith.flows.templates import TemplateError, has_prompt
from flowsmith.flows.validate import validate
from flowsmith.flows.wide.width import Width


@dataclass(frozen=True)
class Domain:
    """What may be chosen.

    Attributes:
        classes: Allowed node classes, each with how many of it a flow may have.
        values: Allowed values per "Class.input"; every input that is no link, no seed and no prompt text
            needs them (an optional one without stays absent).
        texts: Allowed templates per role. Positive ones hold ``{prompt}``; the two lists share none, so that
            a text tells its role.
        max_pixels: Most pixels that any latent (in image pixels) or image may have; infinite (null in a
            file) for no bound.
        max_pixel_steps: Most steps x pixels, summed over sampling nodes, or infinite.
        sample_empty_latents: Whether an empty latent must be sampled with full denoise, and before it is
            decoded, and what a KSamplerAdvanced leaves of the noise be taken away by another (see `stages`);
            otherwise flows that decode noise are in the domain.
        upscale_factors: How many times wider and higher a picture comes out of each upscale model, by file
            name: bounds on pixels are checked with it, and a schema does not tell it.
        width: What a domain at full width has beyond the rest (see `flowsmith.flows.wide`), or None. Such a
            domain bounds sizes by its grids alone.
    """

    classes: Mapping[str, int]
    values: Mapping[str, tuple[Value, ...]]
    texts: Mapping[Role, tuple[str, ...]]
    max_pixels: float
    max_pixel_steps: float
    sample_empty_latents: bool = True
    upscale_factors: Mapping[str, float] = field(default_factory=dict)
    width: Width | None = None

    @classmethod
    def from_yaml(cls, path: Path | str) -> "Domain":
        """Read a domain from a YAML (or JSON) file of its attributes.

        Raises:
            DomainError: The file cannot be read, or a key is unknown, missing or of the wrong kind.
        """
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise DomainError(
                f"domain={path}: cannot be read ({error}); name a YAML file of a domain"
            ) from error
        return cls.from_json(content, str(path))

    @classmethod
    def from_json(cls, content: Any, source: str = "domain") -> "Domain":
        """Read a domain from plain objects, as `to_json` writes them; see `from_yaml`."""
        names = [setting.name for setting in fields(cls)]
        needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
        if not isinstance(content, Mapping):
            raise DomainError(f"{source}: no object of settings; give {', '.join(names)}")
        for name in content:
            if name not in names:
                raise DomainError(f"{source}: {name!r} is no setting of a domain; {nearest(name, names)}")
        for name in needed:
            if name not in content:
                raise DomainError(f"{source}: {name!r} is missing; give {', '.join(needed)}")
        classes = _mapping(source, content, "classes")
        for name, most in classes.items():
            if isinstance(most, bool) or not isinstance(most, int) or most < 1:
                raise DomainError(f"{source}: classes.{name}={most!r}; give how many of it, 1 or more")
        factors = _mapping(source, {"upscale_factors": {}, **content}, "upscale_factors")
        bounds = {name: content[name] for name in ("max_pixels", "max_pixel_steps")}
        bounds = {name: inf if bound is None else bound for name, bound in bounds.items()}
        numbers = dict(bounds)
        numbers |= {f"upscale_factors.{name}": factor for name, factor in factors.items()}
        for name, number in numbers.items():
            if isinstance(number, bool) or not isinstance(number, int | float) or not number > 0:
                raise DomainError(f"{source}: {name}={number!r}; give a positive number")
        pictures = content.get("sample_empty_latents", True)
        if not isinstance(pictures, bool):
            raise DomainError(f"{source}: sample_empty_latents={pictures!r}; give true or false")
        texts = {role: tuple(grid) for role, grid in _grids(source, content, "texts").items()}
        if set(texts) != set(get_args(Role)):
            raise DomainError(f"{source}: texts={[*texts]}; give positive and negative")
        domain = cls(
            classes=dict(classes),
            values=_grids(source, content, "values"),
            texts=texts,  # type: ignore[arg-type]  # checked just before
            **bounds,
            sample_empty_latents=pictures,
            upscale_factors=dict(factors),
            width=None if content.get("width") is None else Width.from_json(content["width"]),
        )
        domain._check_texts(source)
        return domain

    def to_json(self) -> dict[str, Any]:
        """Write the domain as plain objects."""
        # Left out where there are none, so that what was exported before there were any keeps its fingerprint.
        factors = {"upscale_factors": dict(self.upscale_factors)} if self.upscale_factors else {}
        width = {} if self.width is None else {"width": self.width.to_json()}
        return {
            "classes": dict(self.classes),
            "values": {name: list(grid) for name, grid in self.values.items()},
            "texts": {role: list(grid) for role, grid in self.texts.items()},
            "max_pixels": _finite(self.max_pixels),
            "max_pixel_steps": _finite(self.max_pixel_steps),
            "sample_empty_latents": self.sample_empty_latents,
            **factors,
            **width,
        }

    def restrict(self, schema: Schema) -> Schema:
        """Return the schema with the domain's classes only; where it lists no model files, with the domain's.

        Raises:
            DomainError: A class, input or value of the domain is not in the schema, or an input has no
                values.
        """
        for name in self.classes:
            if name not in schema.nodes:
                raise DomainError(f"classes: {name!r} is not in the schema; {nearest(name, schema.nodes)}")
        open_lists = {
            f"{name}.{spec.name}": self.values[f"{name}.{spec.name}"]
            for name in self.classes
            for spec in schema.nodes[name].inputs
            if spec.kind == "choice" and not spec.choices and f"{name}.{spec.name}" in self.values
        }
        restricted = schema.restrict(list(self.classes), open_lists)
        check_against_schema(self, restricted)
        return restricted

    @cached_property
    def _normal(self) -> dict[tuple[str, str], tuple[Value, ...]]:
        """Grids in normal form, as they are asked for."""
        return {}

    def grid(self, class_name: str, spec: InputSpec, role: Role | None = None) -> tuple[Value, ...] | None:
        """Return what may stand in a value input, in normal form; None if it is not to be given."""
        target = f"{class_name}.{spec.name}"
        if target in self.values:
            known = self._normal.get((target, spec.kind))
            if known is None:
                known = tuple(normalise(value, spec.kind) for value in self.values[target])
                self._normal[target, spec.kind] = known
            return known
        return self.texts[role or "positive"] if spec.kind == "text" and spec.required else None

    def issues(self, flow: Flow, schema: Schema) -> list[FlowIssue]:
        """Return what keeps a valid flow out of the domain."""
        return domain_issues(flow, schema, self)

    def check(self, flow: Flow, schema: Schema, source: str = "flow") -> None:
        """Raise a `FlowError` if a flow is not valid or not in the domain."""
        issues = validate(flow, schema) or self.issues(flow, schema)
        if issues:
            raise FlowError(issues, source)

    def _check_texts(self, source: str) -> None:
        for role, templates in self.texts.items():
            for text in templates:
                try:
                    placed = has_prompt(text)
                except (TemplateError, TypeError) as error:
                    raise DomainError(f"{source}: texts.{role}: {error}") from error
                if placed != (role == "positive"):
                    rule = "positive texts hold {prompt}, negative texts do not"
                    raise DomainError(f"{source}: texts.{role}: {text!r}; {rule}")


def _finite(bound: float) -> float | None:
    return None if bound == inf else bound


def _mapping(source: str, content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if not isinstance(content[name], Mapping):
        raise DomainError(f"{source}: {name}={content[name]!r}; give a mapping")
    return content[name]  # type: ignore[no-any-return]


def _grids(source: str, content: Mapping[str, Any], name: str) -> dict[str, tuple[Any, ...]]:
    grids: dict[str, tuple[Any, ...]] = {}
    for target, grid in _mapping(source, content, name).items():
        if not isinstance(grid, list) or not grid:
            raise DomainError(f"{source}: {name}.{target}={grid!r}; give a list of one or more")
        strange = [value for value in grid if not isinstance(value, Value)]
        if strange:  # YAML makes a date of 2024-01-01 and null of nothing
            raise DomainError(
                f"{source}: {name}.{target}: {strange[0]!r} is a {type(strange[0]).__name__}; give texts (in "
                "quotes), numbers, true or false"
            )
        if len({json.dumps(value) for value in grid}) != len(grid) or len(set(map(str, grid))) != len(grid):
            raise DomainError(f"{source}: {name}.{target}={grid!r}: a value stands twice; take one out")
        grids[target] = tuple(grid)
    return grids
