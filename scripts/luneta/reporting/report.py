"""Rule report: draw all figures and write all tables."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luneta.files import read_json
from luneta.reporting import figures, tables
from luneta.reporting.cutouts import Pictures, examples, random_cutouts
from luneta.reporting.predictions import OutOfFold, against_truth, read_out_of_fold, read_truth
from luneta.reporting.style import save

log = logging.getLogger(__name__)

RANDOM_CUTOUTS = 96


def kept_column(keep: Sequence[str], what: str) -> str | None:
    """Find the kept column that holds the `magnitude` or the `size` of an object."""
    beginning = {"magnitude": "magnitude", "size": "radius"}[what]
    starts = [name for name in keep if name.lower().startswith(beginning)]
    holds = [name for name in keep if beginning in name.lower()]
    return next(iter(starts + holds), None)


def read_catalog(path: Path | str, settings: Mapping) -> pa.Table:
    """Read only those columns of the catalog that the figures need."""
    found = [kept_column(list(settings["keep"]), what) for what in ("magnitude", "size")]
    columns = ["object_id", "flags", "reject_reason", *(name for name in found if name)]
    columns += [f"{task}_class" for task in settings["predicted"]]
    return pq.read_table(path, columns=list(dict.fromkeys(columns)))


def usable(catalog: pa.Table) -> np.ndarray:
    """Whether each object was classified; shape (objects,), bool."""
    return pc.is_null(catalog["reject_reason"]).to_numpy()


def _of_objects(catalog: pa.Table, name: str | None, ids: np.ndarray):
    """Give name, unit and values of a kept column for some objects."""
    if name is None:
        return None
    good = catalog.filter(pa.array(usable(catalog)))
    values = pd.to_numeric(pd.Series(good[name].to_pandas().to_numpy()), errors="coerce")
    values.index = good["object_id"].to_pandas()
    unit = (catalog.schema.field(name).metadata or {}).get(b"unit", b"").decode() or None
    return name, unit, values.reindex(ids).to_numpy(float)


def _counts(values: Sequence[str | None], classes: Sequence[str]) -> np.ndarray:
    found = pd.Series(values, dtype=object).value_counts()
    return found.reindex(classes, fill_value=0).to_numpy(int)


def _survey_figures(folder: Path, catalog: pa.Table, rejects: pa.Table, pictures: Pictures) -> None:
    files = int(pc.sum(pc.equal(rejects["kind"], "file")).as_py() or 0)
    flags = catalog["flags"].to_numpy()
    save(figures.objects(flags, usable(catalog), files), folder / "objects.png")
    save(random_cutouts(pictures.random(RANDOM_CUTOUTS)), folder / "cutouts.png")


def _task_figures(
    folder: Path,
    task: str,
    found: OutOfFold,
    split: pa.Table,
    histories: Sequence[Path | str],
    catalog: pa.Table,
    pictures: Pictures,
    settings: Mapping,
) -> None:
    keep = list(settings["keep"])
    predicted = task in settings["predicted"]
    chosen = _counts(catalog[f"{task}_class"].to_pylist(), found.classes) if predicted else None
    columns = {
        what: _of_objects(catalog, kept_column(keep, what), found.object_id)
        for what in ("magnitude", "size")
    }
    places = dict(
        zip(
            split["object_id"].to_pylist(),
            zip(split["shard"].to_pylist(), split["row"].to_pylist(), strict=True),
            strict=True,
        )
    )
    labelled = _counts(split["label"].to_pylist(), found.classes)
    drawn = {
        "labels": figures.labels(found.classes, labelled, chosen),
        "training": figures.training([pd.read_csv(path) for path in histories]),
        "confusion": figures.confusion_matrix(found),
        "roc": figures.roc(found),
        "precision_recall": figures.precision_recall(found),
        "calibration": figures.calibration(found),
        "magnitude_size": figures.magnitude_size(found.right, columns),
        "examples": examples(found, places, pictures),
    }
    for name, figure in drawn.items():
        save(figure, folder / f"{task}_{name}.png")
    log.info("drew %s", task)


def _truth_figure(
    folder: Path,
    catalog: pa.Table,
    truth: Sequence[Path | str],
    found: Mapping[str, OutOfFold],
    settings: Mapping,
) -> None:
    hidden = read_truth(truth)
    results = {}
    for task in settings["predicted"]:
        labelled = set(found[task].object_id)
        result = against_truth(catalog, task, found[task].classes, hidden, labelled)
        if result is not None:
            results[task] = result
    save(figures.truth_matrices(results), folder / "truth.png")


def run(
    catalog: Path | str,
    rejects: Path | str,
    cutouts: Mapping[str, Path | str],
    metrics: Mapping[str, Path | str],
    out_of_fold: Mapping[str, Path | str],
    splits: Mapping[str, Path | str],
    histories: Mapping[str, Sequence[Path | str]],
    truth: Sequence[Path | str],
    settings: Mapping,
) -> None:
    """Draw the figures and write the tables of the report.

    Parameters
    ----------
    catalog, rejects : path
        `catalog/{survey}.parquet` and `catalog/rejects.parquet`.
    cutouts : mapping
        By shard, `cutouts/{shard}.arrow`.
    metrics, out_of_fold, splits : mapping
        By task, `metrics/{task}.json`, `metrics/{task}_out_of_fold.parquet`,
        `splits/{task}.parquet`.
    histories : mapping
        By task, `models/{task}/fold{k}_history.csv` in the order of the folds.
    truth : sequence of path
        `raw/{tile}_truth.parquet`; none if the survey is real.
    settings : mapping
        `tasks` (name: kind and classes), `predicted`, `keep`, `comparison` (tasks that share
        labels), `figures` and `report` (folders).
    """
    folder = Path(settings["figures"])
    rows, bad = read_catalog(catalog, settings), pq.read_table(rejects)
    pictures = Pictures.open(cutouts)
    contents = {task: read_json(path) for task, path in metrics.items()}
    found = {
        task: read_out_of_fold(out_of_fold[task], shape["classes"], shape["kind"])
        for task, shape in settings["tasks"].items()
    }
    _survey_figures(folder, rows, bad, pictures)
    for task in settings["tasks"]:
        split = pq.read_table(splits[task])
        _task_figures(folder, task, found[task], split, histories[task], rows, pictures, settings)
    if truth:
        _truth_figure(folder, rows, truth, found, settings)
    if len(settings["comparison"]) > 1:
        compared = {task: contents[task] for task in settings["comparison"]}
        save(figures.comparison(compared), folder / "comparison.png")
    tables.write_rejects(Path(settings["report"]) / "rejects.html", bad)
    tables.write_scores(Path(settings["report"]) / "scores.html", contents)
