"""Making a run again in a clean directory, and comparing what came out: `make reproduce RUN=...`.

    python -m luneta.plan.reproduce results/demo/runs/0123456789abcdef.json

The exit status is 0 if all is the same, 1 if something differs, 2 if the run cannot be made again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from luneta.catalog.provenance import REPOSITORY, environment_digest
from luneta.config.fields import did_you_mean
from luneta.digests import file_digest
from luneta.files import read_json
from luneta.plan.runs import Digests, path_digest

SAME, DIFFERS, MISSING, NEW = "same", "differs", "missing", "only in the new run"
DIGITS = 12  # of a digest, in the table
NAMED = 20


class CannotReproduce(ValueError):
    """A run cannot be made again; the message says why, and what to do."""


def find(run: str, results: Path) -> Path:
    """Find the record of a run, by its path or its name.

    Raises
    ------
    CannotReproduce
        If there is none.
    """
    if Path(run).is_file():
        return Path(run)
    known = {path.stem: path for path in sorted(results.glob("*/runs/*.json"))}
    if run in known:
        return known[run]
    there = did_you_mean(run, list(known)) if known else f"{results} holds no record of any run"
    raise CannotReproduce(f"there is no run {run!r}: {there}")


def git(*arguments: str, folder: Path = REPOSITORY, **options) -> subprocess.CompletedProcess:
    """Run git in a repository."""
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, check=False, **options)


def check_code(facts: Mapping[str, str], changes: Mapping | None, patch: Path) -> None:
    """Insist that the code of a run can be had.

    Raises
    ------
    CannotReproduce
        If its commit is not known or not there, or it was changed and the changes are lost.
    """
    commit = facts["luneta.git_commit"]
    if commit == "unknown":
        raise CannotReproduce(
            "it was made by code outside a git repository, so that nobody knows which; run luneta "
            "from a clone"
        )
    if git("cat-file", "-e", f"{commit}^{{commit}}").returncode != 0:
        raise CannotReproduce(f"its commit {commit} is not in {REPOSITORY}: git fetch it first")
    if facts["luneta.git_dirty"] == "false":
        return
    if not changes or not changes["file"]:
        raise CannotReproduce(
            f"its code was changed since the commit {commit}, and the changes are not recorded "
            f"({(changes or {}).get('bytes', 'unknown')} bytes)"
        )
    if not patch.is_file() or file_digest(patch) != changes["sha256"]:
        raise CannotReproduce(
            f"its code was changed since the commit {commit}, and {patch}, which holds the "
            "changes, is not there or not as it was: copy it beside the record again"
        )


def check_secrets(recorded: Mapping) -> None:
    """Insist on a record whose config is whole.

    Raises
    ------
    CannotReproduce
        If passwords or signatures are left out of it.
    """
    if keys := recorded.get("not_recorded"):
        raise CannotReproduce(
            f"its config held secrets that no record keeps, in {', '.join(keys)}: run the workflow "
            "with the config itself. In input.remote.options name environment variables "
            "({env: NAME}), which are recorded by name"
        )


def check_inputs(inputs: Mapping, folder: Path) -> list[str]:
    """Compare what the run was given with what is there now, a line for each file that differs.

    Parameters
    ----------
    inputs : mapping
        Of the record.
    folder : path
        That the names are relative to.
    """
    expected = inputs["files"]
    paths = {str(folder / name): name for name in expected}
    found = Digests(folder / "none").of(paths, path_digest)
    lines = []
    for path, name in paths.items():
        before, now = expected[name], found[path]
        if now.get("sha256") != before.get("sha256"):
            lines.append(f"{name}: was {_told(before)}, is {_told(now)}")
    return lines


def _told(digest: Mapping) -> str:
    if "sha256" in digest:
        return f"{digest['bytes']:,} bytes of sha256 {digest['sha256'][:DIGITS]}"
    return "missing" if "missing" in digest else "unreadable"


def check_out(facts: Mapping[str, str], patch: Path | None, folder: Path) -> None:
    """Lay the code of a run into a new git worktree.

    Raises
    ------
    CannotReproduce
        If git does not.
    """
    git("worktree", "prune")
    done = git("worktree", "add", "--detach", "--force", str(folder), facts["luneta.git_commit"])
    if done.returncode == 0 and patch is not None:
        done = git("apply", "--binary", str(patch.resolve()), folder=folder)
    if done.returncode != 0:
        raise CannotReproduce(f"git says: {done.stderr.decode().strip()}")


def lay_inputs(names: list[str], start: Path, checkout: Path) -> None:
    """Link what a run was given to where its config looks for it, seen from the new checkout."""
    for name in names:
        if Path(name).is_absolute() or not (start / name).exists():
            continue
        place = Path(os.path.normpath(checkout / name))
        given = (start / name).resolve()
        if place.is_file() and file_digest(place) == file_digest(given):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(given)


def steps_up(names: list[str]) -> int:
    """Most folders that a relative name leads up."""
    relative = [Path(os.path.normpath(n)) for n in names if not Path(n).is_absolute()]
    return max((path.parts.count("..") for path in relative), default=0)


def python_of(environment: Mapping, digest: str, checkout: Path) -> str:
    """Give a Python with the run's packages: this one if it has them, else one made anew.

    Raises
    ------
    CannotReproduce
        If the pinned requirements of the checkout are others, or cannot be installed.
    """
    if digest == environment_digest():
        return sys.executable
    locks = {file_digest(path): path.name for path in checkout.glob("envs/requirements-?pu.txt")}
    if digest not in locks:
        raise CannotReproduce(
            f"its environment (lock {environment.get('lock') or digest[:DIGITS]}) is neither this "
            "one nor one that its commit pins: install its packages, whose versions the record "
            "lists, and run this again with them"
        )
    command = [sys.executable, str(checkout / "envs/install.py")]
    command += ["--gpu"] if locks[digest] == "requirements-gpu.txt" else []
    if subprocess.run(command, check=False).returncode != 0:
        raise CannotReproduce("its environment could not be installed; pip says why above")
    return str(checkout / ".venv/bin/python")


def make_again(python: str, config: Mapping, checkout: Path, cores: str) -> None:
    """Run the workflow in the checkout.

    Raises
    ------
    CannotReproduce
        If it fails.
    """
    (checkout / "reproduced.json").write_text(json.dumps(config))
    command = [python, "-m", "snakemake", "--configfile", "reproduced.json", "--cores", cores]
    environment = {**os.environ, "PYTHONPATH": str(checkout / "scripts")}
    done = subprocess.run(command, cwd=checkout, env=environment, check=False)
    if done.returncode != 0:
        raise CannotReproduce(f"the workflow failed in {checkout}; it says why above")


def compare(before: Mapping[str, str], now: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    """Give output, digest of the run, digest of the new one, and how they compare."""
    rows = []
    for name in sorted({*before, *now}):
        old, new = before.get(name, ""), now.get(name, "")
        verdict = SAME if old == new else MISSING if not new else NEW if not old else DIFFERS
        rows.append((name, old[:DIGITS], new[:DIGITS], verdict))
    return rows


def show(rows: list[tuple[str, str, str, str]]) -> None:
    """Print the table, those that differ last, and their number."""
    rows = sorted(rows, key=lambda row: row[3] != SAME)
    table = [("output", "recorded", "made again", ""), *rows]
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).strip())
    same = sum(row[3] == SAME for row in rows)
    print(f"{same} of {len(rows)} outputs are the same")


def reproduce(run: str, cores: str = "all") -> bool:
    """Make a run again and say whether all is the same.

    Parameters
    ----------
    run : str
        Path or name of its record.
    cores : str
        For Snakemake.

    Raises
    ------
    CannotReproduce
        If it cannot be made again, its inputs have changed, or the workflow fails.
    """
    path = find(run, Path("results")).resolve()
    start = path.parents[3]  # where results/<survey>/runs/<run_id>.json lies, and the run began
    recorded = read_json(path)
    facts, names = recorded["facts"], list(recorded["inputs"]["files"])
    print(f"Run {facts['luneta.run_id']} of {facts['luneta.survey']}, "
          f"commit {facts['luneta.git_commit'][:DIGITS]}", flush=True)  # fmt: skip
    patch = path.with_suffix(".diff")
    check_code(facts, recorded["changes"], patch)
    check_secrets(recorded)
    changed = check_inputs(recorded["inputs"], start)
    if changed:
        more = [f"and {len(changed) - NAMED} more"] if len(changed) > NAMED else []
        listed = "\n  ".join([*changed[:NAMED], *more])
        raise CannotReproduce(f"its inputs have changed:\n  {listed}\nPut the old files back first")
    if recorded["inputs"]["left_out"]:
        print(f"Not checked: {recorded['inputs']['left_out']}")
    # Deep enough for names that lead out of the checkout to stay within the folder.
    folder = start / "results" / facts["luneta.survey"] / "reproduced" / facts["luneta.run_id"]
    shutil.rmtree(folder, ignore_errors=True)
    checkout = folder.joinpath(*["within"] * steps_up(names), "checkout")
    checkout.parent.mkdir(parents=True)
    check_out(facts, patch if recorded["changes"] else None, checkout)
    lay_inputs(names, start, checkout)
    environment = facts["luneta.environment_sha256"]
    python = python_of(recorded["environment"], environment, checkout)
    make_again(python, recorded["config"], checkout, cores)
    made = checkout / "results" / facts["luneta.survey"] / "runs"
    return _compared(recorded, made, facts["luneta.run_id"])


def _compared(recorded: Mapping, made: Path, name: str) -> bool:
    """Print how a new run compares with the recorded one; say whether all is the same."""
    found = [read_json(path) for path in made.glob("*.json")]
    if len(found) != 1:
        raise CannotReproduce(f"the new run has left no record in {made}")
    rows = compare(recorded["outputs"], found[0]["outputs"])
    show(rows)
    again = found[0]["facts"]
    for key in sorted(recorded["facts"]):
        if recorded["facts"][key] != again.get(key):
            print(f"{key}: was {recorded['facts'][key]}, is {again.get(key)}")
    print(f"The new run is in {made.parent}")
    return all(row[3] == SAME for row in rows)


def main() -> None:
    """Reproduce a run, and end with the status that says how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="results/<survey>/runs/<run_id>.json, or the run_id alone")
    parser.add_argument("--cores", default="all", help="for Snakemake")
    given = parser.parse_args()
    try:
        same = reproduce(given.run, given.cores)
    except CannotReproduce as error:
        print(f"The run cannot be reproduced: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
