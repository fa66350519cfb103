"""One clear line for a mistake in a config, in place of the parser's usage and its trace of tried types."""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule

from flowsmith.errors import FlowsmithError


class ConfigError(FlowsmithError):
    """A config or command line that cannot be followed."""


# What the parser says of the innermost cause, and what is said instead; `where` and the match's groups are
# filled in.
_UNKNOWN = re.compile(r"(?:Option '(?P<a>[^']+)' is not accepted|does not accept option '(?P<b>[^']+)')")
_GROUP = re.compile(r"Group '([^']+)' does not accept")
_BAD_PATH = re.compile(r"Expected a dot import path string: (?P<name>\S+)")
_BAD_VALUE = re.compile(r"Expected an? (?P<type>.+?)\. Got value: (?P<value>.*)")
_SECTIONS = ("model", "data", "trainer", "requires")
_KEY = re.compile(r'Parser key "([^"]+)":')
_CLASS = re.compile(r"given class_path '([^']+)'")
_NOISE = re.compile(
    r"^(Does not validate against|Subtypes:|Errors:|Given value|Not a valid subclass|Subclass types expect|"
    r"Expected a <class 'NoneType'>|Parser key|a class path|a dict )"
)


def explain(message: str, known: Iterable[str]) -> str:
    """Return what is wrong, where, and the nearest name that exists.

    Args:
        message: What the parser said.
        known: The dotted keys that the parser takes by itself.
    """
    known = sorted(known)
    if message.startswith("unrecognized arguments:"):
        unknown = [word for word in message.split()[2:] if word.startswith("-")] or message.split()[2:]
        return "; ".join(_unknown(word.lstrip("-").split("=")[0], known) for word in unknown)
    if missing := re.match(r"the following arguments are required: (.*)", message):
        return f"{missing[1]}: not given; say 'class_path:' and 'init_args:' under that name in the config"
    where: list[str] = []
    owner = ""
    for line in (line.strip().lstrip("- ") for line in message.splitlines()):
        if match := _KEY.search(line):
            where.append(match[1])
        if match := _CLASS.search(line):
            owner = match[1]
        if match := _UNKNOWN.search(line):
            name = match["a"] or match["b"]
            if group := _GROUP.search(line):
                where.append(group[1])
            if not owner:
                return _unknown(".".join([*where, name]), known)
            short, near = owner.rpartition(".")[2], _nearest(name, _parameters(owner))
            return f"{'.'.join([*where, name])}: {short} has no setting {name!r}{near}"
        if match := _BAD_PATH.search(line):
            near = _nearest(match["name"], _class_names())
            return f"{'.'.join(where)}: no class is called {match['name']!r}{near}"
        if match := _BAD_VALUE.search(line):
            return f"{'.'.join(where)}={match['value']}: give {_readable(match['type'])}"
    rest = [line for line in (line.strip().lstrip("- ") for line in message.splitlines()) if line]
    told = [line for line in rest if not _NOISE.match(line)] or rest
    return (f"{'.'.join(where)}: " if where else "") + "; ".join(told)


def _unknown(key: str, known: list[str]) -> str:
    owner, _, last = key.rpartition(".")
    siblings = (
        [name.removeprefix(f"{owner}.") for name in known if name.startswith(f"{owner}.")] if owner else known
    )
    if owner and not siblings:
        return f"{key}: no such setting{_nearest(owner.partition('.')[0], _SECTIONS)}"
    return f"{key}: no such setting{_nearest(last, siblings)}"


def _nearest(name: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, sorted({*names}), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def _readable(kind: str) -> str:
    kind = re.sub(r"<class '([^']+)'>", r"\1", kind.strip("'\""))
    if literal := re.fullmatch(r"typing\.Literal\[(.*)\]", kind):
        return f"one of {literal[1]}"
    return {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}.get(
        kind, kind
    )


def _parameters(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return []
    bases = inspect.getmro(kind) if inspect.isclass(kind) else (kind,)
    return [p for base in bases if "__init__" in vars(base) for p in inspect.signature(base).parameters]


def _class_names() -> list[str]:
    def below(kind: type[Any]) -> Iterator[str]:
        for sub in kind.__subclasses__():
            yield sub.__name__
            yield from below(sub)

    return [name for kind in (LightningModule, LightningDataModule, Callback) for name in below(kind)]
