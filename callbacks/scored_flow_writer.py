"""Keeps every judged candidate as a row of parquet; a restarted run goes on where it stopped."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from lightning import LightningModule, Trainer

from callbacks.candidate_callback import CallbackOrderError, CandidateCallback, earlier, require_images
from callbacks.flow_execution import FlowExecution
from callbacks.image_metrics import ImageMetrics
from flowsmith.candidates import CandidateBatch
from flowsmith.files import remove_leftovers
from flowsmith.metrics import Judge
from flowsmith.metrics.score import Score, check_judges
from flowsmith.scored_flows import (
    MixedVersionsError,
    ScoredFlow,
    ScoredFlowsError,
    ShardWriter,
    judge_values,
    read_scored_flows,
    replace_scores,
    write_scored_flows,
)

_CAUSES = 5  # errors that the summary names


class ScoredFlowWriter(CandidateCallback):
    """Writes a shard a batch into ``<run folder>/rows`` and joins them at the end into ``export/scored_flows.parquet``.

    Args:
        score_weights: Judge -> weight. If given, the score is fitted on the rendered training rows and written to
            ``export/score.json``; otherwise rows keep the score that `ImageMetrics` gave them.
        max_failed: Share of the samples that may fail, 0 to 1. If more do, the run ends with an error and exports
            nothing; the rows stay, and a restart renders again what failed. If all fail it does so in any case.

    Raises:
        ScoredFlowsError: ``max_failed`` is no share.
    """

    def __init__(self, score_weights: dict[str, float] | None = None, max_failed: float = 0.5) -> None:
        if not 0 <= max_failed <= 1:
            raise ScoredFlowsError(f"max_failed={max_failed}: it is a share of the samples; use 0 to 1")
        self._score_weights = score_weights
        self._max_failed = max_failed
        self._writer: ShardWriter | None = None
        self._execution: FlowExecution | None = None
        self._judges: list[Judge] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out what an earlier start of this run has finished."""
        found = earlier(trainer, self, FlowExecution)
        if not found:
            raise CallbackOrderError(
                "ScoredFlowWriter needs the renderer's version: list FlowExecution before it"
            )
        self._execution = found[0]
        metrics = earlier(trainer, self, ImageMetrics)
        if not metrics:
            raise CallbackOrderError(
                "ScoredFlowWriter found nothing that judges the images: list ImageMetrics before it"
            )
        self._judges = [judge for callback in metrics for judge in callback.judges]
        check_judges("score_weights", self._score_weights or {}, [judge.name for judge in self._judges])
        folder = self.folder(trainer) / "rows"
        # Of a start that was killed a process may live on for a while: its files have names of their own.
        name = f"process{trainer.global_rank}-{os.getpid()}"
        self._writer = ShardWriter(folder, name=name, rows=1_000_000)
        if trainer.is_global_zero:
            remove_leftovers(folder)
        if any(folder.glob("*.parquet")):  # failed rows are of a version too
            there = read_scored_flows(folder)
            versions = set(zip(there["renderer"].to_pylist(), there["weights"].to_pylist(), strict=True))
            if versions != {self.versions}:
                raise MixedVersionsError(
                    f"{folder}: its rows are of renderer and weights {versions}, this run renders with "
                    f"{self.versions}; start again with --fresh, or under another --run_name"
                )
            if trainer.is_global_zero:
                print(f"{folder}: {len(self._writer.finished)} samples are there already", flush=True)
        holder: Any = pl_module
        holder.finished = self._writer.finished
        trainer.strategy.barrier()  # all look before any writes

    def fill(self, module: LightningModule, batch: CandidateBatch) -> None:
        """Write the batch as one shard."""
        if not batch.candidates:
            return
        require_images(self, batch.candidates)
        if self._writer is None:
            raise CallbackOrderError(
                "ScoredFlowWriter works in predict only; remove it from this stage's callbacks"
            )
        for candidate in batch.candidates:
            missing = sorted((self._score_weights or {}).keys() - candidate.judges.keys())
            if missing and candidate.error is None:
                candidate.fail(f"{missing[0]}=nan")  # a judge of the score must not abstain
        renderer, weights = self.versions
        self._writer.add(
            ScoredFlow.from_candidate(c, renderer=renderer, weights=weights) for c in batch.candidates
        )
        self._writer.flush()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Join the shards of all processes.

        Raises:
            ScoredFlowsError: Too many samples failed, or none is there to fit the score on; nothing is exported.
        """
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            folder = self.folder(trainer)
            table = read_scored_flows(folder / "rows")
            table = table.sort_by("sample_id")
            told = _told(table)
            failed = table["status"].to_pylist().count("failed")
            if failed == len(table) or failed > self._max_failed * len(table):
                raise ScoredFlowsError(
                    f"{folder / 'rows'}: {told}. That is more than max_failed={self._max_failed:g} allows, and nothing "
                    "is exported; remove the cause and start again, with --fresh if it lay in the files of models"
                )
            if self._score_weights is not None:
                splits, states = table["split"].to_pylist(), table["status"].to_pylist()
                fitted = [
                    split == "train" and state == "ok" for split, state in zip(splits, states, strict=True)
                ]
                train = table.filter(fitted)
                if len(train) < 2:
                    raise ScoredFlowsError(
                        f"score_weights: a score is fitted on rendered rows of the split train, and there are "
                        f"{len(train)} ({told}); collect training prompts (data.splits), or leave score_weights out "
                        "and give ImageMetrics a score"
                    )
                score = Score.fit(judge_values(train), self._score_weights)
                score.save(folder / "export" / "score.json")
                table = replace_scores(table, score.column(judge_values(table)).tolist())
            write_scored_flows(folder / "export" / "scored_flows.parquet", table)
            print(f"{folder / 'export'}: {told}", flush=True)
        trainer.strategy.barrier()

    @property
    def weighs(self) -> frozenset[str]:
        """The judges of the score that is fitted at the end; none if rows keep theirs."""
        return frozenset(self._score_weights or {})

    @property
    def fits_score(self) -> bool:
        """Whether rows are scored at the end, whatever score they have."""
        return self._score_weights is not None

    @cached_property
    def versions(self) -> tuple[str, str]:
        """The renderer's version and one hash over the weights of renderer and judges."""
        assert self._execution is not None  # set where predict starts
        executor = self._execution.executor
        return executor.version, hash_of_weights(executor.weight_hashes, self._judges)

    @staticmethod
    def folder(trainer: Trainer) -> Path:
        """Return the run folder."""
        return Path(trainer.default_root_dir)


def hash_of_weights(models: Mapping[str, str], judges: Iterable[Judge]) -> str:
    """Return one hash (16 hex digits) over all that rows must share to be comparable.

    Args:
        models: Hash by name of every model that the renderer may load.
        judges: What judges the images; those without weights change nothing.
    """
    judged = {f"judge {judge.name}": judge.weight_hash for judge in judges if judge.weight_hash}
    told = json.dumps({**models, **judged}, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _told(table: pa.Table) -> str:
    """Return a summary: how many samples there are, how many failed, and of the commonest errors their first line."""
    errors = Counter(e.partition("\n")[0] for e in table["error"].to_pylist() if e is not None)
    told = f"{len(table)} scored flows, {errors.total()} of them failed"
    causes = [f"{count} with: {error}" for error, count in errors.most_common(_CAUSES)]
    if len(errors) > _CAUSES:
        causes.append(f"and {len(errors) - _CAUSES} other errors")
    return "; ".join([told, *causes])
