"""One file that is being fetched, and its bounds: bytes and time."""

from __future__ import annotations

import time

from fsspec.callbacks import Callback


class Refused(Exception):
    """A transfer that the config does not allow; another try would end in the same way."""


class TooLong(Exception):
    """A transfer that takes longer than the config allows."""


class Transfer(Callback):
    """Counts the bytes of a file while it comes.

    Parameters
    ----------
    target : str
        Where the file is written.
    most_bytes : int
        Largest size.
    deadline : float
        When to give it up, in seconds of the monotonic clock; all tries together.
    """

    def __init__(self, target: str, most_bytes: int, deadline: float):
        super().__init__()
        self.target = target
        self.most_bytes = most_bytes
        self._begun = time.monotonic()
        self._deadline = deadline
        self._bytes = 0

    def start(self) -> None:
        """Begin a try."""
        self._bytes = 0
        self.check()

    def seconds_left(self) -> float:
        """Return the time until the deadline in seconds."""
        return self._deadline - time.monotonic()

    def check(self) -> None:
        """Raise TooLong after the deadline."""
        if self.seconds_left() <= 0:
            raise self.too_long()

    def too_long(self) -> TooLong:
        """Return the error of a transfer that takes too long."""
        seconds = self._deadline - self._begun
        return TooLong(
            f"it was not complete after {seconds:.3g} s (input.remote.most_seconds); set that "
            "higher if the server is slow"
        )

    def set_size(self, size: int | None) -> None:
        """Take note of the size that the server tells.

        Raises
        ------
        Refused
            If it is above the bound.
        """
        if size is not None and size > self.most_bytes:
            raise Refused(f"its size is {size / 1e9:,.3g} GB, {self._bound()}")

    def relative_update(self, inc: int = 1) -> None:
        """Count bytes that have come.

        Raises
        ------
        Refused, TooLong
            If they are more, or have come later, than the config allows.
        """
        self._bytes += inc
        self.check()
        if self._bytes > self.most_bytes:
            raise Refused(f"more than {self.most_bytes / 1e9:.3g} GB came, {self._bound()}")

    def absolute_update(self, value: int) -> None:
        """Count bytes that have come, all together."""
        self.relative_update(value - self._bytes)

    def _bound(self) -> str:
        return (
            f"and input.remote.most_gigabytes is {self.most_bytes / 1e9:.3g}; set that higher if "
            "the file is meant to be so large"
        )
