"""Run folders, the settings they compare, and the stamps of exports."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowsmith.exports import (
    DamagedExportError,
    MissingExportError,
    StaleExportError,
    check_export,
    content_hash,
    stamp_export,
)
from flowsmith.files import atomic_write
from flowsmith.run_folder import ChangedRunError, RunFolder, RunFolderError, git_diff, git_revision
from flowsmith.settings import changes, fingerprint, flatten, path_fingerprint, result_settings

CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "mode": "fit",
    "trainer": {
        "max_steps": 10,
        "devices": 1,
        "strategy": "auto",
        "callbacks": [
            {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"save_last": True}},
            {"class_path": "callbacks.GuidedSampling", "init_args": {"weights": [1.0, 2.0]}},
            {"class_path": "callbacks.GuidedSampling", "init_args": {"weights": [4.0]}},
        ],
    },
    "model": {"class_path": "lightning_modules.GRPOModule", "init_args": {"lr": 0.001, "note": None}},
    "data": {"class_path": "datamodules.Prompts", "init_args": {"num_workers": 2, "batch_size": 8}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(json.dumps(CONFIG))
    *parents, last = path.split("/")
    part: Any = config
    for name in parents:
        part = part[int(name) if isinstance(part, list) else name]
    part[last] = value
    return config


def test_settings_are_those_the_command_line_takes() -> None:
    assert result_settings(CONFIG) == {
        "seed_everything": 0,
        "trainer.max_steps": 10,
        "trainer.callbacks.GuidedSampling": "GuidedSampling",
        "trainer.callbacks.GuidedSampling.weights": [1.0, 2.0],
        "trainer.callbacks.GuidedSampling#2": "GuidedSampling",
        "trainer.callbacks.GuidedSampling#2.weights": [4.0],
        "model": "GRPOModule",
        "model.lr": 0.001,
        "data": "Prompts",
        "data.batch_size": 8,
    }


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mode", "validate"),
        ("trainer/devices", 2),
        ("trainer/strategy", {"class_path": "DDPStrategy", "init_args": {"find_unused_parameters": True}}),
        ("trainer/num_nodes", 4),
        ("trainer/logger", False),
        ("trainer/callbacks/0/init_args", {"save_top_k": 3}),
        ("data/init_args/num_workers", 0),
    ],
)
def test_where_and_how_fast_a_run_goes_is_free(path: str, value: Any) -> None:
    assert changes(result_settings(CONFIG), result_settings(changed(path, value))) == []


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("model/init_args/lr", 0.01, ["model.lr: 0.001 -> 0.01"]),
        ("model/init_args/note", "x", ['model.note: (not there) -> "x"']),
        ("trainer/max_steps", 20, ["trainer.max_steps: 10 -> 20"]),
        ("seed_everything", 1, ["seed_everything: 0 -> 1"]),
        ("data/init_args/batch_size", 4, ["data.batch_size: 8 -> 4"]),
        (
            "trainer/callbacks/2/init_args/weights",
            [5.0],
            ["trainer.callbacks.GuidedSampling#2.weights: [4.0] -> [5.0]"],
        ),
    ],
)
def test_what_decides_the_results_is_told_by_its_key(path: str, value: Any, told: list[str]) -> None:
    assert [str(c) for c in changes(result_settings(CONFIG), result_settings(changed(path, value)))] == told


PLAIN = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    max_size=4,
)


@given(PLAIN, PLAIN)
def test_fingerprints_are_equal_exactly_when_nothing_changed(a: dict[str, Any], b: dict[str, Any]) -> None:
    same = [(k, type(v), v) for k, v in sorted(a.items())] == [(k, type(v), v) for k, v in sorted(b.items())]
    assert (fingerprint(a) == fingerprint(b)) == same
    assert fingerprint(dict(reversed(a.items()))) == fingerprint(a)
    assert changes(a, a) == []
    assert {c.key for c in changes(a, b)} == {c.key for c in changes(b, a)}


def test_an_input_file_counts_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/rows.jsonl").write_text("1\n")
    Path("euler").write_text("a bare word is a choice, not a path")
    config = {"data": {"path": "data/rows.jsonl", "sampler": "euler", "missing": "data/none.jsonl"}}
    before = result_settings(config)
    assert [key for key in before if "content" in key] == ["data.path (its content)"]
    Path("data/rows.jsonl").write_text("2\n")
    (change,) = changes(before, result_settings(config))
    assert change.key == "data.path (its content)"
    Path("data/other.jsonl").write_text("3\n")
    # A new name is told as that, not as a new content too.
    moved = result_settings({"data": config["data"] | {"path": "data/other.jsonl"}})
    assert [c.key for c in changes(before, moved)] == ["data.path"]


def test_outputs_of_the_run_itself_are_no_inputs(tmp_path: Path) -> None:
    own = tmp_path / "runs" / "a"
    own.mkdir(parents=True)
    assert flatten({"data": {"path": str(own)}}) == result_settings({"data": {"path": str(own)}}, own)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "-x"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(RunFolderError, match="--run_name"):
        RunFolder(name)


def test_a_changed_run_is_refused_with_what_changed_and_what_to_do(tmp_path: Path) -> None:
    run = RunFolder("grpo", tmp_path)
    run.check({"model.lr": 0.1})  # nothing there yet
    assert run.start("fit", {"model.lr": 0.1, "model.sizes": (1, 2)}, "a: 1\n", {"seed": 0}) == 0
    assert run.start("fit", {"model.lr": 0.1, "model.sizes": (1, 2)}, "a: 1\n", {"seed": 0}) == 1
    run.check({"model.lr": 0.1, "model.sizes": [1, 2]})
    with pytest.raises(ChangedRunError) as caught:
        run.check({"model.lr": 0.2, "model.sizes": [1, 2], "data.n": 3})
    assert [c.key for c in caught.value.changes] == ["data.n", "model.lr"]
    for part in ("model.lr: 0.1 -> 0.2", "data.n: (not there) -> 3", "--run_name grpo-2", "--fresh"):
        assert part in str(caught.value)
    starts = sorted(path.name for path in (run.path / "starts").glob("*.[jy]*"))
    assert starts == ["000.json", "000.yaml", "001.json", "001.yaml"]
    assert (run.path / "starts" / "001.yaml").read_text() == "a: 1\n"


def test_a_validation_leaves_the_run_its_own_settings(tmp_path: Path) -> None:
    run = RunFolder("a", tmp_path)
    run.start("validate", None, "", {})
    assert run.mode() is None
    run.start("fit", {"x": 1}, "", {})
    assert (run.mode(), run.finished()) == ("fit", None)
    run.finish({"seconds": 1.0, "peak_memory_gb": 0.5, "metrics": {}, "export": False})
    assert (run.finished() or {})["seconds"] == 1.0


def test_fresh_deletes_runs_and_nothing_else(tmp_path: Path) -> None:
    run = RunFolder("a", tmp_path)
    run.remove()  # not there: nothing to do
    run.path.mkdir()
    (run.path / "thesis.tex").write_text("all of it")
    with pytest.raises(RunFolderError, match="no run"):
        run.remove()
    assert (run.path / "thesis.tex").read_text() == "all of it"
    run.start("fit", {}, "", {})
    run.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_torn_run_file_is_told(tmp_path: Path) -> None:
    run = RunFolder("a", tmp_path)
    run.path.mkdir()
    (run.path / "run.json").write_text('{"settings": {')
    with pytest.raises(RunFolderError, match=r"run\.json: cannot be read.*--fresh"):
        run.check({})


def test_git_revision_is_the_checkouts(tmp_path: Path) -> None:
    import subprocess

    assert git_revision(tmp_path) == {"revision": None, "dirty": False}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a").write_text("1\n")
    subprocess.run([*git, "add", "a"], check=True)
    subprocess.run([*git, "commit", "-qm", "x"], check=True)
    clean = git_revision(tmp_path)
    assert len(clean["revision"]) == 40
    assert (clean["dirty"], git_diff(tmp_path)) == (False, "")
    (tmp_path / "a").write_text("2\n")
    assert git_revision(tmp_path) == {"revision": clean["revision"], "dirty": True}
    assert git_diff(tmp_path).endswith("-1\n+2")


def make_export(
    folder: Path, content: str, inputs: dict[str, str] | None = None, command: str | None = None
) -> None:
    with atomic_write(folder) as temporary:
        temporary.mkdir()
        (temporary / "weights").write_text(content)
        made_by = {"run": folder.parent.name} | ({"command": command} if command else {})
        stamp_export(temporary, made_by, inputs or {})


def test_an_export_is_known_by_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "reward" / "export"
    with pytest.raises(MissingExportError, match=r"python train\.py --config reward\.yaml"):
        check_export(folder, "reward.yaml")
    make_export(folder, "one")
    first = check_export(folder, "reward.yaml")
    make_export(folder, "one")  # another time, same content
    assert check_export(folder, "reward.yaml") == first == content_hash(folder) == path_fingerprint(folder)
    make_export(folder, "two")
    assert check_export(folder, "reward.yaml") != first


def test_an_unfinished_export_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "export"

    def fail() -> None:
        with atomic_write(folder) as temporary:
            temporary.mkdir()
            (temporary / "weights").write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert list(tmp_path.iterdir()) == []
    folder.mkdir()
    (folder / "weights").write_text("by hand")
    with pytest.raises(MissingExportError):
        check_export(folder, "x.yaml")


@pytest.mark.parametrize("damage", ["change", "remove", "add", "stamp"])
def test_a_damaged_export_is_told(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "export"
    make_export(folder, "one")
    if damage == "change":
        (folder / "weights").write_text("onf")
    elif damage == "remove":
        (folder / "weights").unlink()
    elif damage == "add":
        (folder / "more").write_text("")
    else:
        (folder / "export.json").write_text('{"content"')
    with pytest.raises(DamagedExportError, match=r"--config reward\.yaml --fresh"):
        check_export(folder, "reward.yaml")


def test_an_export_is_stale_when_its_inputs_changed(tmp_path: Path) -> None:
    reward, grpo, rows = (
        tmp_path / "reward" / "export",
        tmp_path / "grpo" / "export",
        tmp_path / "rows.parquet",
    )
    rows.write_text("1")
    make_export(reward, "r", {str(rows): path_fingerprint(rows)})
    make_export(grpo, "g", {str(reward): check_export(reward, "reward.yaml")})
    check_export(grpo, "grpo.yaml")
    rows.write_text("2")  # two steps up
    with pytest.raises(StaleExportError, match=r"rows\.parquet.*--config reward\.yaml --fresh"):
        check_export(grpo, "grpo.yaml")
    make_export(reward, "r2", {str(rows): path_fingerprint(rows)})
    with pytest.raises(StaleExportError, match=r"reward.export.*--config grpo\.yaml --fresh"):
        check_export(grpo, "grpo.yaml")
    make_export(grpo, "g", {str(reward): check_export(reward, "reward.yaml")})
    rows.unlink()  # gone is no change: the exports still stand for themselves
    check_export(grpo, "grpo.yaml")


def test_a_fault_further_up_is_told_with_what_mends_it(tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    reward, grpo = tmp_path / "full-reward" / "export", tmp_path / "grpo" / "export"
    rows.write_text("1")
    command = "python train.py --config full/reward.yaml"
    make_export(reward, "r", {str(rows): path_fingerprint(rows)}, command)
    make_export(grpo, "g", {str(reward): check_export(reward, "full/reward.yaml")})
    rows.write_text("2")
    with pytest.raises(
        StaleExportError, match=r"full-reward.*rows.*with: python train\.py --config full/reward"
    ):
        check_export(grpo, "grpo.yaml")
    rows.write_text("1")
    (reward / "weights").write_text("s")
    with pytest.raises(DamagedExportError, match=rf"full-reward.*with: {command} --fresh"):
        check_export(grpo, "grpo.yaml")
    (reward / "export.json").write_text("{")  # tells no longer what made it
    with pytest.raises(DamagedExportError, match=r"full-reward.*--config full-reward\.yaml --fresh"):
        check_export(grpo, "grpo.yaml")


@pytest.mark.parametrize("stamp", ["{", "[]", "{}", "3"])
def test_an_input_with_a_torn_stamp_has_changed(tmp_path: Path, stamp: str) -> None:
    make_export(tmp_path / "export", "one")
    before = path_fingerprint(tmp_path / "export")
    (tmp_path / "export" / "export.json").write_text(stamp)
    assert path_fingerprint(tmp_path / "export") == "unreadable" != before


@pytest.mark.parametrize("content", ["{}", "[]", '{"mode": "fit"}', "{"])
def test_a_run_that_lacks_its_settings_is_told(tmp_path: Path, content: str) -> None:
    run = RunFolder("a", tmp_path)
    run.start("fit", {"x": 1}, "", {})
    (run.path / "run.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"run\.json: cannot be read .*--fresh"):
        run.check({"x": 1})
    run.remove()
    assert not run.path.exists()


def test_fresh_takes_what_only_a_validation_used(tmp_path: Path) -> None:
    run = RunFolder("a", tmp_path)
    run.start("validate", None, "", {})
    run.remove()
    assert not run.path.exists()


def test_a_start_removes_what_a_killed_process_was_writing(tmp_path: Path) -> None:
    folder = RunFolder("line", tmp_path)
    folder.start("fit", {"model.lr": 0.1}, "model: {}", {})
    (folder.checkpoints / ".last.ckpt.17.tmp").mkdir(parents=True)
    half = [folder.path / ".export.17.tmp", folder.checkpoints / ".last.ckpt.18.tmp", folder.path / ".hidden"]
    for file in half:
        file.write_text("half")
    (folder.checkpoints / ".last.ckpt.17.tmp" / "part").write_text("half")
    folder.start("validate", None, "model: {}", {})  # beside a training that may be writing
    assert all(file.exists() for file in half)
    folder.start("fit", {"model.lr": 0.1}, "model: {}", {})
    assert sorted(path.name for path in folder.path.rglob(".*")) == [".hidden"]
