"""Stage 4: designers propose flows for prompts; callbacks render and judge them. Nothing trains here.

`collect` and `evaluate` are this module with different designers.
"""

from pathlib import Path
from typing import Any

from lightning import LightningModule

from flowsmith.candidates import CandidateBatch
from flowsmith.designers import Designer, DesignerError
from flowsmith.policy import Policy
from flowsmith.prompts import Prompt
from flowsmith.rewards import RewardEnsemble


class DesignModule(LightningModule):
    """Proposes flows in ``predict_step``; `callbacks.GuidedSampling` adds those of the language model.

    Args:
        designers: What proposes; their names must differ.
        samples: Flows a prompt and designer, each with an image seed of its own.
        seed: Of everything that is drawn.
        policy: Export of GRPO (with the folders ``policy`` and ``reference``), for guided sampling.
        reward: Export of the reward ensemble, whose predictions are then noted beside the scores.

    Attributes:
        policy: The trained policy, or None.
        reference: The policy after vocabulary training, or None.
        ensemble: The reward ensemble, or None.
        finished: Ids of samples that a restarted run need not make again; callbacks fill it.
    """

    def __init__(
        self,
        designers: list[Designer] | None = None,
        samples: int = 1,
        seed: int = 0,
        policy: str | None = None,
        reward: str | None = None,
    ) -> None:
        super().__init__()
        names = [designer.name for designer in designers or []]
        if len(set(names)) < len(names):
            raise DesignerError(
                f"designers={names}: rows are told apart by these names; give each designer its own"
            )
        if samples < 1:
            raise DesignerError(f"samples={samples}: nothing would be proposed; use at least 1")
        self.designers = designers or []
        self.samples = samples
        self.seed = seed
        self.policy: Policy | None = None
        self.reference: Policy | None = None
        self.ensemble: RewardEnsemble | None = None
        self.finished: frozenset[str] = frozenset()
        self._policy_folder, self._reward_folder = policy, reward

    def setup(self, stage: str) -> None:
        """Read the exports."""
        if self._policy_folder is not None:
            self.policy = Policy.load(Path(self._policy_folder) / "policy").eval()
            self.reference = Policy.load(Path(self._policy_folder) / "reference").eval()
        if self._reward_folder is not None:
            self.ensemble = RewardEnsemble.load(self._reward_folder)

    def predict_step(self, batch: list[Prompt], batch_idx: int) -> CandidateBatch:
        """Return what the designers propose for the prompts."""
        proposed = [c for d in self.designers for c in d.propose(batch, self.samples, self.seed)]
        return CandidateBatch(batch, [c for c in proposed if c.sample_id not in self.finished])

    def configure_optimizers(self) -> Any:
        """Nothing trains."""
        return None
