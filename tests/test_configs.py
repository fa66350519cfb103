"""Every config of the repository names classes and settings that exist, and files that the repository has."""

import re
from pathlib import Path

import pytest
import yaml

from lightning_modules.command_line import main
from lightning_modules.command_line.config_files import CONFIGS, ROOT

STAGES = sorted(CONFIGS.glob("*.yaml"))
FULL = sorted(CONFIGS.glob("full/*.yaml"))


@pytest.mark.parametrize("path", [*STAGES, *FULL], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_parses(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main("fit", ["--config", str(path), "--print_config"])
    assert stopped.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    given = yaml.safe_load(path.read_text())
    assert printed["model"]["class_path"].endswith(given["model"]["class_path"])
    for name, value in given["model"]["init_args"].items():
        if not isinstance(value, list):
            assert printed["model"]["init_args"][name] == value
    assert printed["mode"] == ("predict" if path.stem in ("collect", "dense", "evaluate") else "fit")


@pytest.mark.parametrize("path", STAGES, ids=lambda path: path.stem)
def test_names_files_that_are_there(path: Path) -> None:
    named = re.findall(r"(?<=: )miniature/[\w/.]+", path.read_text())
    assert named
    for name in named:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_says_what_it_is(path: Path) -> None:
    assert path.read_text().startswith("# ")
