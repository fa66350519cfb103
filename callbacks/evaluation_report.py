"""Prints the comparison of designers, writes ``results.json``, and sheets of sample pictures and flows."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from lightning import LightningModule, Trainer

from callbacks.candidate_callback import CallbackOrderError, CandidateCallback, earlier
from callbacks.guided_sampling import GuidedSampling
from callbacks.image_metrics import ImageMetrics
from callbacks.scored_flow_writer import ScoredFlowWriter
from flowsmith.candidates import CandidateBatch
from flowsmith.evaluation.dense_block import DenseBlock
from flowsmith.evaluation.kept_pictures import KeptPictures
from flowsmith.evaluation.sample_sheets import rows_of, write_sheets
from flowsmith.files import atomic_write
from flowsmith.flows import Codec, Domain
from flowsmith.flows.schema_beside import schema_beside
from flowsmith.scored_flows import read_scored_flows


class EvaluationReport(CandidateCallback):
    """List it after `ScoredFlowWriter`, whose rows it reads.

    Everything but the pictures is read from the rows; pictures of the first prompts are kept in
    ``<run folder>/pictures`` as they come. So neither a stop nor the number of processes changes what is shown.

    Args:
        scored_flows: Training rows; flows of other structure are counted as novel.
        domain: YAML file of what may be chosen; its codec counts tokens.
        pictures: Prompts on the sheet of samples.
        dense: Scored flows of a dense block (every prompt with the same flows and as many seeds), rendered and judged
            as here: what its best flow for each prompt scores is the table's ceiling, over the prompts that both have.
        held_out_preference: Name of a judge outside the score; win rates are told by it, beside those by the score.
    """

    def __init__(
        self,
        scored_flows: str,
        domain: str,
        pictures: int = 8,
        dense: str | None = None,
        held_out_preference: str | None = None,
    ) -> None:
        self._scored_flows, self._domain, self._pictures = scored_flows, domain, pictures
        self._dense, self._preference = dense, held_out_preference
        self._block: DenseBlock | None = None
        self._shown: dict[str, str] = {}  # prompt id -> text
        self._kept: KeptPictures | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read what the report compares with, so that what is missing is told before anything is rendered."""
        from flowsmith.designers.known import known_flows

        self._codec = Codec(schema_beside(self._domain), Domain.from_yaml(self._domain))
        self._known = {k.flow.structural_key for k in known_flows(self._scored_flows, self._domain)}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check what is listed before, and ask again for pictures that an earlier start did not keep.

        Raises:
            CallbackOrderError: No rows, or none with scores, or no prompts would be there at the end, or the named
                preference is not held out.
            DenseBlockError: The dense block is no ceiling of this evaluation.
        """
        writers = earlier(trainer, self, ScoredFlowWriter)
        if not writers:
            raise CallbackOrderError(
                "EvaluationReport reads at the end what ScoredFlowWriter joins: list ScoredFlowWriter before it"
            )
        metrics = earlier(trainer, self, ImageMetrics)
        scores = [one.score for one in metrics if one.score is not None]
        fitted = any(writer.fits_score for writer in writers)
        if not fitted and not scores:
            raise CallbackOrderError(
                "EvaluationReport compares scores, and no row would have one: give ImageMetrics its score=, "
                "or ScoredFlowWriter its score_weights="
            )
        holder: Any = trainer
        prompts = getattr(holder.datamodule, "prompts", None)
        if prompts is None:
            raise CallbackOrderError(
                "EvaluationReport shows the first prompts of the data, and these have none: use DesignPrompts"
            )
        self._check_preference(metrics, writers)
        if self._dense is not None:
            if fitted or not scores:
                raise CallbackOrderError(
                    f"dense={self._dense}: its scores and this run's need one scale, which a score fitted at the end "
                    "is not; give ImageMetrics the score= of the collection, and ScoredFlowWriter no score_weights="
                )
            from flowsmith.evaluation.dense_oracle import ceiling_block

            ids = [prompt.id for prompt in prompts]
            self._block = ceiling_block(self._dense, ids, scores[-1], *writers[-1].versions)
        self._shown = {prompt.id: prompt.text for prompt in prompts[: self._pictures]}
        self._kept = KeptPictures(Path(trainer.default_root_dir) / "pictures")
        module: Any = pl_module
        if module.finished:
            rows = rows_of(read_scored_flows(Path(trainer.default_root_dir) / "rows"), self._shown)
            module.finished -= {
                id for id in rows["sample_id"].to_pylist() if not self._kept.path(id).is_file()
            }

    def _check_preference(self, metrics: list[ImageMetrics], writers: list[ScoredFlowWriter]) -> None:
        """Check that the preference that was named is there, and not in the score."""
        if self._preference is None:
            return
        judges = [judge.name for one in metrics for judge in one.judges]
        if self._preference not in judges:
            raise CallbackOrderError(
                f"held_out_preference={self._preference!r}: no judge of that name; list it under ImageMetrics, or "
                f"name one of {', '.join(judges)}"
            )
        weighed = {name for one in metrics if one.score for name in one.score.judges}
        weighed |= {name for writer in writers for name in writer.weighs}
        if self._preference in weighed:
            raise CallbackOrderError(
                f"held_out_preference={self._preference!r}: the score weighs it, so it is not held out; name a judge "
                "that the score does not know"
            )

    def fill(self, module: LightningModule, batch: CandidateBatch) -> None:
        """Keep the pictures of the prompts that are shown."""
        if self._kept is None:
            raise CallbackOrderError(
                "EvaluationReport works in predict only; remove it from this stage's callbacks"
            )
        for candidate in batch.candidates:
            if candidate.prompt.id in self._shown and candidate.image is not None:
                self._kept.keep(candidate.sample_id, candidate.image)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare."""
        if not trainer.is_global_zero:
            return
        from flowsmith.evaluation.report import evaluation_results
        from flowsmith.evaluation.report_table import evaluation_table, oracle_note, ranked
        from flowsmith.evaluation.strict_json import dumps
        from flowsmith.run_folder import git_revision

        folder = Path(trainer.default_root_dir)
        module: Any = pl_module
        table = read_scored_flows(folder / "export" / "scored_flows.parquet")
        results = evaluation_results(
            table, self._codec, self._known, preference=self._preference, dense=self._block
        )
        results |= {
            "samples_per_prompt": module.samples,
            "seeds": {
                "designers": module.seed,
                "sampling": [sampling.seed_of(module) for sampling in earlier(trainer, self, GuidedSampling)],
                "images_per_prompt": _images_per_prompt(table),
            },
            "git_revision": git_revision(),
        }
        with atomic_write(folder / "results.json") as temporary:
            temporary.write_text(dumps(results), encoding="utf-8")
        if self._kept is not None:
            write_sheets(folder, table, self._shown, ranked(results), self._kept, self._codec.schema)
        print(evaluation_table(results), flush=True)
        if self._block is not None:
            print(oracle_note(results), flush=True)
        print(
            f"{folder / 'results.json'}: {results['prompts']} prompts, {module.samples} samples each",
            flush=True,
        )


def _images_per_prompt(table: pa.Table) -> int:
    """Return with how many seeds of image noise a prompt was rendered, at most."""
    seeds = table.group_by("prompt_id").aggregate([("seed", "count_distinct")])
    return int(pc.max(seeds["seed_count_distinct"]).as_py())
