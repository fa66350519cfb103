"""Prints the comparison of designers, writes ``results.json``, and sheets of sample pictures and flows."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from matplotlib.figure import Figure

from callbacks.candidate_callback import CandidateCallback
from flowsmith.candidates import Candidate, CandidateBatch
from flowsmith.evaluation.flow_picture import flow_figure
from flowsmith.files import atomic_write
from flowsmith.flows import Flow


class EvaluationReport(CandidateCallback):
    """List it after `ScoredFlowWriter`, whose rows it reads.

    Args:
        scored_flows: Training rows; flows of other structure are counted as novel.
        domain: YAML file of what may be chosen; its codec counts tokens.
        pictures: Prompts on the sheet of samples.
    """

    def __init__(self, scored_flows: str, domain: str, pictures: int = 8) -> None:
        self._scored_flows, self._domain, self._pictures = scored_flows, domain, pictures
        self._shown: dict[str, list[Candidate]] = {}

    def fill(self, module: LightningModule, batch: CandidateBatch) -> None:
        """Keep the first pictures of the first prompts."""
        for candidate in batch.candidates:
            if candidate.prompt.id in self._shown or len(self._shown) < self._pictures:
                kept = self._shown.setdefault(candidate.prompt.id, [])
                if candidate.designer not in {c.designer for c in kept}:
                    kept.append(candidate)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare."""
        if not trainer.is_global_zero:
            return
        from flowsmith.designers.known import known_flows
        from flowsmith.evaluation.report import dumps, evaluation_results, evaluation_table
        from flowsmith.flows import Codec, Domain, Schema
        from flowsmith.run_folder import git_revision
        from flowsmith.scored_flows import read_scored_flows

        folder = Path(trainer.default_root_dir)
        codec = Codec(Schema.core(), Domain.from_yaml(self._domain))
        known = {k.flow.structural_key for k in known_flows(self._scored_flows, self._domain)}
        results = evaluation_results(
            read_scored_flows(folder / "export" / "scored_flows.parquet"), codec, known
        )
        module: Any = pl_module
        results |= {"samples_per_prompt": module.samples, "seed": module.seed, "git_revision": git_revision()}
        with atomic_write(folder / "results.json") as temporary:
            temporary.write_text(dumps(results), encoding="utf-8")
        if self._shown:
            with atomic_write(folder / "samples.png") as temporary:
                contact_sheet(self._shown).savefig(temporary, format="png")
            with atomic_write(folder / "flows.png") as temporary:
                flow_figure(self._flows()).savefig(temporary, format="png")
        print(evaluation_table(results), flush=True)
        print(
            f"{folder / 'results.json'}: {results['prompts']} prompts, {module.samples} samples each",
            flush=True,
        )

    def _flows(self) -> dict[str, Flow]:
        """Return each designer's flow for the first prompt on the sheet, equal ones once."""
        found: dict[str, Flow] = {}
        for candidate in next(iter(self._shown.values())):
            if candidate.flow not in found.values():
                found[f"{candidate.designer}: {candidate.prompt.text}"] = candidate.flow
        return found


def contact_sheet(shown: dict[str, list[Candidate]]) -> Figure:
    """Return a figure with a row per prompt and a column per designer, scores under the pictures."""
    designers = list(dict.fromkeys(c.designer for row in shown.values() for c in row))
    figure = Figure(figsize=(1.5 * len(designers) + 0.3, 1.85 * len(shown)), dpi=110, layout="constrained")
    grid = figure.subplots(len(shown), len(designers), squeeze=False)
    for axes, candidates in zip(grid, shown.values(), strict=True):
        axes[0].set_title(candidates[0].prompt.text, fontsize=7, loc="left", parse_math=False)
        named = {c.designer: c for c in candidates}
        for axis, designer in zip(axes, designers, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            found = named.get(designer)
            image = None if found is None else found.image
            axis.imshow(np.zeros((1, 1, 3), np.uint8) if image is None else image.permute(1, 2, 0).numpy())
            scored = "" if found is None or found.score is None else f" {found.score:+.2f}"
            axis.set_xlabel(designer + scored, fontsize=6, parse_math=False)
    return figure
