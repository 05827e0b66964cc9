"""Where a catalog comes from: code, config, data, networks and package versions.

Nothing here tells the time, so that the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from luneta.code_digest import PACKAGE
from luneta.digests import digest, file_digest, files_digest
from luneta.files import read_json
from luneta.urls import steady_config

REPOSITORY = PACKAGE.parents[1]
PACKAGES = (
    "luneta", "snakemake", "numpy", "astropy", "pyarrow", "hats", "scikit-learn", "keras",
    "tensorflow", "tensorflow-cpu", "jax", "torch",
)  # fmt: skip
# What decides results. Profiles describe machines; the config is recorded by its content.
CODE = ("scripts", "workflow/Snakefile", "workflow/rules", "envs", "pyproject.toml")
LOCKS = ("requirements-cpu.txt", "requirements-gpu.txt")
# Where and how a job runs, and what is noted of it: the results are the same.
NOT_OF_THE_RESULTS = ("device", "provenance")


def _git(*arguments: str, differs: bool = False) -> bytes | None:
    """Ask git; None if it cannot tell. A difference, where one is looked for, is no failure."""
    command = ["git", "-C", str(REPOSITORY), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode in ((0, 1) if differs else (0,)) else None


def code() -> dict[str, str]:
    """Tell the git commit of this checkout and whether the code differs from it.

    Code is `CODE`, files that git does not know yet included. Both are `unknown` without git, or
    where the package is not part of a repository.
    """
    ours = _git("ls-files", "--error-unmatch", str(Path(__file__).relative_to(REPOSITORY)))
    commit = _git("rev-parse", "HEAD") if ours is not None else None
    changes = _git("status", "--porcelain", "--", *CODE) if commit else None
    dirty = "unknown" if changes is None else str(bool(changes.strip())).lower()
    return {
        "luneta.git_commit": commit.decode().strip() if commit else "unknown",
        "luneta.git_dirty": dirty,
    }


def code_changes() -> bytes:
    """Give the changes of the code since the commit, as a patch that `git apply` takes."""
    new = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *CODE) or b""
    patches = [_git("diff", "--binary", "--no-ext-diff", "HEAD", "--", *CODE)]
    for name in filter(None, new.decode().split("\0")):
        added = ("--binary", "--no-ext-diff", "--no-index", "--", "/dev/null", name)
        patches.append(_git("diff", *added, differs=True))
    return b"".join(patch or b"" for patch in patches)


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
        return file_digest(lock)
    return digest(versions())


def decisive(config: Mapping) -> dict[str, Any]:
    """Leave out of a config what does not decide the results, as passwords and signatures."""
    kept = {key: value for key, value in config.items() if key not in NOT_OF_THE_RESULTS}
    return steady_config(kept)


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
    return digest([code(), package_digest(), environment_digest(), decisive(config)])[:16]


def packages() -> dict[str, str]:
    """Versions of all packages of this environment, by name."""
    found = {one.metadata["Name"]: one.version for one in metadata.distributions()}
    return {name: found[name] for name in sorted(found) if name}


def versions() -> dict[str, str]:
    """Versions of Python and the packages that shape the result, of those installed."""
    found = {"luneta.version.python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[f"luneta.version.{name}"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def run_facts(config: Mapping) -> dict[str, str]:
    """Tell what decides the results of a run, but for its data: survey, code, config, environment.

    Parameters
    ----------
    config : mapping
        The whole config, as plain types.

    Returns
    -------
    dict
        Keys begin with `luneta.`; they are the same in `runs/{run_id}.json`, in the files of the
        catalog, and in the INFO elements of its VOTable headers.
    """
    return {
        "luneta.survey": str(config.get("survey", "")),
        "luneta.run_id": run_id(config),
        **code(),
        "luneta.config_sha256": digest(decisive(config)),
        "luneta.environment_sha256": environment_digest(),
        **versions(),
    }


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
    found = run_facts(config)
    found |= {f"luneta.data_sha256.{name}": files_digest(paths) for name, paths in data.items()}
    for task, path in metrics.items():
        content = read_json(path)
        found[f"luneta.model_id.{task}"] = str(content["model_id"])
        found[f"luneta.calibration.{task}"] = str(content["calibration"]["method"])
    return found
