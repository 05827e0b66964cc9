"""Making a run again in a clean directory, and comparing what came out: `make reproduce RUN=...`.

    python -m luneta.plan.reproduce results/demo/runs/0123456789abcdef.json

A record may come from a stranger. Its config is shown before anything is laid out. Code that comes
with it, a `.diff` or a commit that is not in the history of this checkout, is shown and not run,
unless `--trust` (`make reproduce RUN=... TRUST=1`) says that somebody has read it.

The exit status is 0 if all is the same, 1 if something differs, 2 if the run cannot be made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import yaml

from luneta.catalog.provenance import REPOSITORY, environment_digest
from luneta.config.fields import did_you_mean
from luneta.digests import file_digest
from luneta.files import atomic_path
from luneta.plan.records import CannotReproduce, Digest, Facts, Inputs, Record, read_record
from luneta.plan.runs import Digests, path_digest
from luneta.printable import printable
from luneta.wording import few

SAME, DIFFERS, MISSING, NEW = "same", "differs", "missing", "only in the new run"
DIGITS = 12  # of a digest, in the table
NAMED = 20
LINE = 100  # characters
MOST_STEPS = 30
# Where the checkout holds what is run, or what decides what is run
CODE_PLACES = {
    ".git", ".snakemake", ".venv", "envs", "makefile", "matplotlibrc", "profiles", "pyproject.toml",
    "reproduced.json", "scripts", "snakefile", "tests", "workflow",
}  # fmt: skip
SYSTEM = [(), ("dev",), ("proc",), ("sys",)]  # reading them through might never end
CODE_SUFFIXES = {".pth", ".py", ".pyc", ".sh", ".smk", ".so"}


def say(text: str) -> None:
    """Print a text that holds words of the record, which might command a terminal."""
    print(printable(text, keep="\n"), flush=True)


def show_config(config: Mapping) -> None:
    """Print the config of a record: which files would be read, and which servers asked."""
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=LINE)
    say(f"Its config, with which the workflow would be run here:\n{text}")


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


def git(*arguments: str, folder: Path | None = None, **options) -> subprocess.CompletedProcess:
    """Run git in a repository, that of this package unless told."""
    command = ["git", "-C", str(folder or REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, check=False, **options)


def check_code(facts: Facts) -> None:
    """Insist that the code of a run can be had.

    Raises
    ------
    CannotReproduce
        If its commit is not known or not there.
    """
    commit = facts.git_commit
    if commit == "unknown":
        raise CannotReproduce(
            "it was made by code outside a git repository, so that nobody knows which; run luneta "
            "from a clone"
        )
    if git("cat-file", "-e", f"{commit}^{{commit}}").returncode != 0:
        raise CannotReproduce(f"its commit {commit} is not in {REPOSITORY}: git fetch it first")


def read_patch(record: Record, path: Path) -> bytes | None:
    """Read the changes of the code since its commit; None if it was not changed.

    Raises
    ------
    CannotReproduce
        If the changes are lost, or are not those of the record.
    """
    changes, commit = record.changes, record.facts.git_commit
    if record.facts.git_dirty == "false":
        return None
    if changes is None or not changes.file:
        raise CannotReproduce(
            f"its code was changed since the commit {commit}, and the changes are not recorded "
            f"({changes.bytes if changes else 'unknown'} bytes)"
        )
    patch = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(patch).hexdigest() != changes.sha256:
        raise CannotReproduce(
            f"its code was changed since the commit {commit}, and {path}, which holds the "
            "changes, is not there or not as it was: copy it beside the record again"
        )
    return patch


def check_trust(commit: str, patch: bytes | None, patch_path: Path, is_trusted: bool) -> None:
    """Show code that comes with a record, and insist that somebody has looked at it.

    Code of the history of this checkout needs no more trust than `make demo` does.

    Raises
    ------
    CannotReproduce
        If there is other code, and nobody trusts it.
    """
    if patch is not None:
        shown = git("apply", "--numstat", "--summary", "-", input=patch)
        listed = shown.stdout.decode(errors="replace").rstrip()
        say(f"{patch_path} changes (lines added, lines removed, file):\n{listed}")
        if not is_trusted:
            raise CannotReproduce(
                f"{patch_path} changes the code that would be run, as your user: read it, and if "
                "you trust it, run make reproduce RUN=... TRUST=1"
            )
    if not is_trusted and git("merge-base", "--is-ancestor", commit, "HEAD").returncode != 0:
        raise CannotReproduce(
            f"its commit {commit} is not in the history of this checkout, and its code would be "
            f"run, as your user: read it (git log -p HEAD..{commit}), and if you trust it, run "
            "make reproduce RUN=... TRUST=1"
        )


def check_inputs(files: Mapping[str, Digest], folder: Path) -> list[str]:
    """Compare what the run was given with what is there now, a line for each file that differs.

    Parameters
    ----------
    files : mapping
        Of the record, by name.
    folder : path
        That the names are relative to.
    """
    paths = {str(folder / name): name for name in files}
    current = Digests(folder / "none").of(paths, path_digest)
    lines = []
    for path, name in paths.items():
        before = files[name].model_dump(exclude_none=True)
        now = current[path]
        if now.get("sha256") != before.get("sha256"):
            lines.append(f"{name}: was {_told(before)}, is {_told(now)}")
    return lines


def _told(digest: Mapping) -> str:
    if "sha256" in digest:
        return f"{digest['bytes']:,} bytes of sha256 {digest['sha256'][:DIGITS]}"
    return "missing" if digest.get("missing") else "unreadable"


def insist_on_inputs(inputs: Inputs, start: Path) -> None:
    """Insist that all is there that the run was given, as it was.

    Raises
    ------
    CannotReproduce
        If something has changed.
    """
    changed = check_inputs(inputs.files, start)
    if changed:
        listed = few(changed, NAMED, "\n  ")
        raise CannotReproduce(f"its inputs have changed:\n  {listed}\nPut the old files back first")
    if inputs.left_out:
        say(f"Not checked: {inputs.left_out}")


def check_out(commit: str, patch: bytes | None, folder: Path) -> None:
    """Lay the code of a run into a new git worktree.

    Raises
    ------
    CannotReproduce
        If git does not; it refuses changes outside the worktree, and behind links.
    """
    done = git("worktree", "add", "--detach", "--force", "--", str(folder), commit)
    if done.returncode == 0 and patch is not None:
        done = git("apply", "--binary", "-", folder=folder, input=patch)
    if done.returncode != 0:
        raise CannotReproduce(f"git says: {done.stderr.decode(errors='replace').strip()}")


def place_of(name: str, checkout: Path, top: Path, survey: str) -> Path | None:
    """Return where an input is looked for, seen from the checkout; None if that is absolute.

    Parameters
    ----------
    name : str
        Of the input, as the record has it.
    checkout, top : path
        The checkout, and the folder that all inputs must stay within.
    survey : str
        Of the run.

    Raises
    ------
    CannotReproduce
        If it lies elsewhere, or in the place of code.
    """
    if Path(name).is_absolute():
        given = Path(os.path.normpath(name))
        if given.parts[1:2] in SYSTEM or top.is_relative_to(given):
            raise CannotReproduce(f"its input {name} is a folder that no run is given")
        return None
    place = Path(os.path.normpath(checkout / name))
    if not place.is_relative_to(top) or checkout.is_relative_to(place):
        raise CannotReproduce(f"its input {name} cannot be laid into the new checkout")
    if place.is_relative_to(checkout):
        parts = [part.lower() for part in place.relative_to(checkout).parts]
        is_code = parts[0] in CODE_PLACES or place.suffix.lower() in CODE_SUFFIXES
        if is_code or parts[:2] == ["results", survey.lower()]:
            raise CannotReproduce(
                f"its input {name} would take the place of code or results of the new checkout: "
                "the record is not as luneta wrote it"
            )
    return place


def lay_inputs(places: Mapping[str, Path], start: Path, top: Path) -> None:
    """Link what a run was given to where its config looks for it, seen from the new checkout.

    Parameters
    ----------
    places : mapping
        Where an input is looked for, by its name; see `place_of`.
    start, top : path
        Where the names lead from, and the folder that all places lie in.

    Raises
    ------
    CannotReproduce
        If a link lies on the way to a place, or there is a folder in it.
    """
    for name, place in sorted(places.items()):
        given = (start / name).resolve()
        if not given.exists() or _is_same(place, given):
            continue
        on_the_way = [folder for folder in place.parents if folder.is_relative_to(top)]
        if any(folder.is_symlink() for folder in on_the_way) or place.is_dir():
            raise CannotReproduce(f"its input {name} cannot be laid at {place}: something is there")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.symlink_to(given)
        except OSError as error:
            raise CannotReproduce(f"its input {name} cannot be laid: {error}") from None


def _is_same(place: Path, given: Path) -> bool:
    if place.is_dir() and given.is_dir():
        return path_digest(place) == path_digest(given)
    return place.is_file() and given.is_file() and file_digest(place) == file_digest(given)


def steps_up(names: Iterable[str]) -> int:
    """Most folders that a relative name leads up.

    Raises
    ------
    CannotReproduce
        If a name leads up farther than folders are ever nested.
    """
    relative = [Path(os.path.normpath(n)) for n in names if not Path(n).is_absolute()]
    steps = max((path.parts.count("..") for path in relative), default=0)
    if steps > MOST_STEPS:
        raise CannotReproduce(f"the name of an input leads {steps} folders up")
    return steps


def python_of(lock: str | None, digest: str, checkout: Path) -> str:
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
            f"its environment (lock {lock or digest[:DIGITS]}) is neither this "
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
    with atomic_path(checkout / "reproduced.json") as temporary:
        temporary.write_text(json.dumps(config))
    command = [python, "-m", "snakemake", "--snakefile", "workflow/Snakefile"]
    command += ["--configfile", "reproduced.json", "--cores", cores]
    # Modules come from the checkout's scripts alone: inputs lie in the working folder
    code = {"PYTHONPATH": str(checkout / "scripts"), "PYTHONSAFEPATH": "1"}
    environment = {**os.environ, **code}
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
        say("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).strip())
    same = sum(row[3] == SAME for row in rows)
    print(f"{same} of {len(rows)} outputs are the same")


def start_of(path: Path, survey: str) -> Path:
    """Return the folder where a run began, by the place of its record.

    Raises
    ------
    CannotReproduce
        If the record does not lie in `results/<survey>/runs/`.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 (a link to the results is not followed)
    if path.parts[-4:-1] != ("results", survey, "runs"):
        raise CannotReproduce(
            f"{path} does not lie in results/{survey}/runs/: copy it and its .diff there, in the "
            "folder whose inputs it names"
        )
    return path.parents[3]


def cleared(results: Path, survey: str, run_id: str) -> Path:
    """Remove what an earlier call has left; return the place, in which there is nothing.

    Raises
    ------
    CannotReproduce
        If a link lies on the way: nothing outside of the results is removed.
    """
    held = [os.open(results, os.O_RDONLY | os.O_DIRECTORY)]
    place = results.resolve()
    try:
        for name in (survey, "reproduced"):
            place /= name
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=held[-1])
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            held.append(os.open(name, flags, dir_fd=held[-1]))
        place /= run_id
        with suppress(FileNotFoundError):
            shutil.rmtree(run_id, dir_fd=held[-1])
    except OSError as error:
        raise CannotReproduce(
            f"{place} must be a folder that can be removed, and no link: {error.strerror or error}"
        ) from None
    finally:
        for descriptor in held:
            os.close(descriptor)
    return place


def reproduce(run: str, cores: str = "all", is_trusted: bool = False) -> bool:
    """Make a run again and say whether all is the same.

    Parameters
    ----------
    run : str
        Path or name of its record.
    cores : str
        For Snakemake.
    is_trusted : bool
        Code that comes with the record may be run.

    Raises
    ------
    CannotReproduce
        If it cannot be made again, its inputs have changed, or the workflow fails.
    """
    path = find(run, Path("results"))
    record = read_record(path)
    facts = record.facts
    start = start_of(path, facts.survey)  # where the run began
    say(f"Run {facts.run_id} of {facts.survey}, commit {facts.git_commit[:DIGITS]}")
    show_config(record.config)
    check_code(facts)
    patch = read_patch(record, path.with_suffix(".diff"))
    check_trust(facts.git_commit, patch, path.with_suffix(".diff"), is_trusted)
    results = start / "results"
    top = results.resolve() / facts.survey / "reproduced" / facts.run_id
    # Deep enough for names that lead out of the checkout to stay within the folder
    steps = steps_up(record.inputs.files)
    checkout = top.joinpath(*["within"] * steps, "checkout")
    places = {name: place_of(name, checkout, top, facts.survey) for name in record.inputs.files}
    insist_on_inputs(record.inputs, start)
    cleared(results, facts.survey, facts.run_id)
    checkout.parent.mkdir(parents=True)
    check_out(facts.git_commit, patch, checkout)
    lay_inputs({name: place for name, place in places.items() if place}, start, top)
    python = python_of(record.environment.lock, facts.environment, checkout)
    make_again(python, record.config, checkout, cores)
    return _compared(record, checkout / "results" / facts.survey / "runs")


def _compared(record: Record, made: Path) -> bool:
    """Print how a new run compares with the recorded one; say whether all is the same."""
    paths = list(made.glob("*.json"))
    if len(paths) != 1:
        raise CannotReproduce(f"the new run has left no record in {made}")
    again = read_record(paths[0])
    rows = compare(record.outputs, again.outputs)
    show(rows)
    now = again.facts.by_name()
    for key, before in sorted(record.facts.by_name().items()):
        if before != now.get(key):
            say(f"{key}: was {before}, is {now.get(key)}")
    print(f"The new run is in {made.parent}")
    return all(row[3] == SAME for row in rows)


def main() -> None:
    """Reproduce a run, and end with the status that says how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="results/<survey>/runs/<run_id>.json, or the run_id alone")
    parser.add_argument("--cores", default="all", help="for Snakemake")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run code that comes with the record as your user: its .diff, or a commit that is not "
        "in the history of this checkout. Read that code first",
    )
    given = parser.parse_args()
    try:
        same = reproduce(given.run, given.cores, given.trust)
    except CannotReproduce as error:
        told = printable(str(error), keep="\n")
        print(f"The run cannot be reproduced: {told}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
