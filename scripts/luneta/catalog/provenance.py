"""Where a catalog comes from: code, config, data, networks and package versions.

Nothing here tells the time, so that the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from luneta.files import read_json

PACKAGES = ("luneta", "numpy", "astropy", "pyarrow", "scikit-learn", "keras", "tensorflow")


def digest(content: Any) -> str:
    """Sha256 of the JSON form of a config, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def files_digest(paths: Sequence[Path | str]) -> str:
    """Sha256 over the sha256 of each file, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def code() -> dict[str, str]:
    """Tell the git commit of this package and whether files differ from it.

    Both are `unknown` without git, or where the package is not part of a repository.
    """
    ours = _git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    commit = _git("rev-parse", "HEAD") if ours else None
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    dirty = "unknown" if changes is None else str(bool(changes)).lower()
    return {"luneta.git_commit": commit or "unknown", "luneta.git_dirty": dirty}


def versions() -> dict[str, str]:
    """Versions of Python and the packages that shape the result, of those installed."""
    found = {"luneta.version.python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[f"luneta.version.{name}"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def provenance(
    config: Mapping, data: Mapping[str, Sequence[Path | str]], metrics: Mapping[str, Path | str]
) -> dict[str, str]:
    """Collect the provenance of a catalog.

    Parameters
    ----------
    config : mapping
        The whole config.
    data : mapping
        Files by what they hold; a digest of each group is kept.
    metrics : mapping
        `metrics/{task}.json` of each task; its `model_id` and method of calibration are kept.

    Returns
    -------
    dict
        Keys begin with `luneta.`.
    """
    found = {"luneta.survey": str(config.get("survey", "")), **code()}
    found["luneta.config_sha256"] = digest(config)
    found |= {f"luneta.data_sha256.{name}": files_digest(paths) for name, paths in data.items()}
    for task, path in metrics.items():
        content = read_json(path)
        found[f"luneta.model_id.{task}"] = str(content["model_id"])
        found[f"luneta.calibration.{task}"] = str(content["calibration"]["method"])
    return found | versions()
