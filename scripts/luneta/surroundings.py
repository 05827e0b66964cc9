"""The user's world, as far as it would change results or end a run: pinned, or refused.

Imported before all else of luneta, so it imports the standard library alone.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from importlib import util
from pathlib import Path
from typing import Any

BACKENDS = ("tensorflow", "jax", "torch")
# They cut a training short.
CUTTING_SHORT = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS",
           "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS")  # fmt: skip
KERAS_VALUES = {
    "floatx": ("float16", "float32", "float64"),
    "image_data_format": ("channels_last", "channels_first"),
}
# Modules of Python, and top-level ones that packages bring by mistake, that luneta never imports.
NOT_NEEDED = frozenset([
    "__hello__", "__phello__", "antigravity", "benchmarks", "build", "docs", "ensurepip",
    "examples", "idlelib", "lib2to3", "scripts", "test", "tests", "this", "tkinter",
    "turtle", "turtledemo",
])  # fmt: skip
# Modules whose Snakefile starts jobs without claiming the results
UNCLAIMED_MODULES = "LUNETA_UNCLAIMED"


class SurroundingsError(Exception):
    """Something around luneta would break it; the message says what, and the fix."""


def pin(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set variables that libraries read when they are imported to what luneta needs.

    Jobs inherit them. `~/.keras/keras.json` chooses no backend then; its other settings are pinned
    by `luneta.models`.

    Parameters
    ----------
    environment : mapping
        Changed in place.
    """
    if not environment.get("KERAS_BACKEND"):
        environment["KERAS_BACKEND"] = BACKENDS[0]
    environment["KERAS_NNX_ENABLED"] = "false"
    for name in CUTTING_SHORT:
        environment.pop(name, None)
    for name in THREADS:
        if not _is_count(environment.get(name, "1")):
            del environment[name]


def pin_jobs(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set variables for the Python of the jobs that this process will start.

    Parameters
    ----------
    environment : mapping
        Changed in place.
    """
    if "error" in environment.get("PYTHONWARNINGS", ""):
        del environment["PYTHONWARNINGS"]
    environment["MPLBACKEND"] = "agg"  # figures are files
    environment["PYTHONUTF8"] = "1"


def _is_count(text: str) -> bool:
    """Whether a text is a number of threads, or one for each level of nesting."""
    return all(part.strip().isdecimal() and int(part) > 0 for part in text.split(","))


def can_print(stream: Any) -> None:
    """Let a stream write characters that its encoding does not have as escapes."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def check(scripts: Path | str | None = None) -> None:
    """Refuse to run where other modules stand before the ones that luneta needs.

    Parameters
    ----------
    scripts : path or None
        The folder `scripts` beside the workflow, if it is known.

    Raises
    ------
    SurroundingsError
        In one line, with the fix.
    """
    problems = [
        *_braces(scripts),
        *_other_luneta(scripts),
        *shadows(os.environ.get("PYTHONPATH", "")),
    ]
    if problems:
        raise SurroundingsError(problems[0])


def check_or_exit() -> None:
    """End the process with one line if `check` refuses; the profiles call it.

    As that is before Snakemake makes its cache, a cache that cannot be written to is replaced.
    """
    try:
        check()
    except SurroundingsError as error:
        sys.exit(str(error))
    if (folder := replacement_of_cache()) is not None:
        os.environ["XDG_CACHE_HOME"] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)


def replacement_of_cache(environment: Mapping[str, str] = os.environ) -> str | None:
    """Make a temporary folder for caches, if there is none that can be written to.

    Returns
    -------
    str or None
        The folder, which is the caller's to remove.
    """
    home = os.path.expanduser("~/.cache")  # noqa: PTH111 (it does not fail where there is no home)
    cache = Path(environment.get("XDG_CACHE_HOME") or home) / "snakemake"
    if not cache.is_absolute():  # where there is no home, ~ stays in its path
        return tempfile.mkdtemp(prefix="luneta-cache-")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return None
    except OSError:
        return tempfile.mkdtemp(prefix="luneta-cache-")


def _braces(scripts: Path | str | None) -> Iterator[str]:
    """Say that Snakemake cannot run the scripts of the workflow by their paths."""
    if scripts is None or not Path(scripts).is_dir():
        return
    folder = Path(scripts).resolve().parent
    if set("{}<>") & set(str(folder)):
        yield (
            f"luneta lies in {folder}, and Snakemake takes braces and angle brackets in the paths "
            "of a workflow for patterns: move or rename that folder"
        )


def _other_luneta(scripts: Path | str | None) -> Iterator[str]:
    """Say that the package is not the one beside the workflow."""
    if scripts is None or not (Path(scripts) / "luneta" / "__init__.py").is_file():
        return
    wanted, package = (Path(scripts) / "luneta").resolve(), Path(__file__).resolve().parent
    if wanted != package:
        yield (
            f"luneta is imported from {package}, but this workflow belongs to {wanted}: run `make` "
            f"in {wanted.parents[1]} and use its .venv/bin/snakemake, or set PYTHONPATH="
            f"{wanted.parent}"
        )


def shadows(python_path: str) -> Iterator[str]:
    """Find modules in PYTHONPATH that stand before those of Python or of installed packages.

    Parameters
    ----------
    python_path : str
        Value of the variable.

    Yields
    ------
    str
        A line for each.
    """
    ours = Path(__file__).resolve().parents[1]
    folders = [Path(part) for part in python_path.split(os.pathsep) if part]
    folders = [folder for folder in folders if folder.resolve() != ours and folder.is_dir()]
    if not folders:
        return
    known = (sys.stdlib_module_names | _installed()) - NOT_NEEDED
    for folder in folders:
        if folder.resolve() in _site_folders():
            continue
        for name in sorted(_modules_in(folder) & known):
            yield (
                f"PYTHONPATH has {folder}, whose module {name} stands before the {name} that "
                f"luneta needs: run again without it, as in `env -u PYTHONPATH snakemake ...`"
            )


def _site_folders() -> set[Path]:
    """Folders that this Python itself takes packages from, whatever PYTHONPATH says."""
    paths = sysconfig.get_paths()
    folders = [paths["purelib"], paths["platlib"], *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return {Path(folder).resolve() for folder in folders}


def _installed() -> set[str]:
    """Names of the modules that the packages of this environment bring."""
    return {"luneta"}.union(*(_modules_in(folder) for folder in _site_folders()))


def _modules_in(folder: Path) -> set[str]:
    """Names of the modules and packages that a folder holds."""
    names = {path.name.partition(".")[0] for kind in ("*.py", "*.so") for path in folder.glob(kind)}
    return names | {path.parent.name for path in folder.glob("*/__init__.py")}


def keras_problem(environment: Mapping[str, str] = os.environ) -> str | None:
    """Say in one line why Keras would not start here, if it would not."""
    backend = environment.get("KERAS_BACKEND") or BACKENDS[0]
    if backend not in BACKENDS:
        return (
            f"KERAS_BACKEND = {backend!r}: must be one of {', '.join(BACKENDS)}; unset it for "
            f"{BACKENDS[0]}"
        )
    if util.find_spec(backend) is None:
        return (
            f"KERAS_BACKEND = {backend!r}: {backend} is not installed here; unset it for "
            f"{BACKENDS[0]}, or install {backend} into this environment"
        )
    return _config_problem(_config_path(environment))


def _config_path(environment: Mapping[str, str]) -> Path:
    """Find the file that Keras reads its settings from."""
    if "KERAS_HOME" in environment:
        return Path(environment["KERAS_HOME"]).expanduser() / "keras.json"
    home = os.path.expanduser("~")  # noqa: PTH111 (it does not fail where there is no home)
    return Path(home if os.access(home, os.W_OK) else "/tmp") / ".keras" / "keras.json"


def _config_problem(path: Path) -> str | None:
    """Say what Keras cannot take of its settings; those that it can are pinned."""
    remedy = f"correct or remove the file, or set KERAS_HOME to another folder than {path.parent}"
    try:
        if not path.exists():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None  # so does Keras
    except OSError as error:
        return f"{path}: Keras cannot read it ({error.strerror}); {remedy}"
    if not isinstance(content, dict):
        return f"{path}: must hold settings of Keras by name; {remedy}"
    for key, allowed in KERAS_VALUES.items():
        if content.get(key, allowed[0]) not in allowed:
            return f"{path}: {key} = {content[key]!r} must be one of {', '.join(allowed)}; {remedy}"
    if not isinstance(content.get("epsilon", 1e-7), float):
        return f"{path}: epsilon = {content['epsilon']!r} must be a decimal number; {remedy}"
    return None


def note_module(name: str) -> None:
    """Note that luneta is a module of another workflow, which must claim the results.

    Parameters
    ----------
    name : str
        What that Snakefile calls the module.
    """
    names = os.environ.get(UNCLAIMED_MODULES, "").split()
    os.environ[UNCLAIMED_MODULES] = " ".join(dict.fromkeys([*names, name]))


def claimed(name: str) -> None:
    """Note that a module has claimed its results."""
    names = [one for one in os.environ.get(UNCLAIMED_MODULES, "").split() if one != name]
    os.environ[UNCLAIMED_MODULES] = " ".join(names)


def check_claimed() -> None:
    """Refuse a job of a workflow that uses luneta as a module and does not claim the results.

    Raises
    ------
    SurroundingsError
        With the lines that its Snakefile needs.
    """
    names = os.environ.get(UNCLAIMED_MODULES, "").split()
    if not names:
        return
    lines = [
        f"{when}:\n" + "".join(f"    {name}.{when}()\n" for name in names)
        for when in ("onstart", "onsuccess", "onerror")
    ]
    raise SurroundingsError(
        "luneta is a module of another workflow, which starts jobs without locking the results "
        "for them, and would write no record. Add to its Snakefile, below the modules:\n"
        + "\n".join(lines)
    )
