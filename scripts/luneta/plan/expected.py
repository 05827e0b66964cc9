"""Which files a plan makes, and which of them nobody asks for but the jobs after them."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from luneta.outputs import LEAVES, leaf_names

if TYPE_CHECKING:
    from luneta.plan.jobs import Plan

FIGURES = (
    "anomalies", "calibration", "candidates", "confusion", "examples", "gradients", "groups",
    "labels", "magnitude_size", "map", "precision_recall", "roc", "training",
)  # fmt: skip
FIGURES_OF_THE_SURVEY = ("objects", "cutouts", "flagged", "truth", "comparison", "label_efficiency")
METRICS = (".json", "_out_of_fold.parquet", "_holdout.parquet", "_outliers.npz")
OF_CLUSTERS = (".parquet", "_neighbours.parquet")
OF_A_FOLD = (".keras", ".json", "_history.csv", "_gradients.csv")
OF_A_TASK = ("model_card.md", "failures.png")
LISTS = ("collection.properties", "rejects.parquet", "overlaps.parquet", "without_position.parquet")
RUN = re.compile(r"[0-9a-f]{16}\.(json|diff)")


class Expected:
    """The outputs of a plan, by their paths under the results.

    Parameters
    ----------
    plan : Plan
        What is planned.
    """

    def __init__(self, plan: Plan):
        self._plan = plan

    def is_output(self, name: str) -> bool:
        """Whether a file is made by the plan."""
        return self.is_intermediate(name) or self._is_result(name)

    def is_intermediate(self, name: str) -> bool:
        """Whether a file is made by the plan, and the rule `all` does not ask for it by itself."""
        folder, _, rest = name.partition("/")
        if folder in ("predictions", "embeddings"):
            task, _, rest = rest.partition("/")
            tasks = self._plan.predicted if folder == "predictions" else self._plan.clustered
            return task in tasks and rest in self._shards(".parquet")
        return rest in self._names.get(folder, frozenset())

    def _shards(self, suffix: str) -> frozenset[str]:
        return self._names["objects"] if suffix == ".parquet" else self._names["cutouts"]

    @cached_property
    def _names(self) -> dict[str, frozenset[str]]:
        """Names by folder, of all but predictions and embeddings."""
        plan = self._plan
        tables = {f"{shard}.parquet" for shard in plan.shards}
        models = {
            f"{task}/fold{fold}{suffix}"
            for task in plan.tasks
            for fold in plan.folds(task)
            for suffix in OF_A_FOLD
        }
        backbones = filter(None, map(plan.backbone, plan.tasks))
        names = {
            "raw": self._raw(),
            "objects": tables,
            "cutouts": {f"{shard}.arrow" for shard in plan.shards},
            "quality": tables | {f"{shard}_files.json" for shard in plan.shards},
            "splits": {f"{task}.parquet" for task in plan.tasks},
            "backbones": {f"{b}{end}" for b in backbones for end in (".weights.h5", ".csv")},
            "models": models,
            "metrics": {f"{task}{end}" for task in plan.tasks for end in METRICS},
            "clusters": {
                f"{task}{end}"
                for task in plan.clustered
                for end in (".parquet", "_neighbours.parquet")
            },
        }
        return {folder: frozenset(found) for folder, found in names.items()}

    def _raw(self) -> set[str]:
        plan = self._plan
        if plan.config.simulation is None:
            return set()
        ends = [f"_{band}.fits" for band in plan.bands]
        ends += ["_sources.fits", "_labels.csv", "_truth.parquet"]
        return {f"{tile}{end}" for tile in plan.tiles for end in ends}

    def _is_result(self, name: str) -> bool:
        return name in self._results or RUN.fullmatch(name.removeprefix("runs/")) is not None

    @cached_property
    def _results(self) -> frozenset[str]:
        """Paths that the rule `all` asks for or planning writes, and those of the catalog."""
        plan = self._plan
        names = {LEAVES, *leaf_names(plan.results), *(f"catalog/{name}" for name in LISTS)}
        names |= {f"catalog/{task}_candidates.parquet" for task in plan.listed}
        names |= {f"models/{task}/{name}" for task in plan.tasks for name in OF_A_TASK}
        names |= {f"figures/{name}.png" for name in FIGURES_OF_THE_SURVEY}
        names |= {f"figures/{task}_{name}.png" for task in plan.tasks for name in FIGURES}
        names |= {"report/rejects.html", "report/scores.html"}
        names |= {f"index/{shard}.parquet" for shard in plan.shards}
        return frozenset(names | {"index/objects.arrow", "index/last_objects.arrow"})
