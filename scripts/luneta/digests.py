"""Sha256 of plain content and of files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def digest(content: Any) -> str:
    """Give the sha256 of content that JSON can hold, whatever the order of its keys.

    Raises
    ------
    TypeError
        If JSON cannot hold it: its text might then differ from run to run.
    """
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path | str) -> str:
    """Give the sha256 of a file."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_digest(paths: Iterable[Path | str]) -> str:
    """Give the sha256 over the sha256 of each file, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        total.update(bytes.fromhex(file_digest(path)))
    return total.hexdigest()
