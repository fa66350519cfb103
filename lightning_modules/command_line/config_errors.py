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
_WRONG_KIND = re.compile(r"Import path (?P<name>\S+) does not correspond to a subclass of")
_BAD_VALUE = re.compile(r"Expected an? (?P<type>.+?)\. Got value: (?P<value>.*)")
# Of a value that may be of several types, the parser tells each that it tried, and last what was given.
_TRIED = re.compile(
    r"^Expected an? (?P<type>(?:<class '|typing\.).*)$|^Not a valid subclass of (?P<base>\w+)"
)
_GIVEN = re.compile(r"^Given value: (?P<value>.*)")
_BASES = {"model": LightningModule, "data": LightningDataModule, "trainer.callbacks": Callback}
_PLAIN = {
    **{"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"},
    **{"list": "a list", "dict": "names with values"},
}
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
    tried: list[str] = []
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
        if match := _BAD_PATH.search(line) or _WRONG_KIND.search(line):
            return _no_such_class(".".join(where), match["name"])
        if match := _BAD_VALUE.search(line):
            return f"{'.'.join(where)}={match['value']}: give {_readable(match['type'])}"
        if (match := _TRIED.match(line)) and "NoneType" not in line:
            tried.append(
                f"a {match['base']} by its class_path" if match["base"] else _readable(match["type"])
            )
        if (match := _GIVEN.match(line)) and tried:
            return f"{'.'.join(where)}={match['value']}: give {' or '.join(tried)}"
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


def _no_such_class(key: str, name: str) -> str:
    base = _BASES.get(key)
    fitting = _class_names(base) if base else [n for kind in _BASES.values() for n in _class_names(kind)]
    exists = "." in name or name in [n for kind in _BASES.values() for n in _class_names(kind)]
    if base and exists:
        return f"{key}: {name} is no {base.__name__}; give one of {', '.join(sorted({*fitting}))}"
    return f"{key}: no class is called {name!r}{_nearest(name, fitting)}"


def _nearest(name: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, sorted({*names}), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def _readable(kind: str) -> str:
    kind = re.sub(r"<class '([^']+)'>", r"\1", kind.strip("'\""))
    if literal := re.fullmatch(r"typing\.Literal\[(.*)\]", kind):
        return f"one of {literal[1]}"
    return _PLAIN.get(kind, kind)


def _parameters(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        return []
    bases = inspect.getmro(kind) if inspect.isclass(kind) else (kind,)
    return [p for base in bases if "__init__" in vars(base) for p in inspect.signature(base).parameters]


def _class_names(base: type[Any]) -> list[str]:
    """Return the names of the classes that a config may name in the place of a base."""

    def below(kind: type[Any]) -> Iterator[str]:
        for sub in kind.__subclasses__():
            yield sub.__name__
            yield from below(sub)

    return [*below(base)]
