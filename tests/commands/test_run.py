"""``flowsmith run``: on a server that speaks ComfyUI's protocol, and in this process."""

import json
from pathlib import Path

import pytest
from PIL import Image

from flowsmith.commands import main
from flowsmith.flows import Flow, Schema
from flowsmith.flows.exchange import save_api
from tests.execution.comfyui.fake_graph import painted
from tests.execution.comfyui.fleet import Fleet, object_info
from tests.flows.conftest import DOMAIN
from tests.flows_for_tests import some_flows

PROMPT = "a red star"


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "template.json"
    path.write_text(json.dumps(some_flows(5)[0].to_template()))
    return path


def test_a_template_on_a_server(template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "picture.png"
    with Fleet() as fleet:
        url = fleet.servers[0].url
        assert (
            main(
                [
                    "run",
                    str(template),
                    "--prompt",
                    PROMPT,
                    "--server",
                    url,
                    "--seed",
                    "7",
                    "--out",
                    str(out),
                    "--json",
                ]
            )
            == 0
        )
    told = json.loads(capsys.readouterr().out)
    assert (told["seed"], told["error"], told["out"]) == (7, None, str(out))
    graph = some_flows(5)[0].to_comfyui(PROMPT, 7, Schema.core())
    with Image.open(out) as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == tuple(painted(graph))
        assert json.loads(picture.text["prompt"]) == graph  # type: ignore[attr-defined]  # of PNG files


def test_of_somebodys_workflow_the_prompt_is_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, out = tmp_path / "theirs.json", tmp_path / "mine.png"
    flow = some_flows(5)[0]
    save_api(theirs, flow, "their old idea", 1, Schema.core())
    with Fleet() as fleet:
        assert (
            main(
                ["run", str(theirs), "--prompt", PROMPT, "--server", fleet.servers[0].url, "--out", str(out)]
            )
            == 0
        )
    assert "their old idea" in capsys.readouterr().out
    with Image.open(out) as picture:
        sent = picture.text["prompt"]  # type: ignore[attr-defined]  # of PNG files
    assert "their old idea" not in sent
    assert PROMPT in sent


def test_the_miniatures_flows_do_not_run_in_comfyui(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = object_info([])
    with Fleet(dump=dump) as fleet:
        line = ["run", str(template), "--prompt", PROMPT, "--server", fleet.servers[0].url]
        assert main([*line, "--out", str(tmp_path / "p.png")]) == 2
    told = capsys.readouterr().err
    assert "do not run in ComfyUI" in told
    assert "mini_" in told
    assert not (tmp_path / "p.png").exists()


def test_a_file_that_the_server_lacks_is_told(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template.write_text(template.read_text().replace("mini_", "maxi_"))
    with Fleet() as fleet:
        line = ["run", str(template), "--prompt", PROMPT, "--server", fleet.servers[0].url]
        assert main([*line, "--out", str(tmp_path / "p.png")]) == 2
    assert "value_not_in_list" in capsys.readouterr().err


def test_what_fails_on_the_server_is_no_picture(
    template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Fleet(1, lambda graph: "out of memory") as fleet:
        line = ["run", str(template), "--prompt", PROMPT, "--server", fleet.servers[0].url, "--timeout", "3"]
        assert main([*line, "--out", str(tmp_path / "p.png"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["error"]
    assert told["out"] is None
    assert not (tmp_path / "p.png").exists()


def test_in_this_process(tmp_path: Path) -> None:
    out = tmp_path / "picture.png"
    flow = DOMAIN.parent / "flows" / "default.json"
    line = [
        "run",
        str(flow),
        "--prompt",
        PROMPT,
        "--models",
        str(DOMAIN.parent / "weights"),
        "--out",
        str(out),
    ]
    assert main(line) == 0
    with Image.open(out) as picture:
        assert picture.size == (64, 64)
        low, high = picture.convert("L").getextrema()
        assert isinstance(low, int | float)
        assert isinstance(high, int | float)
        assert high - low > 50, "a picture, not a plain area"
        graph = json.loads(picture.text["prompt"])  # type: ignore[attr-defined]  # of PNG files
    assert graph == Flow.from_template(flow.read_text(), _listed()).to_comfyui(PROMPT, 0, Schema.core())


def _listed() -> Schema:
    return Schema.core().restrict(choices={"CheckpointLoaderSimple.ckpt_name": ["mini_base"]})


def test_mistakes(template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["run", str(template), "--prompt", PROMPT, "--out", str(tmp_path / "p.png")]
    with pytest.raises(SystemExit):
        main(line)
    assert main([*line, "--server", "http://127.0.0.1:9"]) == 2
    assert main([*line, "--models", str(tmp_path)]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
