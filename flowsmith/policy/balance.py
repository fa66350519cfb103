"""Dividing a cycle's groups into updates, and each update among processes so that none waits long for another."""

from collections.abc import Sequence


def planned(costs: Sequence[int], new: int, minibatches: int, processes: int) -> list[list[list[int]]]:
    """Say which groups each process takes in each update.

    Args:
        costs: Tokens of each group, > 0; new ones first, then what is replayed.
        new: How many are new; a multiple of ``minibatches``, and at least one a process in each update.
        minibatches: Updates in a pass. Each has as many new groups, in their order; past ones are dealt out.
        processes: How many there are.

    Returns:
        For each update, for each process, the places of its groups, in order and never none.
    """
    size = new // minibatches
    updates = [
        [*range(start * size, (start + 1) * size), *range(new + start, len(costs), minibatches)]
        for start in range(minibatches)
    ]
    return [
        [[update[place] for place in part] for part in balanced([costs[i] for i in update], processes)]
        for update in updates
    ]


def balanced(costs: Sequence[int], parts: int) -> list[list[int]]:
    """Give every piece to a part, so that the largest part is small.

    The largest piece first, each to the part that has least so far: at most 4/3 of the best there is (Graham,
    "Bounds on Multiprocessing Timing Anomalies", 1969).

    Args:
        costs: Of each piece, > 0.
        parts: Number of parts, >= 1; none stays empty if there are as many pieces.

    Returns:
        Places of the pieces of each part, in order.
    """
    loads = [0] * parts
    places: list[list[int]] = [[] for _ in range(parts)]
    for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
        part = loads.index(min(loads))
        loads[part] += costs[place]
        places[part].append(place)
    return [sorted(part) for part in places]
