import json
import shutil
from pathlib import Path

import pytest
import torch

from flowsmith.files import file_hash
from flowsmith.rewards import ExportError, RewardEnsemble, RewardsError, SmallEncoder
from tests.flows_for_tests import some_flows
from tests.rewards.world import codec, scenes

FLOWS = list(some_flows(12))
PROMPTS = [scene.text for scene in scenes(12)]


def ensemble(members: int = 3) -> RewardEnsemble:
    made = RewardEnsemble.create(codec(), PROMPTS, members=members, encoder=SmallEncoder(16, 1, 2, 300))
    made.target_mean.fill_(3.0)
    made.target_std.fill_(2.0)
    made.std_scale.fill_(1.5)
    return made


def test_mean_and_std_by_hand() -> None:
    made = ensemble()
    ids = made.tokenizer.batch([made.tokenizer.encode(PROMPTS[0], FLOWS[0])])
    with torch.no_grad():
        each = [float(member(ids)) for member in made.members]
    mean, std = made.predict(PROMPTS[:1], FLOWS[:1])
    average = sum(each) / 3
    assert float(mean) == pytest.approx(average, abs=1e-5)
    assert float(std) == pytest.approx(1.5 * (sum((v - average) ** 2 for v in each) / 2) ** 0.5, rel=1e-4)


def test_standardise() -> None:
    assert ensemble().standardise(torch.tensor([3.0, 7.0])).tolist() == [0.0, 2.0]


def test_order_batch_size_and_repetition_do_not_matter() -> None:
    made = ensemble()
    mean, std = made.predict(PROMPTS, FLOWS)
    order = [5, 0, 0, 11, 3, 5]
    some_mean, some_std = made.predict([PROMPTS[i] for i in order], [FLOWS[i] for i in order], batch_size=2)
    torch.testing.assert_close(some_mean, mean[order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(some_std, std[order], atol=1e-5, rtol=1e-4)
    assert some_mean[1] == some_mean[2]


def test_equal_pairs_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ensemble()
    seen: list[int] = []
    made.members[0].register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    made.predict([PROMPTS[0]] * 50 + [PROMPTS[1]], [FLOWS[0]] * 51)
    assert seen == [2]


def test_predict_leaves_the_mode_and_no_graph() -> None:
    made = ensemble()
    assert made.training
    mean, std = made.predict(PROMPTS[:2], FLOWS[:2])
    assert made.training
    assert not mean.requires_grad
    # GRPO multiplies rewards with log-probabilities that do have a graph.
    weight = torch.ones(2, requires_grad=True)
    (weight * (mean - std)).sum().backward()
    torch.testing.assert_close(weight.grad, mean - std)


def test_nothing_to_predict() -> None:
    mean, std = ensemble().predict([], [])
    assert (len(mean), len(std)) == (0, 0)


def test_refuses_unequal_lengths_and_single_members() -> None:
    with pytest.raises(RewardsError, match="2 prompts for 1 flows"):
        ensemble().predict(PROMPTS[:2], FLOWS[:1])
    with pytest.raises(RewardsError, match="members=1"):
        ensemble(members=1)


def test_export_and_load_predict_the_same(tmp_path: Path) -> None:
    made = ensemble()
    made.export(tmp_path / "export")
    loaded = RewardEnsemble.load(tmp_path / "export")
    for ours, theirs in zip(loaded.predict(PROMPTS, FLOWS), made.predict(PROMPTS, FLOWS), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert not loaded.training
    assert float(loaded.target_mean) == 3.0
    assert [p.name for p in tmp_path.iterdir()] == ["export"]
    suffixes = {path.suffix for path in (tmp_path / "export").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}  # nothing that could run code


def test_export_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        ensemble().export(tmp_path / name)
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b")


def test_failed_export_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ensemble()
    made.export(tmp_path / "export")
    before = file_hash(tmp_path / "export")

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("flowsmith.rewards.export.save_file", full)
    with pytest.raises(OSError, match="disk full"):
        made.export(tmp_path / "export")
    assert file_hash(tmp_path / "export") == before
    assert [p.name for p in tmp_path.iterdir()] == ["export"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reward") / "export"
    ensemble().export(folder)
    return folder


@pytest.mark.parametrize(
    "name", ["member_1.safetensors", "tokenizer.json", "pairs.json", "config.json", "codec/codec.json"]
)
@pytest.mark.parametrize("harm", ["change", "remove"])
def test_load_names_a_damaged_file(exported: Path, tmp_path: Path, name: str, harm: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    file = folder / name
    if harm == "remove":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
    with pytest.raises(ExportError, match=name.partition("/")[0].replace(".", r"\.")):
        RewardEnsemble.load(folder)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"files": {}, "members": 3}', '{"files": 3}'])
def test_load_refuses_a_broken_manifest(exported: Path, tmp_path: Path, manifest: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    (folder / "ensemble.json").write_text(manifest)
    with pytest.raises(ExportError, match=r"reward\.yaml"):
        RewardEnsemble.load(folder)


def test_load_refuses_weights_of_another_shape(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    manifest = json.loads((folder / "ensemble.json").read_text())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 8}))
    manifest["files"]["config.json"] = file_hash(folder / "config.json")
    (folder / "ensemble.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match="no readable reward ensemble"):
        RewardEnsemble.load(folder)


def test_load_refuses_a_missing_folder() -> None:
    with pytest.raises(ExportError, match=r"nowhere.*reward\.yaml"):
        RewardEnsemble.load("nowhere")
