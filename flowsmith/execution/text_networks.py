"""One call of transformers' CLIP or T5 text network: states of a layer, and the pooled state."""

from typing import Any

from torch import Tensor, nn


def layer_count(model: nn.Module) -> int:
    """Return how many layers a text network has."""
    encoder: Any = _inner(model).encoder
    return len(encoder.layers if hasattr(encoder, "layers") else encoder.block)


def run_text_network(
    model: nn.Module, ids: Tensor, end: int, layer: int | None, normed: bool, projected: bool
) -> tuple[Tensor, Tensor | None]:
    """Encode token ids.

    Args:
        model: CLIPTextModel, CLIPTextModelWithProjection or T5EncoderModel.
        ids: [n, tokens].
        end: Id of the token whose state is the pooled one; its first occurrence counts.
        layer: Whose output is wanted, counted from the last, -1; None is the network's own.
        normed: Whether the output of a ``layer`` passes the final norm.
        projected: Whether the pooled state passes the network's projection, if it has one.

    Returns:
        float32 states [n, tokens, width] and, of a CLIP, float32 pooled states [n, width]: always of the last
        layer after the final norm.
    """
    inner = _inner(model)
    output = inner(ids) if layer is None else inner(ids, output_hidden_states=True)
    states = output.last_hidden_state
    if layer is not None:
        states = output.hidden_states[layer]
        if normed:
            states = _final_norm(inner)(states)
    if not hasattr(inner, "final_layer_norm"):
        return states.float(), None
    place = (ids == end).int().argmax(-1)
    pooled = output.last_hidden_state[range(len(ids)), place]
    projection = getattr(model, "text_projection", None)
    if projected and projection is not None:
        pooled = projection(pooled)
    return states.float(), pooled.float()


def _inner(model: nn.Module) -> Any:
    """Return the part that encodes; it is the model itself, or lies under "text_model."."""
    return getattr(model, "text_model", model)


def _final_norm(inner: Any) -> nn.Module:
    norm: nn.Module = getattr(inner, "final_layer_norm", None) or inner.encoder.final_layer_norm
    return norm
