"""An iterator that runs ahead of its consumer: same items, same errors, and an end when nobody wants more."""

import threading
from collections.abc import Iterator

import pytest

from flowsmith.execution.ahead import run_ahead


def test_items_come_in_order_and_errors_after_them() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise ArithmeticError("no sixth")

    got: list[int] = []
    with pytest.raises(ArithmeticError, match="no sixth"):
        got.extend(run_ahead(items(), most=2))
    assert got == [0, 1, 2, 3, 4]
    assert list(run_ahead(iter([]))) == []


def test_it_goes_on_while_its_consumer_is_busy() -> None:
    """The second item is made before the consumer of the first comes back, and no more than there is room for."""
    made, third = threading.Semaphore(0), threading.Event()

    def items() -> Iterator[int]:
        for number in range(9):
            if number == 3:
                third.set()
            yield number
            made.release()

    ahead = run_ahead(items(), most=1)
    assert next(ahead) == 0
    for _ in range(2):  # handed over or in the queue, without any further next()
        assert made.acquire(timeout=60)
    assert not third.is_set()  # the third waits for room
    assert list(ahead) == list(range(1, 9))


def test_closing_it_ends_the_thread_and_closes_the_iterator() -> None:
    closed_in: list[str] = []

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed_in.append(threading.current_thread().name)

    before = threading.active_count()
    ahead = run_ahead(items(), most=1)
    assert next(ahead) == 1
    ahead.close()
    assert threading.active_count() == before
    assert len(closed_in) == 1
    assert closed_in != [threading.current_thread().name]
