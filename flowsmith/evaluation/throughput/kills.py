"""A run that is killed again and again, compared with one that nobody disturbs."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flowsmith.evaluation.kept_pictures import KeptPictures
from flowsmith.evaluation.strict_json import dumps
from flowsmith.evaluation.throughput.graphs import text_to_image
from flowsmith.evaluation.throughput.plain_way import Images, equal_pixel_share
from flowsmith.prompts import Prompt, write_prompts
from flowsmith.scored_flows import read_scored_flows

SIDE, SAMPLES, BATCH = 48, 5, 5  # pixels; samples a prompt and flow; prompts in a batch, which is a shard
WAYS = (("euler", 1), ("euler_ancestral", 2), ("dpmpp_2m", 2), ("dpmpp_2m_sde", 1))  # and their steps
_LOOK = 0.05  # seconds between two looks at the rows
_EQUAL = 0.999  # share of the pixels that must not differ by more than 1 of 255


class RunError(Exception):
    """A run ended by itself and not well."""


def survive_kills(
    folder: Path,
    evaluate: Path,
    miniature: Path,
    prompts: Sequence[Prompt],
    samples: int,
    every: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Render samples twice, once under kills, and compare rows and pictures.

    Args:
        folder: To work in: an empty one, or that of an earlier start, which then goes on.
        evaluate: The script ``evaluate.py``.
        miniature: Folder of the embedded world.
        prompts: At least a 20th of ``samples``.
        samples: A multiple of 20.
        every: Rows between two kills, on average; how many exactly, and the moment after, is random.
        seed: Of that.

    Raises:
        RunError: A run failed where nobody killed it.
    """
    count = samples // (len(WAYS) * SAMPLES)
    write_prompts(folder / "prompts.jsonl", list(prompts[:count]))
    config = folder / "kills.yaml"
    config.write_text(dumps(dict(_config(folder, miniature))), encoding="utf-8")  # JSON is YAML
    command = [sys.executable, str(evaluate), "--config", str(config)]
    with _started([*command, "--run_name", "undisturbed"], folder) as process:
        _finish(process, folder)
    kills = _run_under_kills([*command, "--run_name", "disturbed"], folder, every, random.Random(seed))
    one, other = (folder / "runs" / name for name in ("undisturbed", "disturbed"))
    ids = [
        read_scored_flows(run / "export" / "scored_flows.parquet")["sample_id"].to_pylist()
        for run in (one, other)
    ]
    share = equal_pixel_share(_pictures(one, ids[0]), _pictures(other, ids[1]))
    return {
        "kills": kills,
        "kill_rows": len(set(ids[1])),
        "kill_rows_repeated": len(ids[1]) - len(set(ids[1])),
        "kill_rows_expected": count * len(WAYS) * SAMPLES,
        "kill_equal_pixel_share": share,
        "kill_images_equal": sorted(ids[0]) == sorted(ids[1]) and share >= _EQUAL,
    }


def rows_written(run: Path, known: dict[Path, int]) -> int:
    """Return how many rows the shards of a run hold; ``known`` saves reading one twice."""
    for shard in (run / "rows").glob("*.parquet"):
        if shard not in known:
            known[shard] = pq.read_metadata(shard).num_rows
    return sum(known.values())


def _run_under_kills(command: Sequence[str], folder: Path, every: int, rng: random.Random) -> int:
    known: dict[Path, int] = {}
    run, kills = folder / "runs" / "disturbed", folder / "kills.txt"
    while True:
        with _started(command, folder) as process:
            due = rows_written(run, known) + rng.randrange(every // 2, 3 * every // 2)
            while process.poll() is None and rows_written(run, known) < due:
                time.sleep(_LOOK)
            time.sleep(rng.random())  # into the next batch, or the writing of it
            if process.poll() is not None:
                _finish(process, folder)
                return len(kills.read_text().splitlines()) if kills.is_file() else 0
        with kills.open("a") as stream:
            stream.write(f"{rows_written(run, known)}\n")


@contextmanager
def _started(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a run, and kill it when the block is left, if it still runs."""
    with (folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    if process.wait() != 0:
        told = (folder / "output.txt").read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        raise RunError(f"{folder}: a run ended with {process.returncode}: {' | '.join(told)}")


def _pictures(run: Path, ids: Sequence[str]) -> Images:
    kept = KeptPictures(run / "pictures")
    found = {name: kept.get(name) for name in ids}
    return {name: picture for name, picture in found.items() if picture is not None}


def _config(folder: Path, miniature: Path) -> Mapping[str, Any]:
    """Write the flows; return the config of a collection of the smallest pictures that the world knows."""
    designers = []
    for name, steps in WAYS:
        file = folder / f"{name}.json"
        file.write_text(json.dumps(text_to_image("mini_base", SIDE, steps, 1.0, name)), encoding="utf-8")
        options = {"flow": str(file), "domain": str(miniature / "domain.yaml"), "name": name}
        designers.append(_class("flowsmith.designers.FixedDesigner", **options))
    judges = miniature / "weights" / "judges"
    head = str(judges / "aesthetic" / "aesthetic.safetensors")
    aesthetic = _class("flowsmith.metrics.AestheticScore", clip=str(judges / "clip"), head=head)
    callbacks = [
        _class("FlowExecution", models=str(miniature / "weights"), batch_size=32),
        _class("ImageMetrics", judges=[aesthetic]),
        _class("PictureKeeper"),
        _class("ScoredFlowWriter"),
    ]
    data = {"path": str(folder / "prompts.jsonl"), "splits": ["train"], "batch": BATCH}
    trainer = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    return {
        "mode": "predict",
        "seed_everything": 0,
        "model": _class("DesignModule", samples=SAMPLES, seed=0, designers=designers),
        "data": _class("DesignPrompts", **data),
        "trainer": {**trainer, "callbacks": callbacks},
    }


def _class(path: str, /, **options: Any) -> dict[str, Any]:
    return {"class_path": path, "init_args": options} if options else {"class_path": path}
