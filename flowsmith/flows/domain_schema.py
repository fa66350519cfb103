"""Whether a domain fits the schema that it chooses from."""

from dataclasses import replace
from typing import TYPE_CHECKING

from flowsmith.errors import FlowsmithError
from flowsmith.flows.flow import Value
from flowsmith.flows.issues import nearest
from flowsmith.flows.schema import InputSpec, NodeType, Schema
from flowsmith.flows.sizes import SIZE_RULES, SIZED_TYPES, SizeRule
from flowsmith.flows.stages import ADD, END, LEAVE, STAGED, START, Stages
from flowsmith.flows.validate import validate
from flowsmith.flows.wide.width import wide_inputs

if TYPE_CHECKING:
    from flowsmith.flows.domain import Domain


class DomainError(FlowsmithError):
    """A domain contradicts itself or the schema."""


def check_against_schema(domain: "Domain", schema: Schema) -> None:
    """Check a domain against the schema of its own classes.

    Raises:
        DomainError: An input or value of the domain is not in the schema, an input has no values, or what
            bears on size is not known of a class or file.
    """
    known: dict[str, InputSpec] = {}
    owners: dict[str, str] = {}
    for name in domain.classes:
        node = schema.nodes[name]
        for spec in node.flow_inputs if domain.width is None else wide_inputs(node, domain.width):
            known[f"{name}.{spec.name}"], owners[f"{name}.{spec.name}"] = spec, name
    for target, grid in domain.values.items():
        if target not in known or known[target].kind == "link":
            raise DomainError(f"values: {target!r} takes no value; {nearest(target, known)}")
        for value in grid:
            _check_value(target, owners[target], known[target], value)
    for target, spec in known.items():
        if domain.grid(owners[target], spec) is None and spec.required and spec.kind != "link":
            raise DomainError(f"values: {target!r} has none; give it a list of values")
    if domain.width is not None:
        return
    for name in domain.classes:
        node = schema.nodes[name]
        if name not in SIZE_RULES and set(SIZED_TYPES) & set(node.outputs):
            raise DomainError(
                f"classes: {name!r} has no rule of size; give it one in flowsmith/flows/sizes.py"
            )
        rule = SIZE_RULES.get(name, SizeRule())
        target = f"{name}.{rule.denoise}"
        if domain.sample_empty_latents and rule.denoise and rule.full not in domain.values[target]:
            raise DomainError(f"values: {target!r} lacks {rule.full}, which empty latents need; add it")
    _check_factors(domain)
    if domain.sample_empty_latents and STAGED in domain.classes:
        _check_stages(domain)


def _check_value(target: str, name: str, spec: InputSpec, value: Value) -> None:
    """Ask the validator about one value, in a schema of one node."""
    spec = replace(spec, branches=())  # what a choice brings with it has values of its own
    alone = Schema({name: NodeType(name, (spec,), (), True)})
    issues = validate({"1": {"class_type": name, "inputs": {spec.name: value}}}, alone, template=True)
    if issues:
        raise DomainError(f"values: {target}: {value!r} cannot be used ({issues[0].message})")


def _check_factors(domain: "Domain") -> None:
    """Check that the upscale models of the domain, and no other files, have a factor."""
    files = {
        value: f"{name}.{rule.file}"
        for name, rule in ((name, SIZE_RULES.get(name, SizeRule())) for name in domain.classes)
        if rule.file
        for value in domain.values[f"{name}.{rule.file}"]
    }
    for file, target in files.items():
        if file not in domain.upscale_factors:
            raise DomainError(
                f"values: {target}: {file!r} has no factor; say under upscale_factors how many times wider "
                "and higher its pictures are"
            )
    for name in domain.upscale_factors:
        if name not in files:
            raise DomainError(f"upscale_factors: {name!r} is no upscale model here; {nearest(name, files)}")


def _check_stages(domain: "Domain") -> None:
    """Check that every value of a KSamplerAdvanced has a place in some flow (see `stages`)."""
    stages = Stages(domain.values)
    for name, value, there in ((ADD, "enable", stages.adds), (LEAVE, "disable", stages.leaves)):
        if value not in there:
            raise DomainError(f"values: '{STAGED}.{name}' lacks {value!r}, which every picture needs; add it")
    if not max(stages.ends) > 0:
        raise DomainError(
            f"values: '{STAGED}.{END}' lets nothing be sampled; add a step, or 10000 for the last"
        )
    goes_on, leaves = "disable" in stages.adds, "enable" in stages.leaves
    if goes_on != leaves:
        lacks, value, has, other = (
            (LEAVE, "enable", ADD, "disable") if goes_on else (ADD, "disable", LEAVE, "enable")
        )
        raise DomainError(
            f"values: '{STAGED}.{has}' has {other!r}, but '{STAGED}.{lacks}' lacks {value!r}, without which "
            f"noise is left or lacking; add {value!r}, or take {other!r} out"
        )
    if goes_on and not any(stages.handovers(steps) for steps in stages.steps):
        raise DomainError(
            f"values: no step is in both '{STAGED}.{START}' and '{STAGED}.{END}', above 0, below some of "
            f"'{STAGED}.steps' and below another end, so no node can go on where another stops; add one"
        )
