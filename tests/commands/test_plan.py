"""``flowsmith plan``: its numbers, by hand."""

import json

import pyarrow.parquet as pq
import pytest

from flowsmith.commands import main
from tests.flows.conftest import DOMAIN


def planned(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, dict[str, float]]:
    assert main(["plan", "--json", *options]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["computed"] is True
    steps = {step["name"]: step for step in content["steps"]}
    assert content["renders"] == sum(step["renders"] for step in steps.values())
    assert content["gpu_hours"] == pytest.approx(sum(step["gpu_hours"] for step in steps.values()))
    return {**steps, "all": content}


def test_renders_and_hours(capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(
        capsys, "--train-prompts", "900", "--validation-prompts", "100", "--flows-per-prompt", "4",
        "--test-prompts", "50", "--samples", "2", "--designers", "6", "--seconds-per-image", "9",
        "--tokens", "100", "--parameters", "1e9", "--surrogate-parameters", "1e8", "--members", "5",
        "--reward-epochs", "3", "--vocabulary-epochs", "2", "--cycles", "10", "--prompts-per-cycle", "16",
        "--group", "8", "--tflops", "100", "--tokens-per-second", "1000", "--gpus", "4",
    )  # fmt: skip
    assert found["collect"]["renders"] == 4000
    assert found["collect"]["gpu_hours"] == 10.0  # 4000 x 9 s
    assert found["evaluate"]["renders"] == 600
    assert found["evaluate"]["gpu_hours"] == 1.5
    # 900 x 4 pairs x 100 tokens = 3.6e5 tokens, at 1e14 x 3600 = 3.6e17 operations an hour.
    assert found["vocabulary"]["gpu_hours"] == pytest.approx(6 * 1e9 * 2 * 3.6e5 / 3.6e17)
    assert found["reward"]["gpu_hours"] == pytest.approx(6 * 1e8 * 5 * 3 * 3.6e5 / 3.6e17)
    # 10 x 16 x 8 x 100 = 128,000 tokens: 128 s of sampling, and 8 operations a weight.
    assert found["grpo"]["gpu_hours"] == pytest.approx(128 / 3600 + 8 * 1e9 * 1.28e5 / 3.6e17)
    assert found["all"]["hours"] == pytest.approx(found["all"]["gpu_hours"] / 4)


def test_seconds_of_a_picture_are_read_off_rows(capsys: pytest.CaptureFixture[str]) -> None:
    rows = DOMAIN.parent / "data" / "collection" / "scored_flows.parquet"
    table = pq.read_table(rows, columns=["seconds", "status"])
    seconds = [one["seconds"] for one in table.to_pylist() if one["status"] == "ok"]
    found = planned(capsys, "--scored-flows", str(rows))["all"]
    assert found["seconds_per_image"] == pytest.approx(sum(seconds) / len(seconds))
    assert main(["plan", "--scored-flows", str(rows)]) == 0
    assert f"the mean of {len(seconds)} rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [["--tflops", "0"], ["--scored-flows", "/nowhere.parquet"]], ids=["zero", "missing"]
)
def test_mistakes(options: list[str]) -> None:
    assert main(["plan", *options]) == 2


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "many"])
def test_numbers_out_of_range(value: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(["plan", "--seconds-per-image", value])
    assert left.value.code == 2
