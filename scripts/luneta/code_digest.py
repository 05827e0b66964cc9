"""Which code a rule runs, as a digest, so that a changed function reruns what it made.

Snakemake sees a script's own modification time and nothing of what it imports. The digest
covers the script and all modules of luneta it imports, directly or not, by content; a fresh
checkout, which only touches file times, leaves it as it was.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
# A setting reaches its rules as a value in `params`; rewording its description is no reason
# to run anything again. Nor is which GPU a job is given, or from which disk it reads.
EXCLUDED = ("luneta.config", "luneta.gpus", "luneta.staging")


def _module_path(name: str) -> Path | None:
    base = PACKAGE.joinpath(*name.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def _imports(path: Path) -> frozenset[str]:
    """Names of luneta modules that a file imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in names if name.split(".")[0] == "luneta")


def _closure(path: Path, seen: set[Path]) -> Iterator[Path]:
    if path in seen:
        return
    seen.add(path)
    yield path
    for name in sorted(_imports(path)):
        if any(name == left or name.startswith(f"{left}.") for left in EXCLUDED):
            continue
        module = _module_path(name)
        if module is not None:
            yield from _closure(module, seen)


@cache
def code_digest(rule: str) -> str:
    """Digest of `scripts/{rule}.py` and of all of luneta that it imports."""
    return source_digest(PACKAGE.parent / f"{rule}.py")


@cache
def source_digest(start: Path) -> str:
    """Digest of a Python file and of all of luneta that it imports."""
    digest = hashlib.sha256()
    for path in sorted(_closure(start, set())):
        digest.update(path.relative_to(PACKAGE.parent).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
