"""A mistake in a config or command line is one clear line."""

from pathlib import Path

import pytest

from tests.lightning_modules.command_line.line import Start


@pytest.mark.parametrize(
    ("words", "content", "told"),
    [
        (["--config", "lien.yaml"], "", "--config lien.yaml: neither in the working folder nor in configs/"),
        (["--config", "bad.yaml"], "model: [1\ntrainer: 2", "bad.yaml:2:8: not YAML"),
        (["--config", "bad.yaml"], "- 1", "bad.yaml: holds no settings"),
        (["--trainer.max_epochs", "2"], "", "no stage is named"),
        (["--model.lrr", "3"], None, "model.lrr: ExportingModule has no setting 'lrr'; did you mean 'lr'?"),
        (
            ["--config", "bad.yaml"],
            "model: {init_args: {knd: plain}}",
            "has no setting 'knd'; did you mean 'kind'?",
        ),
        (["--trainer.max_stepz", "3"], None, "trainer.max_stepz: no such setting; did you mean 'max_steps'?"),
        (
            ["--config", "bad.yaml"],
            "trainer: {max_stepz: 3}",
            "trainer.max_stepz: no such setting; did you mean 'max_steps'?",
        ),
        (["--config", "bad.yaml"], "modle: {a: 1}", "modle.a: no such setting; did you mean 'model'?"),
        (["--model.lr", "abc"], None, "model.lr=abc: give a number"),
        (["--model.kind", "plane"], None, "model.kind=plane: give one of 'plain', 'fancy'"),
        (["--mode", "fitt"], None, "mode=fitt: give one of 'fit', 'validate', 'test', 'predict'"),
        (["--data", "LineDat"], None, "data: no class is called 'LineDat'; did you mean 'LineData'?"),
        (
            ["--config", "bad.yaml"],
            "trainer: {callbacks: [{class_path: ModelCheckpont}]}",
            "trainer.callbacks: no class is called 'ModelCheckpont'; did you mean 'ModelCheckpoint'?",
        ),
        (
            ["--config", "bad.yaml"],
            "trainer: {callbacks: [{class_path: ModelCheckpoint, init_args: {save_lst: true}}]}",
            "trainer.callbacks.save_lst: ModelCheckpoint has no setting 'save_lst'; did you mean",
        ),
        (["--config", "bad.yaml"], "model: {init_args: {lr: '${data.nope}'}}", "model.init_args.lr"),
        (
            ["--config", "bad.yaml"],
            "model: {class_path: ScoredFlowsData}",
            "model: ScoredFlowsData is no LightningModule; give one of DesignModule, ",
        ),
        (
            ["--config", "bad.yaml"],
            "data: {class_path: tests.stand_ins.LineModule}",
            "data: tests.stand_ins.LineModule is no LightningDataModule; give one of DesignPrompts, ",
        ),
        (["--config", "bad.yaml"], "model: 3", "model=3: give a LightningModule by its class_path\n"),
        (
            ["--config", "bad.yaml"],
            "trainer: {callbacks: 3}",
            "trainer.callbacks=3: give a list or a Callback by its class_path\n",
        ),
        (["--config", "bad.yaml"], "trainer:", "bad.yaml: 'trainer:' holds no settings"),
        (
            ["--config", "bad.yaml"],
            "trainer: {max_epochs: abc}",
            "trainer.max_epochs=abc: give a whole number\n",
        ),
        (
            ["--config", "bad.yaml"],
            "seed_everything: abc",
            "seed_everything=abc: give true or false or a whole number\n",
        ),
        (["--config", "bad.yaml"], "model: {init_args: {source: [1]}}", "model.source=[1]: give a text\n"),
        (["--run_name", "a/b"], None, "--run_name 'a/b'"),
        (["--ckpt_path", "nope.ckpt"], None, "--ckpt_path nope.ckpt: no such file; give a checkpoint's path"),
        (["--trainer.devices", "abc"], None, "trainer.devices=abc: no number of processes; give 1 or more"),
        (["--trainer.devices", "0"], None, "trainer.devices=0: no number of processes; give 1 or more"),
        (["--trainer.devices", "-3"], None, "trainer.devices=-3: no number of processes; give 1 or more"),
        (["--trainer.accelerator", "foo"], None, "trainer: You selected an invalid accelerator name"),
        (["--trainer.accelerator", "tpu"], None, "trainer: "),
        (["--trainer.devices", "-1"], None, "trainer: `devices` selected with `CPUAccelerator` should be"),
        (["--trainer.strategy", "foo"], None, "trainer: You selected an invalid strategy name"),
    ],
)
def test_a_mistake_is_one_clear_line(
    start: Start, capsys: pytest.CaptureFixture[str], words: list[str], content: str | None, told: str
) -> None:
    if content is not None:
        Path("bad.yaml").write_text(content)
    both = ["--config", "line.yaml"] if content is None or "bad.yaml" in words else []
    assert start(*both, *words) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told in error
    assert not Path("runs").exists()
