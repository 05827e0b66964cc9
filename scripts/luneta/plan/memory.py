"""What the last run that succeeded has noted of the rows of a survey-wide list."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from luneta.digests import digest
from luneta.files import atomic_path, read_memory
from luneta.plan.changes import row_changes
from luneta.survey.index import KEY, OBJECTS

LAST_OBJECTS = "last_objects.arrow"
LAST_KEY = "last_key.json"


def list_digest(index: Path) -> str | None:
    """Digest of what the rows of a survey-wide list are dealt by; None where there is no list."""
    key = read_memory(index / KEY)
    return None if key is None else digest(key)


def remember_rows(index: Path) -> None:
    """Keep the rows as they are now, to tell later what has changed."""
    for name, last in ((OBJECTS, LAST_OBJECTS), (KEY, LAST_KEY)):
        if (index / name).exists():
            with atomic_path(index / last) as temporary:
                shutil.copyfile(index / name, temporary)


def changed_rows(index: Path, last_run: Mapping) -> list[str]:
    """Say how the rows have changed since the last run; at most one line.

    What was noted then is written again where it is lost and nothing has changed.
    """
    now = list_digest(index)
    if now is None or "rows" not in last_run:
        return []
    last_key = read_memory(index / LAST_KEY)
    is_whole = last_key is not None and (index / LAST_OBJECTS).exists()
    if last_run["rows"] == now:
        if not is_whole:
            remember_rows(index)
        return []
    if not is_whole:
        return ["source list: it has changed; in which rows is not known"]
    return row_changes(index / LAST_OBJECTS, index / OBJECTS)
