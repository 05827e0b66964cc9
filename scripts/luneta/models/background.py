"""Threads that keep the device busy: one prepares what comes next, one puts away what is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Take items in a thread, one ahead of the one that is used.

    An error in the thread is raised where its item would have come. The thread has ended when the
    iterator has, is closed, or is left by an error; use `contextlib.closing` where it may be left.

    Parameters
    ----------
    items
        Made one by one; one that is used and the next are in memory.
    """
    iterator = iter(items)
    with ThreadPoolExecutor(1, "ahead") as thread:
        coming = thread.submit(next, iterator, _END)
        while (item := coming.result()) is not _END:
            coming = thread.submit(next, iterator, _END)
            yield item  # type: ignore[misc]


class Behind:
    """A context manager that works on items in a thread, in their order, one behind.

    An error in the thread is raised by the next `put`, or when the context ends.

    Parameters
    ----------
    work : callable
        Called with each item, never with two at once.
    """

    def __init__(self, work: Callable[[Item], object]):
        self._work = work
        self._running: Future | None = None

    def __enter__(self) -> Behind:
        self._thread = ThreadPoolExecutor(1, "behind")
        return self

    def put(self, item: Item) -> None:
        """Hand over an item, when the work on the one before is done."""
        self._wait()
        self._running = self._thread.submit(self._work, item)

    def _wait(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def __exit__(self, kind: type | None, *error: object) -> None:
        try:
            if kind is None:
                self._wait()
        finally:
            self._thread.shutdown()
