"""A call in a process of its own, with little memory and little time."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

MEMORY = 2**30
SECONDS = 20


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes
    ----------
    kind : str
        `value`, `error` (its own), `signal`, or `hang`.
    error : str
        Type of the error, or number of the signal.
    text : str
        The value as text, or the message.
    grown : int
        Bytes by which the process had grown at most.
    """

    kind: str
    error: str
    text: str
    grown: int = 0


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _size() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@contextlib.contextmanager
def _limited(memory: int) -> Iterator[None]:
    """Let the process grow by so many bytes and no more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_size() + memory, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _answer(pipe, call: Callable, memory: int) -> None:
    start = _peak()
    try:
        with _limited(memory):
            value = call()
    except BaseException as error:
        pipe.send(("error", type(error).__name__, str(error)[:2000], _peak() - start))
    else:
        pipe.send(("value", "", str(value)[:2000], _peak() - start))


def in_child(call: Callable, memory: int = MEMORY, seconds: float = SECONDS) -> Outcome:
    """Call a function in a forked process that may grow by `memory` bytes."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(False)
    process = context.Process(target=_answer, args=(theirs, call, memory))
    process.start()
    theirs.close()
    try:
        answered = ours.poll(seconds)
        sent = ours.recv() if answered else None
    except EOFError:
        sent = None
    if sent is None:
        process.join(0.5)
        hangs = process.is_alive()
        process.kill()
        process.join()
        return Outcome("hang" if hangs else "signal", str(process.exitcode), "")
    process.join()
    return Outcome(*sent)
