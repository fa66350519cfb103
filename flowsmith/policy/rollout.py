"""What sampling hands to training: a flow, and what the sampler knew of each of its tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from flowsmith.flows import Flow
from flowsmith.policy.errors import PolicyError

if TYPE_CHECKING:
    from flowsmith.policy.model import Policy


@dataclass(frozen=True)
class Rollout:
    """One sampled flow.

    Attributes:
        prompt_ids: From ``bos`` to ``<flow>``.
        flow_tokens: Codec ids.
        logprobs: Of each token when it was sampled: guided, at temperature, under the grammar; 0 where
            forced.
        forced: True where the grammar left no choice.
        flow: What the tokens say.
    """

    prompt_ids: tuple[int, ...]
    flow_tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    forced: tuple[bool, ...]
    flow: Flow

    @classmethod
    def from_tokens(
        cls, policy: "Policy", prompt: str, tokens: Sequence[int], logprobs: Sequence[float]
    ) -> Self:
        """Take over a flow that another engine sampled, in the vocabulary and under the grammar of a policy.

        Args:
            policy: Whose vocabulary and grammar apply.
            prompt: For which the flow was sampled.
            tokens: Codec ids, the end token included.
            logprobs: The engine's own, one a token; whatever it says of forced tokens becomes 0.

        Raises:
            FlowsmithError: The prompt is too long, or the grammar does not allow the tokens.
            PolicyError: Not one log-probability a token, or the flow is not complete.
        """
        if len(tokens) != len(logprobs):
            raise PolicyError(
                f"{len(logprobs)} log-probabilities for {len(tokens)} tokens; the generator must give one each"
            )
        key = tuple(tokens)
        if not key or key[-1] != policy.codec.language.end:
            raise PolicyError(
                f"the flow of {len(key)} tokens is not complete; a rollout ends with the end token"
            )
        free = set(policy.allowed_sets.replay(key).free)
        forced = tuple(place not in free for place in range(len(key)))
        ids = tuple(policy.encode_prompts([prompt])[0])
        told = tuple(
            0.0 if given else float(logprob) for given, logprob in zip(forced, logprobs, strict=True)
        )
        return cls(ids, key, told, forced, policy.codec.decode(key))
