"""Which run is remembered and recorded: one that made all that its record tells of.

Snakemake also ends well when it was asked for less than the whole (`--until`, `--omit-from`, one
file), and when it only counted files as made (`--touch`). What lies in the results then is of an
older config or older data, in part or whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from luneta.catalog.provenance import decisive
from luneta.catalog.read import COLLECTION, properties
from luneta.digests import digest
from luneta.files import read_memory, write_json
from luneta.outputs import noted_digests
from luneta.retries import Retries, changed_meanwhile
from luneta.survey.fingerprints import fingerprint, fingerprints
from luneta.wording import few

if TYPE_CHECKING:
    from luneta.plan.jobs import Plan

TAKEN_OVER = "taken_over.json"
RECORDED = re.compile(r"catalog/.*|metrics/[^/]+\.json|models/[^/]+/fold\d+\.json")
MOST_LINES = 3


def wanted(plan: Plan) -> dict[str, list[str]]:
    """List the outputs, by rule, that a record holds digests of, one for each job."""
    results = plan.results
    folds = [(task, fold) for task in plan.tasks for fold in plan.folds(task)]
    return {
        "finetune": [str(results / f"models/{task}/fold{fold}.keras") for task, fold in folds],
        "evaluate": [str(results / f"metrics/{task}.json") for task in plan.tasks],
        "catalog": [str(results / "catalog" / COLLECTION)],
        "candidates": [str(results / f"catalog/{task}_candidates.parquet") for task in plan.listed],
    }


def lacking(plan: Plan, seen_to: Iterable[str]) -> list[str]:
    """Name the rules whose outputs a run did not see to, of those that a record tells of.

    Parameters
    ----------
    plan : Plan
        What was planned.
    seen_to : iterable of str
        Files that the run made, or found to be up to date; of a storage, where their copies lie.
    """
    start = f"{plan.results}/"
    there = {path[path.rfind(start) :] for path in seen_to if start in path}
    return [rule for rule, paths in wanted(plan).items() if not there.issuperset(paths)]


def close(
    plan: Plan, seen_to: Iterable[str], is_unchecked: bool = False, is_all: bool = False
) -> tuple[bool, list[str]]:
    """Remember and record a run that has succeeded, if it made all that the record tells of.

    Parameters
    ----------
    plan : Plan
        What was planned.
    seen_to : iterable of str
        As in `lacking`.
    is_unchecked : bool
        Snakemake counted files as made without a look at what they were made from.
    is_all : bool
        Every job was run, whether it had to be or not.

    Returns
    -------
    is_recorded : bool
        The results are those of the plan.
    lines : list of str
        What the user should know.
    """
    if is_unchecked and (changed := plan.changes()):
        note_taken_over(plan, changed)
        return False, [
            "This run is not recorded: what has changed since the last run was counted as made, "
            f"and was not made ({few(changed, MOST_LINES, '; ')}). To make it, run with --forceall"
        ]
    if rules := lacking(plan, seen_to):
        return False, [
            f"This run is not recorded, as it was not asked for all results (not for all of "
            f"{', '.join(rules)}): run without --until, --omit-from and targets to finish it"
        ]
    if not is_of_plan(plan):
        return False, [
            f"This run is not recorded: {plan.results / 'catalog'} was made from another config. "
            "Run with --forcerun catalog to make it again"
        ]
    if files := changed_since(plan):
        (line,) = changed_meanwhile(files, "the run", "read again by the next run")
        return False, [f"This run is not recorded: {line}. Run the same command again"]
    if is_all:
        (plan.index / TAKEN_OVER).unlink(missing_ok=True)
    lines = plan.clear()
    plan.remember()
    return True, lines


def is_of_plan(plan: Plan) -> bool:
    """Whether the catalog was made from the plan's config, by what the catalog itself says."""
    folder = plan.results / "catalog"
    if not (folder / COLLECTION).exists():
        return False
    primary = properties(folder / COLLECTION).get("hats_primary_table_url")
    path = folder / primary / "hats.properties" if primary else None
    if path is None or not path.exists():
        return True
    told = properties(path).get("luneta.config_sha256")
    return told in (None, digest(decisive(plan.config.model_dump(mode="json"))))


def changed_since(plan: Plan) -> list[str]:
    """Name the delivered files that are not as they were when the run was planned.

    A record would hold digests of files from which nothing was made.
    """
    now = fingerprints(plan.versions, plan.index / "files.json")
    moved = {path for path, version in plan.versions.items() if now[path] != version}
    moved |= {
        path for path, version in plan.named.items() if fingerprint(path, plan.index) != version
    }
    return sorted(moved | set(Retries(plan.index).changed(plan.shards)))


def note_taken_over(plan: Plan, lines: list[str]) -> None:
    """Write down that files count as made which were not, for the records of later runs."""
    known = taken_over(plan)
    write_json(plan.index / TAKEN_OVER, [*known, *(line for line in lines if line not in known)])


def taken_over(plan: Plan) -> list[str]:
    """Read what changes were taken as made, since the last run that made everything."""
    return read_memory(plan.index / TAKEN_OVER) or []


def mark(results: Path) -> str:
    """Digest of what a record tells of, by the manifest, to see later if it is the same.

    Parameters
    ----------
    results : path
        `results/<survey>`, of which the manifest is up to date.
    """
    digests = noted_digests(results)
    return digest([[name, digests[name]] for name in sorted(digests) if RECORDED.fullmatch(name)])


def is_unchanged(plan: Plan, last: Mapping, state: Mapping) -> bool:
    """Whether nothing but the section `provenance` has changed since the last run was remembered.

    Parameters
    ----------
    plan : Plan
        What is planned now.
    last, state : mapping
        What the last run was made of, and what a run now would be.
    """
    if any(last.get(key) != state[key] for key in ("tiles", "lists", "code", "run_id", "rows")):
        return False
    return last.get("outputs") in (None, mark(plan.results))
