"""Refusing, before the first job, labels that rule `split` would refuse by their names alone.

The fold of an object follows from its name, so that it is known before an image is read. Objects
that turn out not to be usable can only make a fold emptier.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from luneta.config import ConfigError, Task
from luneta.digests import digest
from luneta.files import read_json, read_memory, write_json
from luneta.plan.survey import SurveyPlan
from luneta.survey.index import KEY, OBJECTS, read_objects, signature
from luneta.survey.tables import TableError
from luneta.training.folds import check_members, deal, members
from luneta.training.labels import Labels, read_labels
from luneta.wording import few

CHECKED = "checked_folds.json"
NAMED = 5


def fold_problems(plan: SurveyPlan) -> Iterator[str]:
    """Find the tasks whose labelled objects cannot fill the folds, whatever their images hold.

    Of a survey with one list, or of stamps, the objects of the shards a task is trained on count;
    with a list for each tile all that are labelled. What was found to be in order is not looked at
    again.

    Parameters
    ----------
    plan : SurveyPlan
        The survey, dealt to shards.
    """
    path = plan.index / CHECKED
    known = read_memory(path) or {}
    passed: dict[str, str] = {}
    for name, task in plan.config.tasks.items():
        if not all(_is_delivered(plan, labels) for labels in task.labels):
            continue
        key = _key(plan, name, task)
        problem = None if known.get(name) == key else _problem(plan, name, task)
        if problem is None:
            passed[name] = key
        else:
            yield f"tasks.{name}: {problem}"
    if passed != known:
        write_json(path, passed)


def _is_delivered(plan: SurveyPlan, path: Path) -> bool:
    """Whether a label table is there, and is not made by the workflow."""
    return path.exists() and plan.results not in path.parents


def _key(plan: SurveyPlan, name: str, task: Task) -> str:
    """Digest of all that the answer depends on."""
    dealt = read_json(plan.index / KEY)["key"] if plan.slices else None
    labels = [signature(path, plan.index) for path in task.labels]
    shards = plan.labelled_shards(name) if plan.slices else None
    return digest([dealt, labels, shards, task.model_dump(mode="json"), plan.config.seed])


def _problem(plan: SurveyPlan, name: str, task: Task) -> str | None:
    try:
        labels = read_labels(task.labels, task)
    except (ConfigError, TableError) as error:
        return str(error)
    names = _present(plan, name, labels)
    if not names:
        return (
            f"none of {len(labels.classes)} labelled objects is in the survey, or in the shards of "
            f"label_tiles; the label tables name {few(map(repr, labels.classes), NAMED)} "
            f"(id_column = {task.id_column!r}). Name the column that holds the survey's object_id, "
            "or leave the task out until its objects are delivered"
        )
    keys = [labels.groups.get(one, one) for one in names]
    folds = deal(keys, task.training, plan.config.seed)
    try:
        check_members(members([labels.classes[one] for one in names], folds, task), task)
    except ConfigError as error:
        return str(error)
    return None


def _present(plan: SurveyPlan, name: str, labels: Labels) -> list[str]:
    """List the labelled objects that the task may be trained on."""
    if not plan.slices:
        return list(labels.classes)
    objects = read_objects(plan.index / OBJECTS)
    shards = pa.array(plan.labelled_shards(name), pa.string())
    inside = objects.filter(pc.is_in(objects["shard"].cast(pa.string()), shards))
    names = pa.array(list(labels.classes), pa.string())
    return names.filter(pc.is_in(names, inside["object_id"].combine_chunks())).to_pylist()
