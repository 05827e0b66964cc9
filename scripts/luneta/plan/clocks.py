"""Refusing, before the first job, inputs from the future: Snakemake stops at what they give.

It compares the times of a job's files when the job has ended. Files of the survey's images and
lists reach a job by their content, and may have any time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime

from luneta.plan.jobs import Plan

TOLERANCE = 60.0  # seconds that clocks of a network may differ


def future_problems(plan: Plan) -> Iterator[str]:
    """Find inputs of the rules that were written in the future, by the clock of this machine.

    Parameters
    ----------
    plan : Plan
        What is planned.
    """
    now = time.time()
    for path in dict.fromkeys(_inputs(plan)):
        try:
            modified = os.stat(path).st_mtime  # noqa: PTH116 (of names as the config has them)
        except (OSError, ValueError):
            continue
        if modified > now + TOLERANCE:
            yield (
                f"{path} has a time in the future, {_shown(modified)}, and by the clock of this "
                f"machine it is {_shown(now)}: set the clock right, or give the file the present "
                f"time (touch {path})"
            )


def _inputs(plan: Plan) -> Iterator[str]:
    """Files of the config that rules take as inputs."""
    for name, task in plan.config.tasks.items():
        yield from map(str, task.labels)
        yield from plan.beside_candidates(name)
        yield from plan.weights(name)


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
