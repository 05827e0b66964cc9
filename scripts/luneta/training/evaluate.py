"""Rule evaluate: score each fold's network on the fold it never saw, and calibrate."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from luneta.config import Question
from luneta.digests import digest
from luneta.files import read_json, write_json
from luneta.metrics.bootstrap import intervals
from luneta.metrics.classification import scores
from luneta.metrics.counts import confusion
from luneta.metrics.curves import mean_and_standard_error
from luneta.metrics.delong import class_areas
from luneta.metrics.probability import expected_calibration_error
from luneta.models import devices, precision, predicting
from luneta.models import network as networks
from luneta.parquet import write_parquet
from luneta.training import calibration, outliers
from luneta.training.calibration import Calibrator
from luneta.training.data import Cutouts, Labelled, read_split, training_part
from luneta.training.outliers import Gaussians, OutlierModel
from luneta.training.uncertainty import Summary, summarise

logger = logging.getLogger(__name__)

SAMPLING = ("views", "draws", "seed")
MOST_LOGITS = 2**22  # calibrated at once, in memory as float64


@dataclass(frozen=True)
class Answers:
    """What networks say of objects that they were not trained on.

    Attributes
    ----------
    objects
        The objects.
    logits
        (member, object, class), float32; members are the networks in all their views and draws.
    scores
        Distances from the training objects, mean over the networks, float64 (object,).
    """

    objects: Labelled
    logits: np.ndarray
    scores: np.ndarray


def reader(cutouts: Cutouts, objects: Labelled) -> Callable[[int, int], np.ndarray]:
    """Give a function that reads the cutouts of objects `start` to `stop`."""
    return lambda start, stop: cutouts.take(objects.shards[start:stop], objects.rows[start:stop])


def ask(
    path: Path | str,
    model_id: str,
    fold: int,
    objects: Labelled,
    cutouts: Cutouts,
    settings: Mapping[str, Any],
) -> tuple[Answers, Answers, Gaussians]:
    """Run a fold's network over labelled objects.

    Returns
    -------
    held, new : Answers
        Of the objects of the fold, and of the hold-out.
    familiar : luneta.training.outliers.Gaussians
        The labelled objects of the other folds, used by its training or not, in the space of its
        features.

    Raises
    ------
    FloatingPointError
        If logits or features of an object are not finite; it names the objects.
    """
    network = networks.load_known(path, model_id)
    precision.compute_in(network, settings.get("precision", "trained"))
    prepared = predicting.prepare(network)
    learned = training_part(objects, fold)
    learned = learned.where(outliers.sample(learned.labels, settings["seed"]))
    groups = [objects.where(objects.folds == fold), objects.where(objects.folds < 0)]
    batch = predicting.even_batch_size(max(map(len, [*groups, learned])), settings["batch_size"])

    def outputs(group: Labelled, **sampling: int) -> predicting.Outputs:
        read = reader(cutouts, group)
        options = {"features": True, "jit": settings.get("jit", "auto"), **sampling}
        said = predicting.predict([prepared], read, len(group), batch, **options)
        predicting.check_finite(group.ids, said.logits, said.features)
        return said

    familiar = outliers.fit(outputs(learned).features[0], learned.labels)
    answers = []
    for group in groups:
        found = outputs(group, **{name: settings[name] for name in SAMPLING})
        answers.append(Answers(group, found.logits[0], familiar.distances(found.features[0])))
    return (*answers, familiar)


def agreed_precision(
    models: Sequence[Path | str],
    model_ids: Sequence[str],
    objects: Labelled,
    cutouts: Cutouts,
    settings: Mapping[str, Any],
) -> str:
    """Choose the precision of all networks of a task; see `luneta.models.precision.agree`."""
    wanted = settings.get("precision", "trained")
    if wanted == "trained":
        return wanted
    some = reader(cutouts, objects)(0, min(len(objects), precision.OBJECTS))
    loaded = list(map(networks.load_known, models, model_ids))
    return precision.agree(wanted, loaded, some)


def ask_all(
    models: Sequence[Path | str],
    model_ids: Sequence[str],
    objects: Labelled,
    cutouts: Cutouts,
    settings: Mapping[str, Any],
) -> tuple[Answers, Answers, OutlierModel]:
    """Run all networks of a task over labelled objects, a network at a time.

    Parameters
    ----------
    models, model_ids
        Their files and digests, in the order of the folds.

    Returns
    -------
    held : Answers
        Of the objects in folds, in their order, each from the network that did not train on it.
    new : Answers
        Of the hold-out, in its order, from all networks.
    model : luneta.training.outliers.OutlierModel
    """
    dealt = objects.where(objects.folds >= 0)
    named = zip(models, model_ids, strict=True)
    asked = [ask(*one, fold, objects, cutouts, settings) for fold, one in enumerate(named)]
    held, new, familiar = zip(*asked, strict=True)
    back = np.argsort(np.argsort(dealt.folds, kind="stable"))
    scores = np.concatenate([answers.scores for answers in held])[back]
    model = OutlierModel(tuple(familiar), outliers.threshold(scores, settings["strange"]))
    return (
        Answers(dealt, np.concatenate([a.logits for a in held], axis=1)[:, back], scores),
        Answers(
            new[0].objects,
            np.concatenate([answers.logits for answers in new]),
            np.mean([answers.scores for answers in new], axis=0),
        ),
        model,
    )


def ensemble_id(
    model_ids: Sequence[str], calibrator: Calibrator, members: Mapping[str, int], strange: str
) -> str:
    """Give the sha256 over all that decides a prediction.

    Parameters
    ----------
    model_ids
        Of the folds' networks, in their order.
    calibrator
        Of the task.
    members
        Views, draws, seed and precision.
    strange
        Digest of the outlier model.
    """
    return digest([list(model_ids), calibrator.as_dict(), dict(members), strange])


def summarised(
    calibrators: Mapping[int, Calibrator],
    logits: np.ndarray,
    folds: np.ndarray,
    most: int = MOST_LOGITS,
) -> Summary:
    """Calibrate logits and combine the members, some objects at a time.

    Parameters
    ----------
    calibrators
        By fold.
    logits
        (member, object, class).
    folds
        Fold of each object, int (object,).
    most
        Logits at once, about: memory then grows with none of members, views and draws.
    """
    step = max(1, most // (logits.shape[0] * logits.shape[2]))
    parts = []
    for start in range(0, max(1, len(folds)), step):
        here = slice(start, start + step)
        parts.append(summarise(calibration.calibrated(calibrators, logits[:, here], folds[here])))
    return Summary(
        *(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Summary))
    )


def uncalibrated(logits: np.ndarray) -> np.ndarray:
    """Give the mean over members of the softmax of logits (member, object, class)."""
    plain = {0: Calibrator("none", {})}
    return summarised(plain, logits, np.zeros(logits.shape[1], dtype="int32")).probability


def predictions_table(
    answers: Answers, classes: Sequence[str], summary: Summary, model: OutlierModel
) -> pa.Table:
    """Lay out predictions of labelled objects.

    Parameters
    ----------
    answers
        `logit_{class}` is the mean over their members, `uncalibrated_{class}` that of the softmax.
    classes
        In the order of the columns.
    summary
        Of the calibrated members; `mutual_information` is null if there is one member alone.
    model
        Tells which scores are flagged.
    """
    objects, logits = answers.objects, answers.logits
    columns: dict[str, Any] = {
        "object_id": pa.array(objects.ids.tolist(), pa.string()),
        "label": pa.array([classes[i] for i in objects.labels], pa.string()),
        "fold": pa.array(objects.folds, pa.int32()),
    }
    values = {
        "logit": logits.mean(axis=0),
        "probability": summary.probability,
        "uncalibrated": uncalibrated(logits),
    }
    for prefix, table in values.items():
        for i, name in enumerate(classes):
            columns[f"{prefix}_{name}"] = pa.array(table[:, i].astype("float32"))
    alone = np.full(len(objects), len(logits) == 1)
    information = summary.mutual_information.astype("float32")
    return pa.table(
        {
            **columns,
            "entropy": pa.array(summary.entropy.astype("float32")),
            "mutual_information": pa.array(information, mask=alone),
            "outlier_score": pa.array(answers.scores.astype("float32")),
            "outlier": pa.array(model.flags(answers.scores)),
        }
    )


def _write(path: Path | str, table: pa.Table) -> None:
    write_parquet(table, path)


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Put None in the place of what is no number, which JSON has not."""
    return {k: float(v) if math.isfinite(v) else None for k, v in values.items()}


def class_auc(
    labels: np.ndarray, predicted: np.ndarray, task: Question
) -> dict[str, list[float | None]]:
    """Give each class's area under the ROC curve against the rest: value, low, high (68.3 %).

    The interval is DeLong's; a binary task has that of its positive class alone.
    """
    areas = zip(task.classes, class_areas(labels, predicted), strict=True)
    shown = task.classes[1:] if task.kind == "binary" else task.classes
    return {name: list(_finite(area._asdict()).values()) for name, area in areas if name in shown}


def with_intervals(
    labels: np.ndarray, predicted: np.ndarray, task: Question, seed: int
) -> dict[str, Any]:
    """Score predictions: `count`, `scores`, `intervals` (bootstrap, 68.3 %), `class_auc`, ..."""
    ranges = intervals(labels, predicted, task.kind, seed=seed)
    low = _finite({name: ends[0] for name, ends in ranges.items()})
    high = _finite({name: ends[1] for name, ends in ranges.items()})
    return {
        "count": len(labels),
        "scores": _finite(scores(labels, predicted, task.kind)),
        "intervals": {name: [low[name], high[name]] for name in ranges},
        "class_auc": class_auc(labels, predicted, task),
        "confusion": np.asarray(confusion(labels, predicted)).tolist(),
    }


def over_folds(
    labels: np.ndarray, predicted: np.ndarray, folds: np.ndarray, kind: str
) -> dict[str, Any]:
    """Score each fold alone: `folds`, and their `mean` and `standard_error`."""
    of_folds = [
        scores(labels[folds == fold], predicted[folds == fold], kind) for fold in np.unique(folds)
    ]
    mean, error = mean_and_standard_error(of_folds)
    return {
        "folds": [_finite(fold) for fold in of_folds],
        "mean": _finite(mean),
        "standard_error": _finite(error),
    }


def all_scores(
    held: Answers, predicted: np.ndarray, new: Answers, fresh: np.ndarray, task: Question, seed: int
) -> dict[str, Any]:
    """Score out of fold, fold by fold and together, and on the hold-out (None if there is none).

    Parameters
    ----------
    held, new
        Of the objects in folds and of the hold-out.
    predicted, fresh
        Their calibrated probabilities (object, class).
    task
        Its kind and classes.
    seed
        Of the bootstrap.
    """
    labels, unseen = held.objects.labels, new.objects.labels
    before = expected_calibration_error(labels, uncalibrated(held.logits))
    return {
        **over_folds(labels, predicted, held.objects.folds, task.kind),
        **with_intervals(labels, predicted, task, seed),
        "ece_before": float(before),
        "ece_after": float(expected_calibration_error(labels, predicted)),
        "holdout": with_intervals(unseen, fresh, task, seed) if len(unseen) else None,
    }


def run(
    split: Path | str,
    cutouts: Sequence[Path | str],
    models: Sequence[Path | str],
    sidecars: Sequence[Path | str],
    metrics: Path | str,
    out_of_fold: Path | str,
    holdout: Path | str,
    outlier_model: Path | str,
    settings: dict[str, Any],
    threads: int = 1,
    device: str = "auto",
) -> None:
    """Score a task's networks, one per fold, calibrate them, and learn what is strange to them.

    Parameters
    ----------
    split
        splits/{task}.parquet.
    cutouts
        cutouts/{shard}.arrow, in the order of `settings["shards"]`.
    models, sidecars
        models/{task}/fold{k}.keras and .json, in the order of the folds.
    metrics, out_of_fold, holdout, outlier_model
        Written: metrics/{task}.json, metrics/{task}_out_of_fold.parquet,
        metrics/{task}_holdout.parquet (without rows if there is no hold-out),
        metrics/{task}_outliers.npz.
    settings
        `task` (`kind` and `classes` of config.Question), `shards`, `batch_size`, `calibration`,
        `views`, `draws`, `strange`, `seed`; `precision` and `jit` where they are not the usual.
    threads
        Processor threads the job may use.
    device
        `auto`, `cpu` or `gpu`.

    Notes
    -----
    Scores out of fold are of one network each, in all its views and draws, with the calibration
    fitted on the other folds. The hold-out is predicted as new objects are: by all networks, with
    the calibration fitted on all folds.
    """
    devices.configure(threads, device)
    task, seed = Question.model_validate(settings["task"]), settings["seed"]
    store = Cutouts(dict(zip(settings["shards"], cutouts, strict=True)))
    identities = [read_json(path)["model_id"] for path in sidecars]
    objects = read_split(split, task.classes)
    agreed = agreed_precision(models, identities, objects, store, settings)
    settings = {**settings, "precision": agreed}
    held, new, model = ask_all(models, identities, objects, store, settings)
    truth = held.objects.labels, held.objects.folds
    calibrator, losses = calibration.choose(settings["calibration"], held.logits, *truth)
    fitted = calibration.cross_fit(calibrator.method, held.logits, *truth)
    summary = summarised(fitted, held.logits, held.objects.folds)
    fresh = summarised({-1: calibrator}, new.logits, new.objects.folds)
    _write(out_of_fold, predictions_table(held, task.classes, summary, model))
    _write(holdout, predictions_table(new, task.classes, fresh, model))
    model.save(outlier_model)
    members = {name: settings[name] for name in (*SAMPLING, "precision")}
    strange = {"share": settings["strange"], "threshold": model.threshold, "digest": model.digest}
    write_json(
        metrics,
        {
            "classes": task.classes,
            "kind": task.kind,
            **all_scores(held, summary.probability, new, fresh.probability, task, seed),
            "calibration": {**calibrator.as_dict(), "log_losses": losses},
            "members": {"networks": len(models), **members},
            "outliers": strange,
            "models": identities,
            "model_id": ensemble_id(identities, calibrator, members, model.digest),
        },
    )
    logger.info("calibration %s, log-losses %s", calibrator.method, losses)
