"""Reading all files of a survey again, to find those that are not as a run wrote them.

    python -m luneta.plan.verify results/demo/runs/0123456789abcdef.json

The exit status is 0 if all is as it was written, 1 if a file is missing or differs, 2 if there is
no such run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from luneta.outputs import verify
from luneta.plan.records import CannotReproduce, Record, read_record
from luneta.plan.reproduce import find, start_of
from luneta.plan.runs import Digests, outputs
from luneta.wording import counted


def verify_run(path: Path) -> list[str]:
    """Compare the results with the manifest of all outputs, and with the record of a run.

    Parameters
    ----------
    path : path
        `results/<survey>/runs/<run_id>.json`.

    Returns
    -------
    list of str
        A line for each file that is missing or differs. Nothing is moved.

    Raises
    ------
    CannotReproduce
        If it is not the record of a run, or lies elsewhere.
    """
    record = read_record(path)
    start_of(path, record.facts.survey)
    results = path.parents[1]
    return [*verify(results), *_other_than_recorded(record, results)]


def _other_than_recorded(record: Record, results: Path) -> list[str]:
    """Compare the outputs with their digests in a record; see `luneta.plan.runs.outputs`."""
    now = outputs(results, list(record.config.get("tasks", {})), Digests(results / "none"))
    differing = [name for name, digest in record.outputs.items() if now.get(name) != digest]
    return [
        f"{results / name}: {'it differs from the record' if name in now else 'it is missing'}"
        for name in sorted(differing)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Verify a run, and end with the status that says how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="results/<survey>/runs/<run_id>.json, or the run_id alone")
    given = parser.parse_args(arguments)
    try:
        path = find(given.run, Path("results"))
        lines = verify_run(path)
    except CannotReproduce as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    for line in lines:
        print(line)
    summary = "all files are as the run wrote them"
    if lines:
        summary = f"{counted(len(lines), 'file')} missing or differing"
    print(f"{path.parents[1]}: {summary}")
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
