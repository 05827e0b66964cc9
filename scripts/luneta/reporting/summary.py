"""The numbers of a survey in a few lines: `python -m luneta.reporting.summary results/demo`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luneta.catalog.read import COLLECTION, WITHOUT_POSITION, catalog_schema, read_columns
from luneta.files import read_json
from luneta.metrics.counts import balanced_accuracy
from luneta.parquet import parquet_schema, read_parquet
from luneta.reporting.predictions import against_truth, read_truth, told_of_split
from luneta.reporting.reckoning import reckon, total
from luneta.reporting.tables import counted, measured
from luneta.retries import Retries, retried


def _objects_line(catalog: Path) -> str:
    found = reckon(catalog, *(catalog.with_name(f"{n}.parquet") for n in ("rejects", "overlaps")))
    beside = f"; {counted(found.overlaps, 'cutout')} better in another tile"
    doubtful = total(found.doubtful_files)
    doubts = f", {doubtful:,} used with doubts (see the report)" if doubtful else ""
    nowhere = pq.read_metadata(catalog.with_name(WITHOUT_POSITION)).num_rows
    where = f"; {counted(nowhere, 'object')} without position ({WITHOUT_POSITION})"
    return (
        f"{counted(found.usable + found.rejected, 'object')}: {found.usable:,} usable, "
        f"{found.rejected:,} rejected; {counted(total(found.unusable_files), 'file')} could not "
        f"be used{doubts}{beside if found.overlaps else ''}{where if nowhere else ''}"
    )


def _task_line(task: str, content: dict) -> str:
    return (
        f"{task}: balanced accuracy {measured(content, 'balanced_accuracy')}, "
        f"AUC {measured(content, 'roc_auc')} over {len(content['folds'])} folds; "
        f"calibration error {content['ece_after']:.3f}, "
        f"{content['ece_before']:.3f} before calibration"
    )


def _labelled(folder: Path, task: str) -> set[str]:
    path = folder / "metrics" / f"{task}_out_of_fold.parquet"
    in_folds = pc.field("fold") >= 0
    table = read_parquet(path, columns=["object_id"], filters=in_folds)
    return set(table["object_id"].to_pylist())


def _conflict_line(folder: Path, task: str) -> Iterable[str]:
    path = folder / "splits" / f"{task}.parquet"
    schema = parquet_schema(path) if path.exists() else pa.schema([])
    if number := told_of_split(schema, "counts").get("conflicting"):
        names = told_of_split(schema, "conflicting")
        dots = ", ..." if number > len(names) else ""
        yield (
            f"{task}: {counted(number, 'object')} left out, labelled with two classes: "
            f"{', '.join(names)}{dots}"
        )


def _candidates_lines(folder: Path) -> Iterable[str]:
    for path in sorted(folder.glob("catalog/*_candidates.parquet")):
        rows = read_parquet(path, columns=["probability", "known_name"])
        known = len(rows) - rows["known_name"].null_count
        expected = pc.sum(rows["probability"]).as_py() or 0.0
        beside = f", {known:,} of them known" if known else ""
        yield (
            f"{path.stem}: {counted(len(rows), 'system')} listed{beside}, "
            f"{expected:,.1f} expected to be true"
        )


def _truth_line(folder: Path, catalog: Path, contents: dict[str, dict]) -> str:
    truth = read_truth(sorted(folder.glob("raw/*_truth.parquet")))
    parts = []
    for task, content in contents.items():
        name = f"{task}_class"
        if name not in catalog_schema(catalog).names:
            continue
        rows = read_columns(catalog, ["object_id", name])
        result = against_truth(rows, task, content["classes"], truth, _labelled(folder, task))
        if result is not None:
            every, new = balanced_accuracy(result.every), balanced_accuracy(result.unlabelled)
            parts.append(f"{task} {every:.3f} ({new:.3f} without the labelled)")
    return "balanced accuracy against the hidden truth: " + ", ".join(parts or ["no task has one"])


def lines(folder: Path | str, shards: Sequence[str] | None = None) -> Iterable[str]:
    """Return the lines of a summary: objects, each task, the truth if hidden, the places.

    Files that are tried again are those of some shards, or of all that ever were.
    """
    folder = Path(folder)
    catalog = folder / "catalog" / COLLECTION
    contents = {path.stem: read_json(path) for path in sorted(folder.glob("metrics/*.json"))}
    complete = catalog.exists()
    if complete:
        yield _objects_line(catalog)
    yield from retried(
        Retries(folder / "index").files(shards), "in this run; the next run tries again"
    )
    for task, content in contents.items():
        yield _task_line(task, content)
        yield from _conflict_line(folder, task)
    if not complete:
        yield f"{catalog} is not written yet: run again without --until or targets"
        return
    if any(folder.glob("raw/*_truth.parquet")):
        yield _truth_line(folder, catalog, contents)
    yield from _candidates_lines(folder)
    page = folder / "report" / "report.html"
    yield f"catalog: {catalog.parent}; report: {page if page.exists() else folder / 'report'}"


def summary(results: Path | str, shards: Sequence[str] | None = None) -> str:
    """Sum up a survey.

    Parameters
    ----------
    results : path
        Folder `results/{survey}`; of a run that stopped short of the catalog, what is there.
    shards : sequence of str, optional
        Those that the survey has now.
    """
    return "\n".join(lines(results, shards))


def main(arguments: list[str]) -> int:
    """Print the summary of the folder given."""
    if len(arguments) != 1:
        print("Usage: python -m luneta.reporting.summary results/SURVEY", file=sys.stderr)
        return 2
    print(summary(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
