"""What a user fixes for a design, as a smaller domain: the grammar then writes nothing else.

Only what the model learned a token for can be fixed; everything else is refused with the reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flowsmith.errors import FlowsmithError
from flowsmith.flows import Domain, Schema, Value
from flowsmith.flows.inputs import fits
from flowsmith.flows.issues import nearest

_SIDES = ("width", "height")


class WishError(FlowsmithError):
    """A wish cannot be kept by this designer."""


@dataclass(frozen=True)
class Wishes:
    """What a user fixes.

    Attributes:
        models: The only model files that a flow may name, of all kinds; None: any.
        nodes: The only node classes; None: any.
        max_steps: Most steps of each sampling node, or None.
        pins: "Class.input=value" each: the value wherever such a node stands.
        resolution: Width and height in pixels of the latent that a flow starts from, or None. What upscales comes
            after it and keeps the aspect ratio.
    """

    models: Sequence[str] | None = None
    nodes: Sequence[str] | None = None
    max_steps: int | None = None
    pins: Sequence[str] = ()
    resolution: tuple[int, int] | None = None


def restrict(domain: Domain, schema: Schema, wishes: Wishes) -> Domain:
    """Return the part of a domain that keeps to the wishes.

    Args:
        domain: What the model learned to choose from.
        schema: Its nodes.
        wishes: What the user fixes.

    Raises:
        WishError: The model has no token for what is wished, or nothing is left.
    """
    values = {target: tuple(grid) for target, grid in domain.values.items()}
    classes = dict(domain.classes)
    if wishes.nodes is not None:
        for name in wishes.nodes:
            if name not in classes:
                raise WishError(f"only-nodes: the designer knows no {name!r}; {nearest(name, classes)}")
        classes = {name: most for name, most in classes.items() if name in wishes.nodes}
    if wishes.models is not None:
        values = _only_models(values, wishes.models)
    if wishes.max_steps is not None:
        values = _at_most(values, wishes.max_steps)
    if wishes.resolution is not None:
        for target, side in _sized(values, schema).items():
            values[target] = (
                _known("resolution", target, values[target], str(wishes.resolution[_SIDES.index(side)])),
            )
    for pin in wishes.pins:
        target, equals, text = pin.partition("=")
        if not equals or target not in values:
            raise WishError(
                f"pin {pin!r}: the designer chooses no such value; write Class.input=value; "
                f"{nearest(target, values)}"
            )
        values[target] = (_known("pin", target, values[target], text),)
    empty = {_owner(target, domain.classes) for target, grid in values.items() if not grid}
    classes = _usable({name: most for name, most in classes.items() if name not in empty}, schema)
    if not any(schema.node(name).is_output for name in classes):
        raise WishError("together, these wishes leave no node that a flow could end in; take one back")
    kept = {
        target: grid for target, grid in values.items() if grid and _owner(target, domain.classes) in classes
    }
    files = {value for grid in kept.values() for value in grid}
    factors = {name: factor for name, factor in domain.upscale_factors.items() if name in files}
    return replace(domain, classes=classes, values=kept, upscale_factors=factors)


def _only_models(values: dict[str, tuple[Value, ...]], models: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    known = {str(value) for target, grid in values.items() if _names_files(target) for value in grid}
    for name in models:
        if name not in known:
            raise WishError(f"only-models: the designer knows no {name!r}; {nearest(name, sorted(known))}")
    return {
        target: tuple(value for value in grid if value in models) if _names_files(target) else grid
        for target, grid in values.items()
    }


def _names_files(target: str) -> bool:
    name = target.rsplit(".", 1)[-1]
    return name.rstrip("0123456789").endswith("_name") and name != "sampler_name"


def _at_most(values: dict[str, tuple[Value, ...]], most: int) -> dict[str, tuple[Value, ...]]:
    cut = {
        target: tuple(value for value in grid if isinstance(value, int) and value <= most)
        for target, grid in values.items()
        if target.endswith(".steps")
    }
    if cut and not any(cut.values()):
        least = min(value for target in cut for value in values[target] if isinstance(value, int))
        raise WishError(
            f"max-steps={most}: the designer learned no fewer than {least}; ask for {least} or more"
        )
    return values | cut


def _sized(values: Mapping[str, Sequence[Value]], schema: Schema) -> dict[str, str]:
    """Return the inputs that say how large the latent is that a flow starts from, with the side."""
    found: dict[str, str] = {}
    for name, node in schema.nodes.items():
        targets = {f"{name}.{side}": side for side in _SIDES}
        links = any(spec.kind == "link" and spec.required for spec in node.inputs)
        if "LATENT" in node.outputs and not links and all(target in values for target in targets):
            found |= targets
    if not found:
        raise WishError(
            "resolution: no node of this designer makes an empty latent of a given size; leave it out"
        )
    return found


def _known(wish: str, target: str, grid: Sequence[Value], text: str) -> Value:
    """Return the value of a grid that a text names."""
    for value in grid:
        if text == str(value) or (not isinstance(value, str | bool) and _number(text) == value):
            return value
        if isinstance(value, bool) and text.lower() == str(value).lower():
            return value
    raise WishError(
        f"{wish}: {target}={text} is nothing that the designer learned a token for; {nearest(text, grid)}"
    )


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _owner(target: str, classes: Mapping[str, int]) -> str:
    """Return the class of "Class.input"; both may hold dots."""
    return max((name for name in classes if target.startswith(f"{name}.")), key=len, default="")


def _usable(classes: dict[str, int], schema: Schema) -> dict[str, int]:
    """Leave out classes that need what no other class makes, until none does."""
    while True:
        makers = (schema.node(name) for name in classes)
        made = [kind for node in makers if not node.is_output for kind in node.outputs]
        lacking = [
            name
            for name in classes
            for spec in schema.node(name).inputs
            if spec.kind == "link" and spec.required and not any(fits(kind, spec.type) for kind in made)
        ]
        if not lacking:
            return classes
        classes = {name: most for name, most in classes.items() if name not in lacking}
