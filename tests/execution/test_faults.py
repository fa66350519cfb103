"""Injected faults: each costs its own samples alone, and is told with its cause."""

import itertools
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from flowsmith.execution import ExecutionError, Executor, ModelLibrary, RenderResult, interpreter, time_limit
from flowsmith.execution.faults import fault_of, out_of_memory
from flowsmith.execution.nodes import NODES, Row
from tests.execution.test_executor import SCHEMA, flow, images, tasks

Outputs = list[tuple[Any, ...]]


class Spy:
    """Stands before a node: notes how many rows it is run on, and may raise."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, name: str, before: Callable[[Sequence[Row]], None]
    ) -> None:
        node = NODES[name]
        self.rows: list[int] = []

        def run(rows: Sequence[Row], library: ModelLibrary) -> Outputs:
            self.rows.append(len(rows))
            before(rows)
            return node.run(rows, library)

        monkeypatch.setitem(NODES, name, replace(node, run=run))


def more_than(most: int) -> Callable[[Sequence[Row]], None]:
    """Memory that holds so many rows."""

    def check(rows: Sequence[Row]) -> None:
        if len(rows) > most:
            held = torch.zeros(10)
            raise torch.OutOfMemoryError(f"CUDA out of memory with {len(rows)} rows and {held.sum()}")

    return check


def by_id(results: Any) -> dict[str, RenderResult]:
    return {result.sample_id: result for result in results}


def test_errors_that_mean_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(1 << 46, dtype=torch.uint8)
    assert out_of_memory(real.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("CUDA error: out of memory"))


def test_a_batch_that_does_not_fit_is_halved_and_the_next_one_starts_small(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(monkeypatch, "KSampler", more_than(2))
    executor = Executor(models, SCHEMA, batch_size=8)
    assert len(images(executor.render(tasks(flow(steps=1), 8)))) == 8
    assert spy.rows == [8, 4, 2, 2, 2, 2]
    spy.rows.clear()
    assert len(images(executor.render(tasks(flow(steps=1), 4, "other stars {}")))) == 4
    assert spy.rows == [2, 2]


def test_a_picture_that_does_not_fit_alone_is_decoded_in_tiles(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = images(Executor(models, SCHEMA).render(tasks(flow(), 3)))
    spy, tiles = Spy(monkeypatch, "VAEDecode", more_than(0)), list[int]()

    def small_only(rows: Sequence[Row]) -> None:
        tiles.append(rows[0]["tile_size"])
        if rows[0]["tile_size"] > 256:
            raise MemoryError

    Spy(monkeypatch, "VAEDecodeTiled", small_only)
    tiled = images(Executor(models, SCHEMA, batch_size=4).render(tasks(flow(), 3)))
    assert spy.rows == [3, 1]  # what did not fit once is not tried again
    assert tiles == [512, 256] * 3
    for name, image in whole.items():  # 64 pixels are one tile
        assert int((image.int() - tiled[name].int()).abs().max()) <= 1


def test_what_fits_in_no_way_is_told(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VAEDecode", "VAEDecodeTiled"):
        Spy(monkeypatch, name, lambda rows: more_than(0)(rows) if len(rows[0]["samples"][0, 0]) > 8 else None)
    results = by_id(Executor(models, SCHEMA).render(tasks(flow(), 2) + tasks(flow(height=32), 2)))
    failed = [result.error for result in results.values() if result.error is not None]
    assert len(failed) == 2
    assert failed[0].startswith("OutOfMemoryError: CUDA out of memory")
    assert failed[0].endswith("(in VAEDecode)")


def test_failed_attempts_hold_no_tensors(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise halves would find the memory of the whole still taken."""
    seen: list[BaseException] = []

    def check(error: BaseException) -> bool:
        seen.append(error)
        return out_of_memory(error)

    monkeypatch.setattr(interpreter, "out_of_memory", check)
    Spy(monkeypatch, "KSampler", more_than(1))
    list(Executor(models, SCHEMA).render(tasks(flow(steps=1), 2)))
    assert len(seen) == 1
    assert seen[0].__traceback__ is None


def black(rows: Sequence[Row], library: ModelLibrary) -> Outputs:
    """Decode to black, but for one level of 255 in one corner where the seed's latents say so."""
    pictures = [torch.zeros(1, 3, 8, 8) for _ in rows]
    for picture, row in zip(pictures, rows, strict=True):
        picture[0, 0, 0, 0] = 1.5 / 255 if float(row["samples"].flatten()[0]) > 0 else 0.0
    return [(picture,) for picture in pictures]


def test_a_black_picture_is_a_failure_and_a_dark_one_is_none(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NODES, "VAEDecode", replace(NODES["VAEDecode"], run=black))
    results = list(Executor(models, SCHEMA).render(tasks(flow(steps=1), 12)))
    fine, failed = ([r for r in results if (r.error is None) == good] for good in (True, False))
    assert fine
    assert failed
    assert all(r.image is not None and int(r.image.sum()) == 1 for r in fine)
    assert all(r.image is None and "black in every pixel" in str(r.error) for r in failed)
    assert fault_of(torch.zeros(3, 8, 8, dtype=torch.uint8)) is not None


def test_values_that_are_not_finite_cost_their_own_sample(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = NODES["VAEDecode"]

    def run(rows: Sequence[Row], library: ModelLibrary) -> Outputs:
        outputs: list[Tensor] = [values[0] for values in node.run(rows, library)]
        outputs[1][0, 2, 5, 5] = math.nan
        outputs[2][0, 1, 0, 0] = math.inf
        return [(image,) for image in outputs]

    monkeypatch.setitem(NODES, "VAEDecode", replace(node, run=run))
    results = list(Executor(models, SCHEMA).render(tasks(flow(steps=1), 4)))
    assert [r.error is None for r in sorted(results, key=lambda r: r.sample_id)] == [True, False, False, True]
    assert all("not finite" in r.error for r in results if r.error)


def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every look at the time limit take a second, and nothing else any."""
    looks = itertools.count()
    monkeypatch.setattr(time_limit, "time", SimpleNamespace(monotonic=lambda: next(looks)))
    monkeypatch.setattr(interpreter, "time", SimpleNamespace(perf_counter=lambda: 0.0))


def test_flows_that_take_too_long_are_given_up_and_their_batch_goes_on(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticking(monkeypatch)
    spy = Spy(monkeypatch, "KSampler", lambda rows: None)
    wanted = tasks(flow(steps=2), 2) + tasks(flow(steps=50), 2)
    results = by_id(Executor(models, SCHEMA, batch_size=4, timeout=5.0).render(wanted))
    assert spy.rows == [4, 2]
    for task in wanted:
        error = results[task.sample_id].error
        assert (error is None) == (task.flow == flow(steps=2))
        if error is not None:
            assert error.startswith("TimeLimitError: the flow takes longer than timeout=5 s")
            assert error.endswith("(in KSampler)")


def test_time_is_that_of_the_whole_flow(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sampling and decoding take 3 seconds each, of which two samples share each."""
    clock = itertools.count(step=3)
    monkeypatch.setattr(interpreter, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    wanted = tasks(flow(steps=1), 2)
    cheap = [result.seconds for result in Executor(models, SCHEMA, timeout=100).render(wanted)]
    # Two texts and the empty one, the size, sampling, decoding and saving: 3 s a run, in shares.
    assert cheap == [pytest.approx(1.0 + 1.0 + 3.0 + 1.5 + 1.5 + 1.5)] * 2
    late = list(Executor(models, SCHEMA, timeout=7.0).render(wanted))
    assert ["(in VAEDecode)" in str(result.error) for result in late] == [True, True]


@pytest.mark.parametrize("option", [{"timeout": 0.0}, {"timeout": math.nan}, {"batch_size": 0}])
def test_limits_that_allow_nothing_are_refused(models: Path, option: dict[str, Any]) -> None:
    with pytest.raises(ExecutionError, match="nothing could be rendered"):
        Executor(models, SCHEMA, **option)


def test_a_truncated_model_file_costs_its_own_samples(models: Path, tmp_path: Path) -> None:
    root = shutil.copytree(models, tmp_path / "models")
    file = root / "checkpoints" / "tiny_b" / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    wanted = tasks(flow(), 2) + tasks(flow(ckpt_name="tiny_b"), 2)
    results = by_id(Executor(root, SCHEMA).render(wanted))
    for task in wanted[:2]:
        assert results[task.sample_id].error is None
    for task in wanted[2:]:
        error = str(results[task.sample_id].error)
        assert error.startswith("ModelFileError")
        assert "tiny_b" in error
        assert "(in CheckpointLoaderSimple)" in error
