"""From a config to what the rules need: shards, paths, and the settings of each job.

Read by `workflow/rules/common.smk` when Snakemake plans; no job imports it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from luneta.config import Config, ConfigError, Tiles, Training, validate
from luneta.config_checks import check_paths
from luneta.files import read_json, write_json
from luneta.survey.images import split_extension
from luneta.survey.index import UNPLACED, deal_sources, signature
from luneta.survey.sources import text
from luneta.survey.stamp_index import deal_stamps
from luneta.survey.tables import TableError, read_table
from luneta.survey.tiles import Tile, TileTableError, read_tiles

INGEST_KEYS = {
    "units", "frame", "equinox", "epoch", "image_epoch", "first_pixel", "detection", "zero_points",
    "pixel_scale", "remote", "mask", "weight",
}  # fmt: skip
CUTOUTS_KEYS = {
    "mask", "weight", "zero_points", "pixel_scale", "seeing", "remote", "astrometry", "pixels",
    "axes",
}  # fmt: skip
PRETRAINING_CLASSES = ["round", "in_between", "cigar", "edge_on", "spiral", "lens"]


class Plan:
    """What a config asks for.

    Attributes
    ----------
    config : Config
        The checked config.
    results : pathlib.Path
        `results/<survey>`.
    tiles : dict
        `Tile` by name; empty for stamps.
    """

    def __init__(self, config: Config):
        self.config = config
        self.results = Path("results") / config.survey
        self.given = config.input.model_dump(mode="json")
        self.is_tiles = isinstance(config.input, Tiles)
        self.tiles: dict[str, Tile] = (
            read_tiles(config.input.tiles, config.input.root) if self.is_tiles else {}
        )
        self.slices = self._deal()
        self._check_label_tiles()

    def _deal(self) -> dict[str, Path]:
        """Slices of a survey-wide list by shard; empty if each tile brings its own list."""
        folder = self.results / "index"
        if not self.is_tiles:
            return deal_stamps(self.given, folder)
        if "{tile}" in self.config.input.sources:
            return {}
        return deal_sources(self.given, self.tiles, folder)

    def _check_label_tiles(self) -> None:
        known = [*self.tiles, *self.shards]
        for name, task in self.config.tasks.items():
            unknown = [tile for tile in task.label_tiles or [] if tile not in known]
            if unknown:
                raise ConfigError(
                    f"The config cannot work:\n  tasks.{name}.label_tiles = {unknown}: there is no "
                    f"such tile or shard; there are {', '.join(known[:20])}"
                )

    @property
    def bands(self) -> list[str]:
        """Bands in the order of a cutout's first axis."""
        return list(self.config.input.bands)

    @cached_property
    def shards(self) -> list[str]:
        """All shards, in the order of the tile or stamp table."""
        if self.slices:
            return list(self.slices)
        return list(dict.fromkeys(tile.shard for tile in self.tiles.values()))

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

    def tiles_of(self, shard: str) -> list[Tile]:
        """Tiles of a shard, in table order."""
        return [tile for tile in self.tiles.values() if tile.shard == shard]

    # Files outside the rules' own naming

    def sources(self, shard: str) -> list[str]:
        """Source lists that a shard is ingested from."""
        if self.slices:
            return [str(self.slices[shard])]
        pattern = self.config.input.sources
        return [pattern.replace("{tile}", tile.name) for tile in self.tiles_of(shard)]

    def images(self, shard: str) -> list[str]:
        """Image files of a shard that exist, or that the simulation will make.

        A missing file is no input, but a defect that the cutouts job flags.
        """
        paths = [p for t in self.tiles_of(shard) for b in t.bands.values() for p in b.paths()]
        return [str(path) for path in dict.fromkeys(paths) if path.exists() or self._made(path)]

    def grids(self, shard: str) -> list[str]:
        """Reference-band image files of a shard, as `images`."""
        paths = [
            split_extension(tile.bands[self.config.input.reference].image)[0]
            for tile in self.tiles_of(shard)
            if self.config.input.reference in tile.bands
        ]
        return [str(path) for path in dict.fromkeys(paths) if path.exists() or self._made(path)]

    def _made(self, path: Path) -> bool:
        return self.config.simulation is not None and self.results in Path(path).parents

    def stamps(self, shard: str) -> list[str]:
        """The shard's slice of the stamp table; none for tiles."""
        return [] if self.is_tiles else [str(self.slices[shard])]

    def truth(self) -> list[str]:
        """Files of the hidden truth, where the survey is simulated."""
        if self.config.simulation is None:
            return []
        return [str(self.results / "raw" / f"{tile}_truth.parquet") for tile in self.tiles]

    def label_files(self, task: str) -> list[str]:
        """Label tables of a task."""
        return [str(path) for path in self.config.tasks[task].labels]

    def labelled_shards(self, task: str) -> list[str]:
        """Shards whose cutouts a task is trained on.

        Named by `label_tiles`; else found by the ids, where the lists exist before the first
        job; else all shards.
        """
        named = self.config.tasks[task].label_tiles
        if named is not None:
            wanted = {self.tiles[name].shard if name in self.tiles else name for name in named}
            return [shard for shard in self.shards if shard in wanted]
        files = self.label_files(task)
        if self.slices and all(Path(path).exists() for path in files):
            return self._shards_with(task, files)
        return [shard for shard in self.shards if shard != UNPLACED]

    def _shards_with(self, task: str, files: list[str]) -> list[str]:
        memory = self.results / "index" / f"labelled_{task}.json"
        key = _digest(
            [read_json(self.results / "index" / "key.json"), [signature(f) for f in files]]
        )
        if memory.exists() and (known := read_json(memory))["key"] == key:
            return known["shards"]
        column = self.config.tasks[task].id_column
        ids = {name for f in files for name in text(read_table(f, [column])[column]) if name}
        shards = [
            shard
            for shard, path in self.slices.items()
            if shard != UNPLACED and _holds_any(path, ids)
        ]
        write_json(memory, {"key": key, "shards": shards})
        return shards

    # Settings of each job: only what the job reads, so that nothing else reruns it

    def simulate(self, tile: str) -> dict:
        """Settings of `simulate`."""
        return {
            "seed": self.config.seed,
            "bands": self.bands,
            "simulation": self.config.simulation.model_dump(mode="json"),
        }

    def ingest(self, shard: str) -> dict:
        """Settings of `ingest`."""
        reference = self.config.input.reference if self.is_tiles else None
        return {
            "tiles": [_only_grid(tile, reference) for tile in self.tiles_of(shard)],
            "columns": self.given["columns"],
            "keep": self.given["keep"],
            "reference_band": reference,
            "sliced": bool(self.slices),
            **self._part_of_input(INGEST_KEYS),
        }

    def cutouts(self, shard: str) -> dict:
        """Settings of `cutouts`."""
        settings = {
            "bands": self.bands,
            "cutouts": self.config.cutouts.model_dump(mode="json"),
            "quality": dict(self.config.quality),
            **self._part_of_input(CUTOUTS_KEYS),
        }
        if not self.is_tiles:
            return settings
        return {
            **settings,
            "pixels": "flux",
            "tiles": [tile.as_dict() for tile in self.tiles_of(shard)],
            "reference_band": self.config.input.reference,
        }

    def _part_of_input(self, keys: set[str]) -> dict:
        return {key: value for key, value in self.given.items() if key in keys}

    def _task(self, task: str) -> dict:
        """A task as its jobs need it, without what only concerns planning."""
        return self.config.tasks[task].model_dump(
            mode="json", exclude={"labels", "label_tiles", "predict"}
        )

    def split(self, task: str) -> dict:
        """Settings of `split`."""
        folds = {"folds": self.config.tasks[task].training.folds}
        return {
            "task": {**self._task(task), "training": folds},
            "shards": self.labelled_shards(task),
            "seed": self.config.seed,
        }

    def finetune(self, task: str) -> dict:
        """Settings of `finetune`."""
        section = self.config.tasks[task]
        return {
            "task_name": task,
            "task": {
                "kind": section.kind,
                "classes": list(section.classes),
                "training": section.training.model_dump(mode="json"),
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
            "shards": self.labelled_shards(task),
            "batch_size": self.config.inference.batch_size,
        }

    def infer(self, task: str) -> dict:
        """Settings of `infer`."""
        section = self.config.tasks[task]
        return {
            "task_name": task,
            "task": {"kind": section.kind, "classes": list(section.classes)},
            "batch_size": self.config.inference.batch_size,
        }

    def _backbone_settings(self, training: Training) -> dict:
        fields = {"backbone", "width", "image_size", "stretch", "stretch_softening"}
        return training.model_dump(mode="json", include=fields | {"stretch_maximum"})

    def backbone(self, task: str) -> str | None:
        """Name of the backbone a task has pretrained in the workflow, if it does."""
        training = self.config.tasks[task].training
        if training.weights != "pretrain":
            return None
        digest = _digest(self._backbone_settings(training))[:6]
        return f"{training.backbone}_{training.width:g}_{digest}"

    def weights(self, task: str) -> list[str]:
        """The weights file a task starts from, as an input of `finetune`; none if there is none."""
        backbone = self.backbone(task)
        if backbone is not None:
            return [str(self.results / "backbones" / f"{backbone}.weights.h5")]
        given = self.config.tasks[task].training.weights
        return [] if given in ("imagenet", "none") else [given]

    def pretrain(self, backbone: str) -> dict:
        """Settings of `pretrain`."""
        task = next(name for name in self.tasks if self.backbone(name) == backbone)
        scale = self.config.simulation.pixel_scale if self.config.simulation else 0.262
        return {
            "pretraining": self.config.pretraining.model_dump(mode="json"),
            "training": self._backbone_settings(self.config.tasks[task].training),
            "classes": PRETRAINING_CLASSES,
            "bands": self.bands,
            "cutout_size": self.config.cutouts.size,
            "pixel_scale": scale,
            "seed": self.config.seed,
        }

    def catalog(self) -> dict:
        """Settings of `catalog`."""
        return {
            "survey": self.config.survey,
            "seed": self.config.seed,
            "config": self.config.model_dump(mode="json"),
            "bands": self.bands,
            "keep": self.given["keep"],
            "shards": self.shards,
            "predicted": self.predicted,
            "tasks": {name: self._task_shape(name) for name in self.predicted},
        }

    def _task_shape(self, task: str) -> dict:
        section = self.config.tasks[task]
        return {"kind": section.kind, "classes": list(section.classes)}

    def report(self) -> dict:
        """Settings of `report`."""
        return {
            "survey": self.config.survey,
            "bands": self.bands,
            "shards": self.shards,
            "tasks": {name: self._task_shape(name) for name in self.tasks},
            "folds": {name: len(self.folds(name)) for name in self.tasks},
            "labels": {name: self.label_files(name) for name in self.tasks},
            "labelled_shards": {name: self.labelled_shards(name) for name in self.tasks},
            "predicted": self.predicted,
            "keep": self.given["keep"],
            "truth": bool(self.truth()),
            "comparison": self.compared(),
            "figures": str(self.results / "figures"),
            "report": str(self.results / "report"),
        }

    def compared(self) -> list[str]:
        """Tasks that answer the same question on the same labels, to be shown side by side."""
        groups: dict[str, list[str]] = {}
        for name, task in self.config.tasks.items():
            key = _digest([self.label_files(name), task.label_column, task.classes])
            groups.setdefault(key, []).append(name)
        return max((group for group in groups.values()), key=len, default=[])

    def comparison_figure(self) -> list[str]:
        """The figure that compares tasks, where there are any to compare."""
        return [str(self.results / "figures/comparison.png")] if len(self.compared()) > 1 else []

    def truth_figure(self) -> list[str]:
        """The figure that compares the catalog with the hidden truth, where there is one."""
        wanted = self.truth() and self.predicted
        return [str(self.results / "figures/truth.png")] if wanted else []


def _only_grid(tile: Tile, reference: str | None) -> dict:
    bands = {b: {"image": f.image} for b, f in tile.bands.items() if b == reference}
    return {"name": tile.name, "shard": tile.shard, "bands": bands}


def _holds_any(path: Path, ids: Iterable[str]) -> bool:
    column = pq.read_table(path, columns=["object_id"])["object_id"]
    return not set(ids).isdisjoint(pc.unique(column).to_pylist())


def _digest(content) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def make_plan(data: dict) -> Plan:
    """Check a config whole, and plan it.

    Raises
    ------
    ConfigError
        Before any job starts, if the config cannot work.
    """
    if not data:
        raise ConfigError(
            "There is no config. Name one: snakemake --configfile config/demo.yaml --cores 2"
        )
    config = validate(data)
    check_paths(config)
    try:
        return Plan(config)
    except (TableError, TileTableError) as error:
        raise ConfigError(f"The config cannot work:\n  {error}") from None
