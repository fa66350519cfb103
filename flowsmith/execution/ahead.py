"""An iterator that goes on in a thread of its own while its consumer is busy."""

import threading
from collections.abc import Generator, Iterator
from queue import Full, Queue
from typing import TypeVar

T = TypeVar("T")

_LOOK_UP = 0.1  # seconds after which a thread that waits for room looks whether anybody still wants it


def run_ahead(items: Iterator[T], most: int = 64) -> Generator[T, None, None]:
    """Yield what ``items`` yields, which meanwhile gets up to ``most`` items ahead.

    What it raises is raised here, after what it yielded before. Closing this one waits for the item under way, and
    closes ``items`` in its thread.
    """
    queue: Queue[tuple[T] | BaseException | None] = Queue(most)
    unwanted = threading.Event()

    def put(entry: tuple[T] | BaseException | None) -> None:
        while not unwanted.is_set():
            try:
                return queue.put(entry, timeout=_LOOK_UP)
            except Full:
                continue

    def work() -> None:
        end: BaseException | None = None
        try:
            for item in items:
                put((item,))
                if unwanted.is_set():
                    break
            if isinstance(items, Generator):
                items.close()
        except BaseException as error:
            end = error
        put(end)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (entry := queue.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        unwanted.set()
        thread.join()
