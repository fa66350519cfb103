"""What is installed, and what the entry points of the repository promise."""

import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel from a copy of the checkout, without a network."""
    copy = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "*.tmp")
    for folder in (
        "flowsmith",
        "miniature",
        "callbacks",
        "datamodules",
        "lightning_modules",
        "tests",
        "configs",
    ):
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "LICENSE", "train.py", "evaluate.py"):
        shutil.copy(ROOT / name, copy)
    build = [sys.executable, "setup.py", "-q", "bdist_wheel", "-d", "wheel"]
    done = subprocess.run(build, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (path,) = (copy / "wheel").glob("*.whl")
    return zipfile.ZipFile(path)


def test_only_flowsmith_and_miniature_land_in_site_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"flowsmith", "miniature"}


def test_the_wheel_is_complete(wheel: zipfile.ZipFile) -> None:
    """Every source and data file of both packages is in it, whatever is added later."""
    kinds = {".py", ".json", ".jsonl", ".yaml", ".safetensors", ".parquet", ".txt"}
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in ("flowsmith", "miniature")
        for path in (ROOT / package).rglob("*")
        if path.suffix in kinds and not path.name.startswith(".")
    }
    packages = {Path(name).parent.as_posix() for name in expected if name.endswith("/__init__.py")}
    assert {"flowsmith", "flowsmith/flows", "miniature"} <= packages
    assert (expected | {"flowsmith/py.typed"}) - {*wheel.namelist()} == set()


def test_its_metadata(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_bytes(wheel.read(name))
    assert (metadata["Name"], metadata["Requires-Python"]) == ("flowsmith", ">=3.11")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert f"## {metadata['Version']}" in (ROOT / "CHANGELOG.md").read_text()
    requires = metadata.get_all("Requires-Dist", [])
    required = {re.split(r"[\s<>=\[;]", line)[0] for line in requires if "extra" not in line}
    assert required >= {
        *("torch", "torchvision", "lightning", "transformers", "peft", "torchmetrics", "diffusers"),
        *("omegaconf", "jsonargparse", "tensorboard", "open_clip_torch", "safetensors", "pyarrow"),
    }
    assert {*metadata.get_all("Provides-Extra", [])} == {"bench", "dev"}
    # 2.6.2 and 2.6.3 were withdrawn as compromised.
    assert "lightning>=2.6.4" in requires


def test_entry_points_stay_small() -> None:
    for name in ("train.py", "evaluate.py"):
        assert len((ROOT / name).read_text().splitlines()) <= 80


@pytest.mark.parametrize("name", ["train.py", "evaluate.py"])
def test_ctrl_c_while_importing_is_one_line(tmp_path: Path, name: str) -> None:
    shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "callbacks.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(
        [sys.executable, name], cwd=tmp_path, env=environment, text=True, stdout=-1, stderr=-1
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "importing\n"
    started.send_signal(signal.SIGINT)
    _, error = started.communicate(timeout=30)
    assert (started.returncode, error.strip()) == (130, "stopped by SIGINT; nothing was begun")


def test_make_help_tells_every_target() -> None:
    told = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert (
        {line.split()[0] for line in told.splitlines()} == {*targets} >= {"demo", "test", "test-all", "help"}
    )


def test_an_old_python_is_told(tmp_path: Path) -> None:
    old = tmp_path / "python-old"
    pretend = "import sys; sys.version_info = (3, 9, 2); sys.version = '3.9.2 x'"
    old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{pretend}\n$2"\n')
    old.chmod(0o755)
    for name in ("Makefile", "setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(["make", f"PYTHON={old}", "test"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert (
        f"Python >= 3.11 is needed, {old} is 3.9.2; name another: make PYTHON=python3.12 test" in done.stderr
    )
    assert not (tmp_path / ".venv").exists()


def test_ci_runs_make_test(tmp_path: Path) -> None:
    make = tmp_path / "make"
    make.write_text('#!/bin/sh\necho "$PWD make $@"\nexit 3\n')
    make.chmod(0o755)
    script = ROOT / ".ci" / "run"
    done = subprocess.run(
        ["bash", str(script)], cwd="/", env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True
    )
    assert (done.stdout.decode().strip(), done.returncode) == (f"{ROOT} make test", 3)
