"""The settings of each job: only what the job reads, so that nothing else reruns it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from types import MappingProxyType

from luneta.catalog.leaves import lost_files
from luneta.catalog.provenance import decisive, run_id
from luneta.catalog.read import COLLECTION
from luneta.code_digest import code_digest
from luneta.config import BUILT_IN_WEIGHTS, HUB
from luneta.config.tasks import NO_NETWORK_READS, READ_BY_OTHERS
from luneta.digests import digest
from luneta.files import DamagedFile, format_json, parse_json, read_twice, write_twice
from luneta.outputs import Outputs, note, remove_set_aside
from luneta.plan.changes import changes
from luneta.plan.expected import Expected
from luneta.plan.memory import changed_rows, list_digest, remember_rows
from luneta.plan.recording import is_of_plan, is_unchanged, mark
from luneta.plan.runs import is_recorded, record
from luneta.plan.survey import SurveyPlan
from luneta.retries import Retries, changed_meanwhile, retried, still_silent
from luneta.runs import Run
from luneta.survey.shards import LAST_RUN
from luneta.urls import concealed, hidden_options, recorded_config

INGEST_KEYS = {
    "units", "frame", "equinox", "epoch", "image_epoch", "first_pixel", "detection", "remote",
    "overlap_radius", "positions", "most_gigabytes",
}  # fmt: skip
DETECTION_KEYS = {"bands", "mask", "weight", "zero_points", "zero_point"}
CUTOUTS_KEYS = {
    "mask", "weight", "zero_points", "zero_point", "pixel_scale", "remote", "astrometry", "pixels",
    "axes", "bands_required", "most_gigabytes",
}  # fmt: skip
CANDIDATES = "_candidates.parquet"
USUAL_PIXEL_SCALE = 0.262  # arcsec, where a config says none
PRETRAINING_CLASSES = ["round", "in_between", "cigar", "edge_on", "spiral", "lens"]


class Plan(SurveyPlan):
    """What a config asks for: its survey, and the settings of each job.

    The methods named like rules take the rule's wildcards.

    Attributes
    ----------
    run : luneta.runs.Run or None
        The run that it is planned for, if this process will start jobs.
    outputs : luneta.outputs.Outputs or None
        What finished jobs have left, if no other run is at work in the results.
    named : mapping
        Fingerprint of each file that the config names, as such a run has found it.
    """

    run: Run | None = None
    outputs: Outputs | None = None
    named: Mapping[str, str | None] = MappingProxyType({})

    RULES = (
        "ingest", "cutouts", "pretrain", "split", "finetune", "evaluate", "infer", "embed",
        "cluster", "card", "catalog", "candidates", "report",
    )  # fmt: skip

    @cached_property
    def run_id(self) -> str:
        """Name of this run, by code, config and environment; not among a job's settings."""
        return run_id(self.config.model_dump(mode="json"))

    @property
    def tasks(self) -> list[str]:
        """Tasks that are trained and evaluated."""
        return list(self.config.tasks)

    @property
    def predicted(self) -> list[str]:
        """Tasks whose predictions are in the catalog."""
        return [name for name, task in self.config.tasks.items() if task.predict]

    def folds(self, task: str) -> range:
        """Fold numbers of a task."""
        return range(self.config.tasks[task].training.folds)

    def simulate(self, tile: str) -> dict:
        """Settings of `simulate`."""
        return {
            "seed": self.config.seed,
            "bands": self.bands,
            "simulation": self.config.simulation.model_dump(mode="json"),
        }

    def ingest(self, shard: str) -> dict:
        """Settings of `ingest`."""
        grids = [self.grid(tile) for tile in self.tiles_of(shard)]
        settings = {
            **self._ingest_settings,
            "tiles": [grid.as_dict() for grid in grids],
            "sources": self.sources(shard),
            "delivered": self.delivered(grids, self.source_files(shard)),
            **self.retries.settings("ingest", shard),
        }
        return concealed(settings)

    @cached_property
    def _ingest_settings(self) -> dict:
        detects = self.given.get("detection") is not None
        return {
            "columns": self.given["columns"],
            "keep": self.given["keep"],
            "reference_band": self.config.input.reference if self.is_tiles else None,
            "sliced": bool(self.slices),
            **self._part_of_input(INGEST_KEYS | DETECTION_KEYS if detects else INGEST_KEYS),
        }

    def cutouts(self, shard: str) -> dict:
        """Settings of `cutouts`."""
        common = {**self._cutouts_settings, **self.retries.settings("cutouts", shard)}
        if not self.is_tiles:
            return common
        settings = {
            **common,
            "pixels": "flux",
            "tiles": [tile.as_dict() for tile in self.tiles_of(shard)],
            "reference_band": self.config.input.reference,
            "delivered": self.delivered(self.tiles_of(shard)),
        }
        return concealed(settings)

    @cached_property
    def retries(self) -> Retries:
        """What could not be read in earlier runs; looked up once, before any job of this one."""
        return Retries(self.index, probes=self.run is not None)

    @cached_property
    def _cutouts_settings(self) -> dict:
        return {
            "bands": self.bands,
            "cutouts": self.config.cutouts.model_dump(mode="json"),
            "quality": dict(self.config.quality),
            **self._part_of_input(CUTOUTS_KEYS),
            "seeing": self.given["seeing"] if self.config.cutouts.area_ratio else None,
        }

    def _part_of_input(self, keys: set[str]) -> dict:
        part = {key: value for key, value in self.given.items() if key in keys}
        options = hidden_options(self.given["remote"]["options"])
        return part | {"remote": {**self.given["remote"], "options": options}}

    def _task(self, task: str) -> dict:
        """A task as its jobs need it, without what only concerns planning."""
        return self.config.tasks[task].model_dump(
            mode="json", exclude={"labels", "label_tiles", "predict", "candidates"}
        )

    def split(self, task: str) -> dict:
        """Settings of `split`."""
        keys = {"folds", "holdout", "group_column", "group_radius"}
        dealt = self.config.tasks[task].training.model_dump(mode="json", include=keys)
        return {
            "task": {**self._task(task), "training": dealt},
            "shards": self.labelled_shards(task),
            "seed": self.config.seed,
        }

    def positions(self, task: str) -> list[str]:
        """Object lists from which `split` tells near-duplicates; none unless it has to."""
        if self.config.tasks[task].training.group_radius == 0:
            return []
        folder = self.results / "objects"
        return [str(folder / f"{shard}.parquet") for shard in self.labelled_shards(task)]

    def finetune(self, task: str) -> dict:
        """Settings of `finetune`; what shapes no network is left out."""
        section = self.config.tasks[task]
        return {
            "task_name": task,
            "task": {
                "kind": section.kind,
                "classes": list(section.classes),
                "training": section.training.model_dump(mode="json", exclude=NO_NETWORK_READS),
            },
            "shards": self.labelled_shards(task),
            "seed": self.config.seed,
        }

    def evaluate(self, task: str) -> dict:
        """Settings of `evaluate`."""
        section = self.config.tasks[task]
        return {
            "task_name": task,
            "task": {"kind": section.kind, "classes": list(section.classes)},
            "calibration": section.training.calibration,
            "shards": self.labelled_shards(task),
            **self.config.inference.model_dump(mode="json"),
            "seed": self.config.seed,
        }

    def infer(self, task: str) -> dict:
        """Settings of `infer`; how networks are asked, and calibrated, `evaluate` tells."""
        return {
            "task_name": task,
            **self._passes,
            "models": self._of_folds(task, ".keras"),
            "sidecars": self._of_folds(task, ".json"),
        }

    def _of_folds(self, task: str, suffix: str) -> list[str]:
        folder = self.results / "models" / task
        return [str(folder / f"fold{fold}{suffix}") for fold in self.folds(task)]

    @property
    def _passes(self) -> dict:
        return {"batch_size": self.config.inference.batch_size, "jit": self.config.inference.jit}

    @property
    def clustered(self) -> list[str]:
        """Tasks whose networks' features place every object."""
        return list(self.config.clustering.tasks) if self.config.clustering else []

    def embed(self, task: str) -> dict:
        """Settings of `embed`."""
        return self._passes

    def cluster(self, task: str) -> dict:
        """Settings of `cluster`."""
        return {
            **self.config.clustering.model_dump(mode="json", exclude={"tasks"}),
            "task_name": task,
            "shards": self.shards,
            "seed": self.config.seed,
        }

    def _backbone_settings(self, task: str) -> dict:
        """All of a task that shapes a backbone trained in the workflow."""
        training = self.config.tasks[task].training
        fields = {"backbone", "width", "activation", "image_size", "preprocessing", "precision",
                  "rgb", "stem"}  # fmt: skip
        shards = self.labelled_shards(task) if self._contrasts else []
        return {
            "training": training.model_dump(mode="json", include=fields),
            "pretraining": self.config.pretraining.model_dump(mode="json"),
            "shards": shards,
        }

    @property
    def _contrasts(self) -> bool:
        return self.config.pretraining.method == "contrastive"

    def backbone(self, task: str) -> str | None:
        """Name of the backbone a task has pretrained in the workflow, if it does."""
        training = self.config.tasks[task].training
        if training.weights != "pretrain" or training.course_recipe:
            return None
        identity = digest(self._backbone_settings(task))[:6]
        return f"{training.backbone}_{training.width:g}_{identity}"

    def weights(self, task: str) -> list[str]:
        """The weights file a task starts from, as an input of `finetune`; none if there is none."""
        backbone = self.backbone(task)
        if backbone is not None:
            return [str(self.results / "backbones" / f"{backbone}.weights.h5")]
        training = self.config.tasks[task].training
        is_file = training.weights not in BUILT_IN_WEIGHTS and not training.course_recipe
        if not is_file or training.weights.startswith(HUB):
            return []
        return [self.plain_name(training.weights)]

    def _pretrained_for(self, backbone: str) -> str:
        return next(name for name in self.tasks if self.backbone(name) == backbone)

    def pretrain(self, backbone: str) -> dict:
        """Settings of `pretrain`."""
        sky = self.config.simulation or self.config.input
        simulated = {
            "classes": PRETRAINING_CLASSES,
            "bands": self.bands,
            "cutout_size": self.config.cutouts.size,
            "pixel_scale": sky.pixel_scale or USUAL_PIXEL_SCALE,
        }
        shaping = self._backbone_settings(self._pretrained_for(backbone))
        return {**shaping, **({} if self._contrasts else simulated), "seed": self.config.seed}

    def pretrain_cutouts(self, backbone: str) -> list[str]:
        """The cutouts that a backbone is trained on, if not on simulated ones."""
        if not self._contrasts:
            return []
        shards = self.labelled_shards(self._pretrained_for(backbone))
        return [str(self.results / "cutouts" / f"{shard}.arrow") for shard in shards]

    def pretrain_splits(self, backbone: str) -> list[str]:
        """The splits that tell which of these cutouts are of a hold-out."""
        if not self._contrasts:
            return []
        tasks = [name for name in self.tasks if self.backbone(name) == backbone]
        return [str(self.results / "splits" / f"{name}.parquet") for name in tasks]

    def catalog(self) -> dict:
        """Settings of `catalog`."""
        return {
            "survey": self.config.survey,
            "seed": self.config.seed,
            "config": concealed(decisive(self.config.model_dump(mode="json"))),
            "bands": self.bands,
            "calibrated": self.calibrated,
            "keep": self.kept,
            "catalog": self.config.catalog.model_dump(mode="json"),
            "epoch": self.given.get("image_epoch") or self.given.get("epoch"),
            "overlap_radius": self.given.get("overlap_radius"),
            "detected": self.given.get("detection") is not None,
            "shards": self.shards,
            "predicted": self.predicted,
            "clustered": self.clustered,
            "tasks": {name: self._task_shape(name) for name in self.predicted},
        }

    def _task_shape(self, task: str) -> dict:
        section = self.config.tasks[task]
        return {"kind": section.kind, "classes": list(section.classes)}

    @property
    def listed(self) -> list[str]:
        """Tasks whose most probable objects are listed."""
        return [name for name, task in self.config.tasks.items() if task.candidates]

    def beside_candidates(self, task: str) -> list[str]:
        """Files that a list of candidates is joined with: known ones, and experts' grades."""
        section = self.config.tasks[task].candidates
        files = [path for path in (section.known, section.grades) if path] if section else []
        return [self.plain_name(path) for path in files]

    def candidates(self, task: str) -> dict:
        """Settings of `candidates`."""
        section = self.config.tasks[task].candidates
        return {
            **(section.model_dump(mode="json") if section else {}),
            "task_name": task,
            "positive": self.config.tasks[task].classes[-1],
            "survey": self.config.survey,
            "keep": self.kept,
        }

    def card(self, task: str) -> dict:
        """Settings of `card`."""
        return {
            "task_name": task,
            "survey": self.config.survey,
            "shards": self.labelled_shards(task),
            "units": self._pixel_units(),
            "pixel_scale": self.given.get("pixel_scale"),
            "split": self.config.tasks[task].training.model_dump(
                mode="json", include=READ_BY_OTHERS
            ),
        }

    def _pixel_units(self) -> str:
        if self.given.get("pixels") == "display":
            return "of a picture, 0 to 255"
        if self.config.cutouts.noise_units:
            return "in units of each band's sky noise"
        return "in nanojansky, or the images' own units"

    def report(self) -> dict:
        """Settings of `report`."""
        return {
            "shards": self.shards,
            "tasks": {name: self._task_shape(name) for name in self.tasks},
            "folds": {name: len(self.folds(name)) for name in self.tasks},
            "predicted": self.predicted,
            "clustered": self.clustered,
            "listed": self.listed,
            "keep": self.kept,
            "comparison": self.compared(),
            "label_efficiency": self.label_efficiency(),
            "figures": str(self.results / "figures"),
            "report": str(self.results / "report"),
        }

    def compared(self) -> list[str]:
        """Tasks that answer the same question on the same folds, to be shown side by side."""
        groups: dict[str, list[str]] = {}
        for name in self.tasks:
            key = digest([self.label_files(name), self.split(name)])
            groups.setdefault(key, []).append(name)
        largest = max(groups.values(), key=len, default=[])
        return largest if len(largest) > 1 else []

    def comparison_figure(self) -> list[str]:
        """The figure that compares tasks, where there are any to compare."""
        return [str(self.results / "figures/comparison.png")] if self.compared() else []

    def label_efficiency(self) -> list[str]:
        """Compared tasks, where one network learns from different fractions of the labels."""
        fractions: dict[str, set[float]] = {}
        for name in self.compared():
            training = self.config.tasks[name].training
            fields = {"backbone", "width", "weights", "course_recipe"}
            key = digest(training.model_dump(mode="json", include=fields))
            fractions.setdefault(key, set()).add(training.label_fraction)
        return self.compared() if any(len(found) > 1 for found in fractions.values()) else []

    def label_efficiency_figure(self) -> list[str]:
        """The figure of scores against the number of labels, where that differs."""
        wanted = self.label_efficiency()
        return [str(self.results / "figures/label_efficiency.png")] if wanted else []

    def truth_figure(self) -> list[str]:
        """The figure that compares the catalog with the hidden truth, where there is one."""
        wanted = self.truth() and self.predicted
        return [str(self.results / "figures/truth.png")] if wanted else []

    def missing(self) -> list[str]:
        """Outputs of this plan that were finished and are lost, and are to be made again."""
        if self.outputs is None:  # a job on a cluster, which makes what it is told to
            return []
        expected = Expected(self)
        lost = self.outputs.missing()
        return [str(self.results / name) for name in lost if expected.is_intermediate(name)]

    def note_outputs(self) -> None:
        """Write the manifest of all outputs, at the end of a run."""
        expected = Expected(self)
        note(self.results, expected.is_output, expected.is_intermediate)

    # Memory of the last run

    def _state(self) -> dict:
        """All that decides what is computed; see `luneta.plan.changes.changes`."""
        return {
            **self.delivery(),
            "config": recorded_config(self.config.model_dump(mode="json")),
            "code": {rule: code_digest(rule) for rule in self.RULES},
            "run_id": self.run_id,
            "rows": list_digest(self.index),
        }

    @cached_property
    def _last_state(self) -> dict:
        """What the last run that succeeded was made of; nothing before the first."""
        try:
            return read_twice(self.index / LAST_RUN, parse_json) or {}
        except DamagedFile as error:
            print(f"{error} What has changed since the last run is not told.", file=sys.stderr)
            return {}

    def retried(self) -> list[str]:
        """Say which delivered files the last run could not read, or not as they are now."""
        changed = self.retries.changed(self.shards)
        return [
            *retried(self.retries.files(self.shards), "in the last run, and now tried again"),
            *still_silent(self.retries.silent(self.shards)),
            *changed_meanwhile(changed, "the last run", "read again now"),
        ]

    def changes(self) -> list[str]:
        """What has changed since the last run that succeeded, in a line for each reason."""
        if not self._last_state:
            return []
        lines = changes(self._last_state, self._state())
        return [*lines, *changed_rows(self.index, self._last_state)]

    def heal_catalog(self) -> list[str]:
        """See to it that a damaged catalog is made again; say so in a line.

        The partitions are no outputs of a rule, so Snakemake does not miss them. Without
        `collection.properties`, which is one, the rule runs and makes what is missing.
        """
        collection = self.results / "catalog" / COLLECTION
        lost = lost_files(collection.parent) if collection.exists() else []
        if not lost:
            return []
        with suppress(OSError):  # of a disk that cannot be written to, the run itself will tell
            collection.unlink()
        return [
            f"the catalog is made again: of its files {len(lost)} are missing or not as they were "
            f"written, first {collection.parent / lost[0]}"
        ]

    def clear(self) -> list[str]:
        """Remove damaged files that were made again, and lists that the config does not ask for.

        Returns
        -------
        list of str
            A line for each list of candidates that is removed.
        """
        remove_set_aside(self.results, Expected(self).is_output)
        wanted = {f"{task}{CANDIDATES}" for task in self.listed}
        found = sorted((self.results / "catalog").glob(f"*{CANDIDATES}"))
        left = [path for path in found if path.name not in wanted]
        for path in left:
            path.unlink()
        return [f"{path} is removed: the config asks for no such list any more" for path in left]

    def remember(self) -> None:
        """Write down what a run that has succeeded, as far as the catalog, was made of."""
        if not is_of_plan(self):
            return
        self.remember_shards()
        self.note_outputs()
        self._write_last_run({**self._state(), "outputs": mark(self.results)})
        remember_rows(self.index)
        record(self)

    def _write_last_run(self, state: dict) -> None:
        write_twice(self.index / LAST_RUN, format_json(state, indent=None))

    def complete_record(self) -> None:
        """Write the record of the last run, if that is not there as it is wanted now.

        So it is if the run was killed between its success and that, or if the config has come to
        ask for other provenance, which is no work for any job. What was delivered or made since
        then is not of that run, and its record is left as it is.
        """
        last, config = self._last_state, recorded_config(self.config.model_dump(mode="json"))
        if last.get("run_id") != self.run_id:
            return
        is_as_wanted = config["provenance"] == last["config"].get("provenance")
        if is_as_wanted and is_recorded(self.results, self.run_id):
            return
        if is_unchanged(self, last, self._state()):
            record(self)
            self._write_last_run({**last, "config": config})
