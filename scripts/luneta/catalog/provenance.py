"""Where a catalog comes from: code, config, data, networks and package versions.

Nothing here tells the time, so that the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from luneta.code_digest import PACKAGE
from luneta.files import read_json

REPOSITORY = PACKAGE.parents[1]
PACKAGES = (
    "luneta", "snakemake", "numpy", "astropy", "pyarrow", "hats", "scikit-learn", "keras",
    "tensorflow", "tensorflow-cpu", "jax", "torch",
)  # fmt: skip
# What decides results. Profiles describe machines; the config is recorded by its content.
CODE = ("scripts", "workflow/Snakefile", "workflow/rules", "envs", "pyproject.toml")
LOCKS = ("requirements-cpu.txt", "requirements-gpu.txt")
# Where and how a job runs, which the same run on another machine may do otherwise.
OF_THE_MACHINE = ("device",)


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
    command = ["git", "-C", str(REPOSITORY), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def code() -> dict[str, str]:
    """Tell the git commit of this checkout and whether the code differs from it.

    Code is `CODE`, files that git does not know yet included. Both are `unknown` without git, or
    where the package is not part of a repository.
    """
    ours = _git("ls-files", "--error-unmatch", str(Path(__file__).relative_to(REPOSITORY)))
    commit = _git("rev-parse", "HEAD") if ours is not None else None
    changes = _git("status", "--porcelain", "--", *CODE) if commit else None
    dirty = "unknown" if changes is None else str(bool(changes)).lower()
    return {"luneta.git_commit": commit or "unknown", "luneta.git_dirty": dirty}


def package_digest() -> str:
    """Sha256 of all code that makes results: the package, the scripts and the rules."""
    paths = set(PACKAGE.rglob("*.py"))
    if (workflow := REPOSITORY / "workflow").is_dir():
        paths |= {*PACKAGE.parent.glob("*.py"), *workflow.glob("rules/*.smk")}
        paths |= {workflow / "Snakefile"}
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(path.relative_to(REPOSITORY).as_posix().encode() + b"\0")
        total.update(path.read_bytes() + b"\0")
    return total.hexdigest()


def environment_digest() -> str:
    """Sha256 of the pinned requirements that are installed.

    `make` notes which file it has installed; in an environment made otherwise it is the file of
    this checkout, that for GPUs where TensorFlow is the one with CUDA, and without a checkout
    the versions of `PACKAGES`.
    """
    stamp = Path(sys.prefix) / "luneta-setup.json"
    noted = read_json(stamp) if stamp.is_file() else {}
    if found := [noted[name] for name in LOCKS if name in noted]:
        return found[0]
    lock = REPOSITORY / "envs" / LOCKS["luneta.version.tensorflow" in versions()]
    if lock.is_file():
        return hashlib.sha256(lock.read_bytes()).hexdigest()
    return digest(versions())


def run_id(config: Mapping) -> str:
    """Name a run after all that decides its results but the data: code, config, environment.

    Nothing of time or machine is in it, so that a run that was killed and resumed, or one on a
    cluster, writes the same rows as one that was not.

    Parameters
    ----------
    config : mapping
        The whole config, as plain types.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    science = {key: value for key, value in config.items() if key not in OF_THE_MACHINE}
    return digest([code(), package_digest(), environment_digest(), science])[:16]


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
