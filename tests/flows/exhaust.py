"""Every flow that a grammar allows, by walking all of its ways."""

from flowsmith.flows import Codec, Grammar


def all_allowed(codec: Codec, budget: int) -> list[str]:
    """Return the key of each token sequence's flow; a key that is there twice has two ways to be written.

    Args:
        codec: Of a domain so small that its flows can be listed.
        budget: Most tokens a flow may have.
    """
    grammar = Grammar(codec, budget)
    found: list[str] = []
    stack = [(grammar.start(), list[int]())]
    while stack:
        state, tokens = stack.pop()
        if state.done:
            found.append(codec.decode(tokens).key)
        for token in grammar.allowed(state):
            stack.append((grammar.advance(state, token), [*tokens, token]))
    return found
