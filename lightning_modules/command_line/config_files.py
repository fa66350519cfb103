"""Finding the configs that a command line names."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_modules.command_line.config_errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"


def find_configs(arguments: Sequence[str]) -> tuple[list[str], list[Path]]:
    """Look configs up in the working folder, then in ``configs/``.

    Returns:
        The arguments with the paths that were found in place of bare names, and these paths.

    Raises:
        ConfigError: A config is in neither place, or is no YAML mapping.
    """
    found, paths = list(arguments), []
    for position, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        if option not in ("-c", "--config"):
            continue
        if not equals and position + 1 < len(arguments):
            value = arguments[position + 1]
        path = find_config(value)
        read_config(path)
        paths.append(path)
        found[position if equals else position + 1] = f"{option}={path}" if equals else str(path)
    return found, paths


def find_config(name: str) -> Path:
    """Return the file that a name stands for.

    Raises:
        ConfigError: There is none.
    """
    for path in (Path(name), CONFIGS / name):
        if path.is_file():
            return path
    shipped = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")}
    near = difflib.get_close_matches(name, shipped, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(shipped)) or 'none'}"
    raise ConfigError(f"--config {name}: neither in the working folder nor in configs/; {hint}")


def read_config(path: Path) -> dict[str, Any]:
    """Read one config without resolving it.

    Raises:
        ConfigError: The file is no YAML mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{place}: not YAML ({error.problem})") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no settings; give 'model:', 'data:', 'trainer:' sections")
    if not isinstance(content.get("trainer", {}), dict):
        raise ConfigError(
            f"{path}: 'trainer:' holds no settings; give 'name: value' lines under it, or none of it"
        )
    return content
