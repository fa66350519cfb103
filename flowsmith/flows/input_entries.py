"""One input as object_info writes it, in and out.

Both combo shapes are read, ``[["a", "b"], {...}]`` and V3's ``["COMBO", {"options": [...]}]``; so are unions
("FLOAT,INT"), ``*``, and V3's inputs that match, branch or grow.
"""

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from flowsmith.flows.flow import Value
from flowsmith.flows.inputs import KINDS, Growth, InputSpec, Kind, SchemaError
from flowsmith.flows.issues import is_text, shown

MATCH, DYNAMIC, AUTOGROW = "COMFY_MATCHTYPE_V3", "COMFY_DYNAMICCOMBO_V3", "COMFY_AUTOGROW_V3"
MOST_NESTED = 8  # dynamic combos within dynamic combos; ComfyUI's own nest three deep
MOST_GROWN = 1000  # inputs of one group; ComfyUI's own have up to 50

Pool = dict[tuple[Value, ...], tuple[Value, ...]]


def read_input(name: str, entry: Any, required: bool, pool: Pool | None = None, depth: int = 0) -> InputSpec:
    """Read one input; see `InputSpec.from_object_info`.

    Args:
        name: Its name in a graph, prefix included.
        entry: ``[type]`` or ``[type, options]``.
        required: Whether a graph must give it.
        pool: Lists of choices read so far; equal ones (a folder's files, listed by many nodes) become one.
        depth: How many dynamic combos it is in.
    """
    if not isinstance(entry, list | tuple) or not entry or not isinstance(entry[0], str | list | tuple):
        raise SchemaError(
            f"input {name}={shown(entry)} is no [type] or [type, options]; give an object_info dump"
        )
    options: Mapping[str, Any] = entry[1] if len(entry) > 1 and isinstance(entry[1], dict) else {}
    first: Any = entry[0]
    if first == DYNAMIC:
        return _dynamic(name, options, required, pool, depth)
    if first == AUTOGROW:
        return _autogrow(name, options, required, pool)
    if first == MATCH:
        template = part(name, options, "template", dict)
        match, allowed = template.get("template_id"), template.get("allowed_types")
        allowed = clean(allowed) if isinstance(allowed, str) and allowed else "*"
        return InputSpec(
            name, "link", allowed, required=required, match=match if isinstance(match, str) else None
        )
    legacy = not isinstance(first, str)
    kind: Kind = "choice" if legacy else _kind(first, options)
    if kind == "choice":
        listed = first if legacy else options.get("options") or ()
        multiple = bool(options.get("multiselect") or options.get("multi_select"))
        return InputSpec(
            name, kind, "COMBO", _choices(name, listed, pool),
            default=_default(options), required=required, multiple=multiple,
        )  # fmt: skip
    minimum = maximum = step = None
    if kind in ("int", "float"):
        minimum, maximum = _bound(name, "min", options), _bound(name, "max", options)
        step, rounded = _bound(name, "step", options), _bound(name, "round", options)
        step = (rounded or step if kind == "float" else step) or None
    return InputSpec(
        name, kind, sys.intern(clean(first)),
        minimum=minimum, maximum=maximum, step=step,
        default=None if kind == "link" else _default(options), required=required,
        seed=kind == "int" and _is_seed(name.rpartition(".")[2], options),
    )  # fmt: skip


def read_inputs(
    owner: str,
    sections: Mapping[str, Any],
    orders: Mapping[str, Any],
    pool: Pool | None = None,
    prefix: str = "",
    depth: int = 0,
) -> tuple[InputSpec, ...]:
    """Read the required and then the optional inputs of a node class or of a branch, in their given order."""
    specs: dict[str, InputSpec] = {}
    for section in ("required", "optional"):
        found = part(owner, sections, section, dict)
        for name in _ordered(found, part(owner, orders, section, list)):
            full = prefix + clean(name)
            if full not in specs:  # what is required stays so
                specs[full] = read_input(full, found[name], section == "required", pool, depth)
    return tuple(specs.values())


def write_input(spec: InputSpec) -> list[Any]:
    """Write an input as object_info has it; see `InputSpec.to_object_info`."""
    options: dict[str, Any] = {}
    if spec.match is not None:
        return [MATCH, {"template": {"template_id": spec.match, "allowed_types": spec.type}}]
    if spec.grows is not None:
        growth = spec.grows
        template = {
            "input": {"required": {"element": write_input(growth.element)}},
            "min": growth.minimum,
            "max": growth.maximum,
        }
        names = {"names": list(growth.listed)} if growth.listed else {"prefix": growth.stem}
        return [AUTOGROW, {"template": {**template, **names}}]
    if spec.branches:
        options["options"] = [
            {"key": key, "inputs": write_inputs(specs, f"{spec.name}.")} for key, specs in spec.branches
        ]
    elif spec.kind == "choice":
        options["options"] = list(spec.choices)
    plain = "choice" if spec.branches else _kind(spec.type, {})
    widget = next((name for name, kind in KINDS.items() if kind == spec.kind and plain == "link"), None)
    for key, value in (
        ("min", spec.minimum), ("max", spec.maximum), ("step", spec.step), ("default", spec.default),
        ("control_after_generate", spec.seed or None), ("multiselect", spec.multiple or None),
        ("forceInput", True if spec.kind == "link" and plain != "link" else None),
        ("socketless", True if spec.kind == "widget" else None),
        ("widgetType", widget),
    ):  # fmt: skip
        if value is not None:
            options[key] = value
    return [spec.type, options] if options else [spec.type]


def write_inputs(specs: Sequence[InputSpec], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Write the required and optional inputs of a node class or of a branch."""
    sections: dict[str, dict[str, Any]] = {}
    for spec in specs:
        section = sections.setdefault("required" if spec.required else "optional", {})
        section[spec.name.removeprefix(prefix)] = write_input(spec)
    return sections


def part(owner: str, whole: Mapping[str, Any], key: str, kind: type[Any]) -> Any:
    """Return an object or list within an entry; one that is null or missing is empty."""
    found = kind() if whole.get(key) is None else whole[key]
    if not isinstance(found, kind):
        raise SchemaError(
            f"{owner}: {key}={shown(found)} is not what object_info has there; give the answer of /object_info"
        )
    return found


def clean(name: str) -> str:
    """Return a name as it is, if it can be written to a file.

    Raises:
        SchemaError: It holds half of a surrogate pair.
    """
    if not is_text(name):
        raise SchemaError(f"the name {shown(name)} is no Unicode text; rename it where it comes from")
    return name


def _dynamic(
    name: str, options: Mapping[str, Any], required: bool, pool: Pool | None, depth: int
) -> InputSpec:
    if depth >= MOST_NESTED:
        raise SchemaError(f"input {name}: more than {MOST_NESTED} choices within choices; take some out")
    branches: dict[str, tuple[InputSpec, ...]] = {}
    for option in part(name, options, "options", list):
        key = option.get("key") if isinstance(option, Mapping) else None
        if not isinstance(key, str):
            raise SchemaError(f"input {name}: the choice {shown(option)} has no key; give it one")
        sections = part(name, option, "inputs", dict)
        branches.setdefault(clean(key), read_inputs(name, sections, {}, pool, f"{name}.", depth + 1))
    return InputSpec(
        name, "choice", DYNAMIC, tuple(branches),
        default=_default(options), required=required, branches=tuple(branches.items()),
    )  # fmt: skip


def _autogrow(name: str, options: Mapping[str, Any], required: bool, pool: Pool | None) -> InputSpec:
    template = part(name, options, "template", dict)
    sections = part(name, template, "input", dict)
    entries = [
        e for section in ("required", "optional") for e in part(name, sections, section, dict).values()
    ]
    if len(entries) != 1:
        raise SchemaError(f"input {name}: {len(entries)} kinds of inputs that grow; give one")
    if isinstance(entries[0], list | tuple) and entries[0][:1] in ([DYNAMIC], [AUTOGROW]):
        raise SchemaError(
            f"input {name}: inputs that grow are of type {entries[0][0]}; give them a plain type"
        )
    element = read_input(name, entries[0], True, pool)
    listed = [clean(one) for one in part(name, template, "names", list) if isinstance(one, str)]
    stem = template.get("prefix")
    least, most = template.get("min") or 0, len(listed) if listed else template.get("max", MOST_GROWN)
    for key, number in (("min", least), ("max", most)):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MOST_GROWN:
            raise SchemaError(f"input {name}: {key}={shown(number)}; give 0 to {MOST_GROWN}")
    growth = Growth(element, least, most, clean(stem) if isinstance(stem, str) else "", tuple(listed))
    return InputSpec(name, "link", AUTOGROW, required=required, grows=growth)


def _kind(type_name: str, options: Mapping[str, Any]) -> Kind:
    kind = _kind_of_type(type_name)
    if options.get("forceInput"):
        return "link"
    if kind != "link":
        return kind
    widget = options.get("widgetType")
    if isinstance(widget, str) and widget in KINDS:
        return KINDS[widget]
    # A type that nobody knows, but the editor has something to put there, or no socket to link it to.
    return "widget" if options.get("socketless") or options.get("default") is not None else "link"


@lru_cache(maxsize=4096)
def _kind_of_type(type_name: str) -> Kind:
    kinds = {KINDS.get(one.strip(), "link") for one in type_name.split(",")}
    if kinds <= {"int", "float"}:
        return "float" if "float" in kinds else "int"
    return kinds.pop() if len(kinds) == 1 else "link"


def _is_seed(name: str, options: Mapping[str, Any]) -> bool:
    """Tell seeds from other numbers that the frontend can change after each run, such as a PrimitiveInt's."""
    return name in ("seed", "noise_seed") or ("seed" in name and bool(options.get("control_after_generate")))


def _choices(name: str, listed: Any, pool: Pool | None) -> tuple[Value, ...]:
    """Return the choices that a flow can hold: texts, finite numbers, true and false."""
    if not isinstance(listed, list | tuple):
        raise SchemaError(f"input {name}: options={shown(listed)}; give a list of choices")
    choices = tuple(choice for choice in listed if _holdable(choice))
    if pool is None or not all(type(choice) is str for choice in choices):
        return choices  # (1,) equals (True,), so only texts can share
    return pool.setdefault(choices, choices)


def _default(options: Mapping[str, Any]) -> Any:
    default = options.get("default")
    return default if _holdable(default) else None


def _holdable(value: object) -> bool:
    if isinstance(value, str):
        return is_text(value)
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _bound(name: str, key: str, options: Mapping[str, Any]) -> float | None:
    """Return a number out of an input's options, None where there is none.

    The frontend says so by false, authors of nodes by an infinity.
    """
    value = options.get(key)
    if value is None or value is False or (value == math.inf and key == "max"):
        return None
    if type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max:
        return value  # type: ignore[no-any-return]
    if value == -math.inf and key == "min":
        return None
    raise SchemaError(f"input {name}: {key}={shown(value)}; give a number, or leave it out")


def _ordered(found: Mapping[str, Any], order: Sequence[Any]) -> Iterable[str]:
    if order == list(found):
        return found
    names = dict.fromkeys(name for name in order if isinstance(name, str) and name in found)
    return [*names, *(name for name in found if name not in names)]
