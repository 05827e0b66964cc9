"""Rule card: the model card of a task, in Markdown (Mitchell et al. 2019, arXiv:1810.03993)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from matplotlib.figure import Figure

from luneta.config import Training
from luneta.files import atomic_path, read_json
from luneta.metrics.classification import DESCRIPTIONS
from luneta.parquet import read_parquet
from luneta.reporting.card_template import CARD
from luneta.reporting.cutouts import Pictures, blank, picture_caption, place, shortened
from luneta.reporting.predictions import OutOfFold, note_on_labels, read_out_of_fold
from luneta.reporting.style import panels, save, say, styled, words
from luneta.reporting.tables import calibrated, interval, measured
from luneta.training.course_recipe import applied

log = logging.getLogger(__name__)

FAILURES, COLUMNS, HEIGHT = 24, 8, 1.3
CONFUSIONS = 5


def differences(training: Training) -> dict[str, Any]:
    """Give the training settings that differ from the defaults, nested ones as `section.key`."""
    usual, found = Training().model_dump(mode="json"), {}
    for key, value in training.model_dump(mode="json").items():
        if isinstance(value, dict):
            found |= {
                f"{key}.{inner}": v for inner, v in value.items() if usual[key].get(inner) != v
            }
        elif usual.get(key) != value and key not in ("backbone", "weights"):
            found[key] = value
    return found


def confusions(matrix: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """List the commonest mistakes, the largest share of the true class first.

    Parameters
    ----------
    matrix
        Counts, int (true class, predicted class).
    classes
        Their names.
    """
    total = matrix.sum(axis=1)
    share = matrix / np.maximum(total, 1)[:, None]
    np.fill_diagonal(share, 0)
    order = np.argsort(-share, axis=None, kind="stable")[:CONFUSIONS]
    places = zip(*np.unravel_index(order, share.shape), strict=True)
    return [
        {"true": classes[i], "predicted": classes[j], "count": int(matrix[i, j]),
         "total": int(total[i])}
        for i, j in places
        if i != j and matrix[i, j]
    ]  # fmt: skip


def members_by_fold(split: Path | str, classes: Sequence[str], folds: int) -> dict[str, list[int]]:
    """Count each class in each fold, and in the hold-out at the end."""
    table = read_parquet(split)
    counts = Counter(zip(table["label"].to_pylist(), table["fold"].to_pylist(), strict=True))
    return {name: [counts[name, fold] for fold in (*range(folds), -1)] for name in classes}


@styled
def failures(found: OutOfFold, places: Mapping[str, tuple[str, int]], pictures: Pictures) -> Figure:
    """Show the misclassified objects of the highest probability."""
    wrong = np.flatnonzero(~found.right)
    if not len(wrong):
        figure, (axes,) = panels(1, 6, 2.5)
        say(axes, "None of the labelled objects was misclassified out of fold.")
        return figure
    order = wrong[np.argsort(-found.probabilities[wrong].max(axis=1), kind="stable")][:FAILURES]
    columns = min(COLUMNS, len(order))
    rows = -(-len(order) // columns)
    figure, (axes,) = panels(1, 1.45 * columns + 0.2, 1.45 * HEIGHT * rows + 0.1)
    for number, i in enumerate(order):
        x, y = number % columns, number // columns * HEIGHT
        place(axes, pictures.at(*places[found.object_id[i]]).pixels, x, y)
        said = int(found.probabilities[i].argmax())
        text = (
            f"{words(found.classes[found.labels[i]])}\n"
            f"{found.probabilities[i, said]:.2f} {words(found.classes[said])}\n"
            f"{shortened(str(found.object_id[i]), 20)}"
        )
        picture_caption(axes, text, x + 0.47, y + 0.96)
    blank(axes, columns, rows * HEIGHT)
    return figure


def text_of(
    metrics: Mapping[str, Any],
    sidecar: Mapping[str, Any],
    members: Mapping[str, Sequence[int]],
    left_out: str,
    picture: str,
    settings: Mapping[str, Any],
) -> str:
    """Write the card.

    Parameters
    ----------
    metrics
        Content of metrics/{task}.json.
    sidecar
        Content of models/{task}/fold0.json.
    members
        Objects in each fold and in the hold-out, by class.
    left_out
        Labels that no fold uses, in words.
    picture
        File name of the picture of failures.
    settings
        As in `run`.
    """
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=False)
    environment.filters["words"] = words
    training = applied(Training.model_validate({**sidecar["training"], **settings["split"]}))
    sampling = metrics["members"]
    return environment.from_string(CARD).render(
        **{key: metrics[key] for key in ("classes", "kind", "models", "model_id", "calibration",
           "outliers", "holdout", "count", "ece_before", "ece_after")},
        **{key: sidecar[key] for key in ("bands", "cutout_size", "pixels", "parameters",
           "data_digest", "versions")},
        task=settings["task_name"],
        survey=settings["survey"],
        units=settings["units"],
        pixel_scale=settings["pixel_scale"],
        backbone=training.backbone,
        weights=training.weights,
        changed=differences(training),
        members=members,
        left_out=left_out,
        scores=list(metrics["scores"]),
        whole=metrics,
        descriptions=DESCRIPTIONS,
        over_folds=lambda name: measured(metrics, name),
        calibrated=calibrated(metrics),
        interval=interval,
        sampling=sampling,
        ensemble_size=sampling["networks"] * sampling["views"] * max(1, sampling["draws"]),
        confusions=confusions(np.asarray(metrics["confusion"]), metrics["classes"]),
        picture=picture,
    )  # fmt: skip


def run(
    metrics: Path | str,
    out_of_fold: Path | str,
    split: Path | str,
    sidecar: Path | str,
    cutouts: Mapping[str, Path | str],
    card: Path | str,
    picture: Path | str,
    settings: Mapping[str, Any],
) -> None:
    """Write the model card of a task, and the picture of its failures beside it.

    Parameters
    ----------
    metrics, out_of_fold, split
        metrics/{task}.json, metrics/{task}_out_of_fold.parquet, splits/{task}.parquet.
    sidecar
        models/{task}/fold0.json.
    cutouts
        By shard, cutouts/{shard}.arrow of the labelled shards.
    card, picture
        Written: models/{task}/model_card.md and failures.png.
    settings
        `task_name`, `survey`, `units` (of the pixels), `pixel_scale` (arcsec, None if not known),
        `split` (settings of the training section that decide the split).
    """
    content, table = read_json(metrics), read_parquet(split)
    found = read_out_of_fold(out_of_fold, content["classes"], content["kind"])
    names = zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True)
    places = dict(zip(table["object_id"].to_pylist(), names, strict=True))
    save(failures(found, places, Pictures(cutouts)), Path(picture))
    text = text_of(
        content,
        read_json(sidecar),
        members_by_fold(split, content["classes"], len(content["models"])),
        note_on_labels(table).replace("\n", "; "),
        Path(picture).name,
        settings,
    )
    with atomic_path(card) as temporary:
        temporary.write_text(text, encoding="utf-8")
    log.info("card of %s", settings["task_name"])
