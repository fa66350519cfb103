"""How much likelier the policy makes what was sampled than the policy that sampled it did."""

from typing import Literal

from torch import Tensor

RatioLevel = Literal["token", "sequence"]


def log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, level: RatioLevel = "token") -> Tensor:
    """Return the logarithm of the importance ratio.

    Args:
        logprobs: Of the policy being trained, B x T.
        old_logprobs: Of the policy that sampled, B x T, no gradient.
        mask: True where a token was chosen (neither forced nor padding), B x T.
        level: ``token``: one ratio a token (B x T). ``sequence``: the geometric mean over the chosen tokens
            (GSPO, arXiv 2507.18071), one a sequence (B x 1).

    Returns:
        Log-ratios, B x T or B x 1; 0 where the mask is False.
    """
    difference = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
    if level == "token":
        return difference
    return difference.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
