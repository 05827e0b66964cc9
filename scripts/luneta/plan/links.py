"""Files whose names Snakemake would take for patterns, handed to it under other names."""

from __future__ import annotations

import os
import re
from pathlib import Path

from luneta.digests import digest

# `{name}` is a wildcard to Snakemake, in what an input function returns too, and `<name>` a
# variable; it knows no way to write them as they are.
PATTERN = re.compile(r"[{}<>]")


def plain_name(path: str, folder: Path) -> str:
    """Return a path under which Snakemake finds a file: its own, or that of a link to it.

    Parameters
    ----------
    path : str
        Of a file that the config names.
    folder : path
        Where links lie; made where one is needed.
    """
    if not PATTERN.search(path):
        return path
    link = folder / f"{digest(path)[:8]}_{PATTERN.sub('_', Path(path).name)}"
    target = os.path.abspath(path)  # noqa: PTH100 (a link of the user stays one)
    if link.is_symlink() and str(link.readlink()) == target:
        return str(link)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = link.with_name(f".{os.getpid()}_{link.name}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    return str(link)
