"""Timing of several ways to do one thing, side by side."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from statistics import median


def interleaved(
    ways: Mapping[str, Callable[[], object]],
    repeats: int,
    between: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Run each way in turn, again and again, so that a noisy machine hits all alike; seconds.

    What is done in `between` is not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
            between()
    return seconds


def ratio(above: list[float], below: list[float]) -> float:
    """Median of the ratios within each turn."""
    return median(a / b for a, b in zip(above, below, strict=True))


def show(rows: list[tuple]) -> None:
    """Print a table; the first row holds the names of its columns."""
    texts = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    widths = [max(len(row[i]) for row in texts) for i in range(len(texts[0]))]
    for row in texts:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)))


def finish(results: Mapping[str, float]) -> None:
    """Print the machine, and the results as the last line, in JSON."""
    print(f"on {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(json.dumps({name: round(value, 4) for name, value in results.items()}))
