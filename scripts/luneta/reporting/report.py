"""Rule report: draw all figures and write all tables."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from luneta.catalog.read import batches, catalog_schema, read_columns
from luneta.files import read_json
from luneta.parquet import read_parquet
from luneta.reporting import clusters as clustered
from luneta.reporting import comparison, curves, figures, learning, tables
from luneta.reporting.candidates import candidates as draw_candidates
from luneta.reporting.candidates import read_candidates
from luneta.reporting.cutouts import FEW, Pictures, examples, flagged_cutouts, montage
from luneta.reporting.networks import Network, described
from luneta.reporting.predictions import (
    OutOfFold,
    against_truth,
    note_on_labels,
    read_out_of_fold,
    read_truth,
)
from luneta.reporting.reckoning import Reckoning, reckon
from luneta.reporting.scores import write_scores
from luneta.reporting.style import save

log = logging.getLogger(__name__)

RANDOM_CUTOUTS, FLAGGED_CUTOUTS = 96, 8


def kept_column(keep: Sequence[str], what: str) -> str | None:
    """Find the kept column that holds the `magnitude` or the `size` of an object."""
    beginning = {"magnitude": "magnitude", "size": "radius"}[what]
    starts = [name for name in keep if name.lower().startswith(beginning)]
    holds = [name for name in keep if beginning in name.lower()]
    return next(iter(starts + holds), None)


def _some_rows(catalog: Path | str, columns: list[str], ids: np.ndarray) -> pa.Table:
    """Read some columns of the usable objects among `ids`, piece by piece."""
    wanted = pa.array(ids, pa.string())
    columns = ["object_id", "reject_reason", *columns]
    parts = [
        batch.filter(
            pc.and_(pc.is_in(batch["object_id"], wanted), pc.is_null(batch["reject_reason"]))
        )
        for batch in batches(catalog, columns)
    ]
    schema = catalog_schema(catalog)
    return pa.Table.from_batches(parts, pa.schema([schema.field(name) for name in columns]))


def _of_objects(catalog: Path | str, name: str | None, ids: np.ndarray):
    """Give name, unit and values of a kept column for some objects."""
    if name is None:
        return None
    rows = _some_rows(catalog, [name], ids)
    values = pd.to_numeric(pd.Series(rows[name].to_pandas().to_numpy()), errors="coerce")
    values.index = rows["object_id"].to_pandas()
    unit = (rows.schema.field(name).metadata or {}).get(b"unit", b"").decode() or None
    return name, unit, values.reindex(ids).to_numpy(float)


def _counts(values: Sequence[str | None], classes: Sequence[str]) -> np.ndarray:
    found = Counter(values)
    return np.array([found[name] for name in classes], int)


def _predicted_counts(catalog: Path | str, task: str, classes: Sequence[str]) -> np.ndarray:
    """Count the catalog's most probable classes, shape (classes,)."""
    found: Counter = Counter()
    for batch in batches(catalog, [f"{task}_class"]):
        for entry in pc.value_counts(batch.column(0)).to_pylist():
            found[entry["values"]] += entry["counts"]
    return np.array([found[name] for name in classes], int)


def _survey_figures(folder: Path, found: Reckoning, pictures: Pictures) -> None:
    save(figures.objects(found), folder / "objects.png")
    shown = pictures.all() if pictures.few(FEW) else pictures.random(RANDOM_CUTOUTS)
    save(montage(shown), folder / "cutouts.png")
    save(flagged_cutouts(pictures.flagged(FLAGGED_CUTOUTS)), folder / "flagged.png")


def _task_figures(
    folder: Path,
    task: str,
    found: OutOfFold,
    split: pa.Table,
    histories: Sequence[Path | str],
    gradients: Path | str,
    catalog: Path | str,
    pictures: Pictures,
    settings: Mapping,
) -> None:
    keep = list(settings["keep"])
    predicted = task in settings["predicted"]
    chosen = _predicted_counts(catalog, task, found.classes) if predicted else None
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
        "labels": figures.labels(found.classes, labelled, chosen, note_on_labels(split)),
        "training": learning.training([pd.read_csv(path) for path in histories]),
        "gradients": learning.gradients(pd.read_csv(gradients)),
        "confusion": figures.confusion_matrix(found),
        "roc": curves.roc(found),
        "precision_recall": curves.precision_recall(found),
        "calibration": figures.calibration(found),
        "magnitude_size": figures.magnitude_size(found.right, columns),
        "examples": examples(found, places, pictures),
    }
    for name, figure in drawn.items():
        save(figure, folder / f"{task}_{name}.png")
    log.info("drew %s", task)


def _cluster_figures(
    folder: Path,
    task: str,
    path: Path | str,
    catalog: Path | str,
    overlaps: Path | str,
    pictures: Pictures,
    classes: Sequence[str],
) -> None:
    found = clustered.read_clusters(path, task, overlaps)
    rows = _some_rows(catalog, [f"{task}_class"], found.object_id)
    number = {name: i for i, name in enumerate(classes)}
    names = zip(rows["object_id"].to_pylist(), rows[f"{task}_class"].to_pylist(), strict=True)
    predicted = {name: number.get(value, -1) for name, value in names}
    of_objects = np.array([predicted.get(name, -1) for name in found.object_id], int)
    save(clustered.feature_map(found, list(classes), of_objects), folder / f"{task}_map.png")
    save(clustered.groups(found, pictures), folder / f"{task}_groups.png")
    save(clustered.anomalies(found, pictures), folder / f"{task}_anomalies.png")


def _truth_figure(
    folder: Path,
    catalog: Path | str,
    truth: Sequence[Path | str],
    found: Mapping[str, OutOfFold],
    settings: Mapping,
) -> None:
    hidden, results = read_truth(truth), {}
    classes = [f"{task}_class" for task in settings["predicted"]]
    rows = read_columns(catalog, ["object_id", *classes])
    for task in settings["predicted"]:
        labelled = set(found[task].object_id)
        result = against_truth(rows, task, found[task].classes, hidden, labelled)
        if result is not None:
            results[task] = result
    save(figures.truth_matrices(results), folder / "truth.png")


def _comparison_figures(
    folder: Path,
    contents: Mapping[str, Mapping],
    networks: Mapping[str, Network],
    settings: Mapping,
) -> None:
    compared, efficient = (
        {task: contents[task] for task in settings[name]}
        for name in ("comparison", "label_efficiency")
    )
    if compared:
        save(comparison.comparison(compared), folder / "comparison.png")
    if efficient:
        of_lines = {task: networks[task] for task in efficient}
        save(comparison.efficiency(efficient, of_lines), folder / "label_efficiency.png")


def run(
    catalog: Path | str,
    rejects: Path | str,
    overlaps: Path | str,
    cutouts: Mapping[str, Path | str],
    metrics: Mapping[str, Path | str],
    out_of_fold: Mapping[str, Path | str],
    splits: Mapping[str, Path | str],
    sidecars: Mapping[str, Path | str],
    histories: Mapping[str, Sequence[Path | str]],
    gradients: Mapping[str, Path | str],
    clusters: Mapping[str, Path | str],
    candidates: Mapping[str, Path | str],
    truth: Sequence[Path | str],
    settings: Mapping,
) -> None:
    """Draw the figures and write the tables of the report.

    Parameters
    ----------
    catalog, rejects, overlaps : path
        `catalog/collection.properties`, `catalog/rejects.parquet`, `catalog/overlaps.parquet`.
    cutouts : mapping
        By shard, `cutouts/{shard}.arrow`.
    metrics, out_of_fold, splits : mapping
        By task, `metrics/{task}.json`, `metrics/{task}_out_of_fold.parquet`,
        `splits/{task}.parquet`.
    sidecars, gradients : mapping
        By task, `models/{task}/fold0.json` and `models/{task}/fold0_gradients.csv`.
    histories : mapping
        By task, `models/{task}/fold{k}_history.csv` in the order of the folds.
    clusters : mapping
        By task, `clusters/{task}.parquet`; only of tasks that are clustered.
    candidates : mapping
        By task, `catalog/{task}_candidates.parquet`; only of tasks whose candidates are listed.
    truth : sequence of path
        `raw/{tile}_truth.parquet`; none if the survey is real.
    settings : mapping
        `tasks` (name: kind and classes), `predicted`, `keep`, `comparison` and
        `label_efficiency` (tasks of these figures; none, no figure), `figures` and `report`
        (folders).
    """
    folder = Path(settings["figures"])
    reckoning, pictures = reckon(catalog, rejects, overlaps), Pictures(cutouts)
    contents = {task: read_json(path) for task, path in metrics.items()}
    found = {
        task: read_out_of_fold(out_of_fold[task], shape["classes"], shape["kind"])
        for task, shape in settings["tasks"].items()
    }
    _survey_figures(folder, reckoning, pictures)
    for task in settings["tasks"]:
        split = read_parquet(splits[task])
        _task_figures(
            folder, task, found[task], split, histories[task], gradients[task], catalog, pictures,
            settings,
        )  # fmt: skip
    for task, path in clusters.items():
        classes = settings["tasks"][task]["classes"]
        _cluster_figures(folder, task, path, catalog, overlaps, pictures, classes)
    for task, path in candidates.items():
        listed = read_candidates(path)
        save(draw_candidates(listed, pictures), folder / f"{task}_candidates.png")
    if truth:
        _truth_figure(folder, catalog, truth, found, settings)
    networks = {task: described(read_json(path)) for task, path in sidecars.items()}
    _comparison_figures(folder, contents, networks, settings)
    tables.write_rejects(Path(settings["report"]) / "rejects.html", reckoning)
    write_scores(Path(settings["report"]) / "scores.html", contents, networks)
