"""The reward: several surrogates that learned from different data say a mean and how far they disagree."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from flowsmith.flows import Codec, Flow
from flowsmith.rewards.pairs import PairTokenizer, RewardsError
from flowsmith.rewards.surrogate import SmallEncoder, Surrogate, build_member, loading


class RewardEnsemble(nn.Module):
    """Predict the score of (prompt, flow) pairs, with doubt.

    Args:
        tokenizer: Encodes pairs; the same for all members.
        members: At least 2 surrogates.

    Attributes:
        target_mean: Mean of the training scores; a prediction of 0 stands for it.
        target_std: Their standard deviation: the unit of predictions.
        std_scale: Factor from disagreement to doubt, fitted on held-out rows; 1 until then.
    """

    target_mean: Tensor
    target_std: Tensor
    std_scale: Tensor

    def __init__(self, tokenizer: PairTokenizer, members: Sequence[Surrogate]) -> None:
        super().__init__()
        if len(members) < 2:
            raise RewardsError(
                f"members={len(members)}: one member cannot disagree with itself; use 4 or more"
            )
        self.tokenizer = tokenizer
        self.members = nn.ModuleList(members)
        self.register_buffer("target_mean", torch.zeros((), dtype=torch.float64))
        self.register_buffer("target_std", torch.ones((), dtype=torch.float64))
        self.register_buffer("std_scale", torch.ones((), dtype=torch.float64))

    @classmethod
    def create(
        cls,
        codec: Codec,
        captions: Sequence[str],
        *,
        members: int = 5,
        encoder: SmallEncoder | str = SmallEncoder(),  # noqa: B008  frozen
        prior_scale: float = 0.5,
        max_tokens: int = 256,
        seed: int = 0,
    ) -> Self:
        """Return an untrained ensemble of members with independent initial values.

        Args:
            codec: Codec of flows.
            captions: Training prompts; a small encoder's tokenizer learns from them.
            members: Number of members.
            encoder: Sizes of an encoder from scratch, or a folder or hub id of a pretrained one.
            prior_scale: Size of the members' fixed random priors, in standard deviations of score.
            max_tokens: Longest sequence.
            seed: Seed of all initial values.

        Raises:
            RewardsError: ``members`` is below 2, or there is no such encoder.
        """
        if isinstance(encoder, SmallEncoder):
            tokenizer = PairTokenizer.from_captions(captions, codec, encoder.text_vocabulary, max_tokens)
        else:
            from transformers import AutoConfig

            with loading(encoder):
                size = AutoConfig.from_pretrained(encoder).vocab_size
                tokenizer = PairTokenizer.from_pretrained(encoder, codec, size, max_tokens)
        seeds = range(1000 * seed, 1000 * seed + members)
        built = [build_member(encoder, tokenizer, prior_scale=prior_scale, seed=s) for s in seeds]
        return cls(tokenizer, built).train()  # pretrained encoders arrive in evaluation mode

    def standardise(self, scores: Tensor) -> Tensor:
        """Return scores in standard deviations around the training mean."""
        return ((scores.double() - self.target_mean) / self.target_std).float()

    def forward(self, ids: Tensor) -> Tensor:
        """Return each member's standardised scores [members, n] of padded pairs, ids [n, tokens]."""
        return torch.stack([member(ids) for member in self.members])

    @torch.no_grad()
    def member_scores(self, prompts: Sequence[str], flows: Sequence[Flow], batch_size: int = 64) -> Tensor:
        """Return each member's standardised scores [members, n]; equal pairs are computed once.

        Raises:
            RewardsError: The two sequences differ in length, or a flow is too long.
        """
        if len(prompts) != len(flows):
            raise RewardsError(f"{len(prompts)} prompts for {len(flows)} flows; give one prompt per flow")
        names = [(prompt, flow.key) for prompt, flow in zip(prompts, flows, strict=True)]
        pairs = dict(zip(names, zip(prompts, flows, strict=True), strict=True))
        sequences = {name: self.tokenizer.encode(prompt, flow) for name, (prompt, flow) in pairs.items()}
        # Like lengths together: less padding. Sorting by content too makes batches the same for any input order.
        order = sorted(sequences, key=lambda name: (len(sequences[name]), name))
        training = self.training
        self.eval()
        blocks = []
        for start in range(0, len(order), batch_size):
            batch = self.tokenizer.batch([sequences[name] for name in order[start : start + batch_size]])
            blocks.append(self(batch.to(self.target_mean.device)).float())
        self.train(training)
        if not blocks:
            return torch.zeros(len(self.members), 0)
        place = {name: i for i, name in enumerate(order)}
        return torch.cat(blocks, 1)[:, [place[name] for name in names]]

    def predict(
        self, prompts: Sequence[str], flows: Sequence[Flow], batch_size: int = 64
    ) -> tuple[Tensor, Tensor]:
        """Return mean and doubt [n] of each pair's score, in standard deviations of the training scores.

        Doubt is the standard deviation over members times `std_scale`: about 68 % of held-out rendered scores lie
        within mean ± doubt. A flow unlike the training data has more of it (see `flowsmith.rewards.prior`).

        Raises:
            RewardsError: The two sequences differ in length, or a flow is too long.
        """
        scores = self.member_scores(prompts, flows, batch_size)
        std = scores.std(0) if len(prompts) else scores.mean(0)
        return scores.mean(0), std * self.std_scale.to(scores)

    def export(self, folder: Path | str) -> None:
        """Write the ensemble as safetensors and JSON, whole or not at all; see `flowsmith.rewards.export`."""
        from flowsmith.rewards.export import export_ensemble

        export_ensemble(self, Path(folder))

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read an exported ensemble, in evaluation mode.

        Raises:
            ExportError: The folder is missing, incomplete, or differs from what was written.
        """
        from flowsmith.rewards.export import load_ensemble

        return load_ensemble(Path(folder), cls)
