"""Work shared among processes, which no broken file can stop."""

from __future__ import annotations

import mmap
import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

import numpy as np

from luneta.runs import end_with_parent


class Worker(Protocol):
    """Does a range of slots at a time, in this process or in another."""

    def __call__(self, slots: range) -> Any:
        """Do some slots; what it gives back must be picklable."""

    def lost(self, slot: int) -> Any:
        """Give what stands for a slot whose doing ended its process."""


_worker: list[Worker] = []


def _adopt(worker: Worker) -> None:
    end_with_parent()
    _worker[:] = [worker]


def _do(slots: range) -> Any:
    return _worker[0](slots)


def shared_array(shape: tuple[int, ...]) -> np.ndarray:
    """Make an array, float32, that processes forked later write into.

    Even in one process it is filled faster than one of `numpy.empty`, which takes huge pages.
    """
    count = int(np.prod(shape))
    memory = mmap.mmap(-1, max(4 * count, 4))
    return np.frombuffer(memory, np.float32, count).reshape(shape)


def work_through(
    worker: Worker, count: int, at_once: int, processes: int, ahead: int = 16
) -> Iterator[Any]:
    """Do slots 0 to `count`, some at once, and give the results in their order.

    With more than one process the worker is inherited by a fork, not pickled, so that arrays made
    by `shared_array` beforehand are common to all. A process that dies costs the slots that kill
    it, and no others.

    Parameters
    ----------
    at_once : int
        Slots done by one call; the results must not depend on it.
    processes : int
        1: all is done in this process.
    ahead : int
        Calls under way at most, that whose result is being used included.
    """
    parts = [range(start, min(start + at_once, count)) for start in range(0, count, at_once)]
    if processes == 1 or len(parts) < 2:
        for part in parts:
            yield from _in_this_process(worker, part)
        return
    with _pool(worker, min(processes, len(parts))) as pool:
        waiting = deque((part, _submitted(pool, part)) for part in parts[:ahead])
        for following in [*parts[ahead:], *([None] * len(waiting))]:
            yield from _outcome(worker, *waiting.popleft())
            if following is not None:
                waiting.append((following, _submitted(pool, following)))


def _in_this_process(worker: Worker, part: range) -> Iterator[Any]:
    """Do slots here; where memory does not suffice, in smaller parts."""
    try:
        result = worker(part)
    except MemoryError:
        yield from _apart(worker, part)
    else:
        yield result


def _submitted(pool: ProcessPoolExecutor, part: range) -> Future | None:
    try:
        return pool.submit(_do, part)
    except BrokenProcessPool:
        return None


def _pool(worker: Worker, processes: int) -> ProcessPoolExecutor:
    # A fork, since the other ways import the main module anew, and Snakemake's scripts are
    # not made for that.
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(processes, context, initializer=_adopt, initargs=(worker,))


def _outcome(worker: Worker, part: range, future: Future | None) -> Iterator[Any]:
    if future is None:  # another part has broken the pool
        yield from _apart(worker, part)
        return
    try:
        result = future.result()
    except (BrokenProcessPool, MemoryError):
        yield from _apart(worker, part)
    else:
        yield result


def _apart(worker: Worker, part: range) -> Iterator[Any]:
    """Do slots in a process of their own; where it dies, either half by itself."""
    try:
        with _pool(worker, 1) as pool:
            result = pool.submit(_do, part).result()
    except (BrokenProcessPool, MemoryError):
        if len(part) == 1:
            yield worker.lost(part[0])
            return
        middle = len(part) // 2
        yield from _apart(worker, part[:middle])
        yield from _apart(worker, part[middle:])
    else:
        yield result
