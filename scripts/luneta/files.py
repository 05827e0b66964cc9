"""Writing files whole, reading tables, logging to a file."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a path beside `path` to write to, and rename it into place at the end.

    The temporary name keeps the suffix, as writers choose the format by it. If the
    block raises, the temporary file is removed and `path` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path | str, content: Any, indent: int | None = 2) -> None:
    """Write JSON with sorted keys, so that equal content gives equal bytes; not indented, fast."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=indent, sort_keys=True) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text())


def log_to(path: Path | str) -> None:
    """Send log records to `path` as well as standard error, uncaught errors included."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(name)s %(levelname)s: %(message)s",
        handlers=[logging.FileHandler(path, mode="w"), logging.StreamHandler(sys.stderr)],
        force=True,
    )

    def log_uncaught(kind, error, traceback):
        logging.getLogger("luneta").critical("%s", error, exc_info=(kind, error, traceback))

    sys.excepthook = log_uncaught
