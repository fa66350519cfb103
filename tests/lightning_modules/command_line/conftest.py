from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_modules.command_line import main
from tests.lightning_modules.command_line.line import LINE, Start


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Run a command line in an empty working folder that holds ``line.yaml``."""
    monkeypatch.chdir(tmp_path)
    Path("line.yaml").write_text(yaml.safe_dump(LINE))

    def run(*words: str, mode: Any = "fit", stop: str = "") -> int:
        monkeypatch.setenv("STAND_IN_STOP", stop)
        return main(mode, [str(word) for word in words])

    return run
