"""The whole config."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from luneta.config.catalog import Catalog
from luneta.config.cutouts import Cutouts
from luneta.config.fields import (
    DEFECTS,
    Fraction,
    Name,
    PositiveInt,
    Section,
    did_you_mean,
)
from luneta.config.survey import Stamps, Tiles
from luneta.config.tasks import Task
from luneta.config.training import Clustering, Inference, Pretraining, Training


class Simulation(Section):
    """The simulated demo survey."""

    pixels: Annotated[int, Field(ge=200, le=10_000)] = Field(
        2000, description="Side of a tile in pixels."
    )
    pixel_scale: Annotated[float, Field(gt=0)] = Field(0.262, description="Pixel scale in arcsec.")
    objects: PositiveInt = Field(600, description="Objects per tile.")
    lens_fraction: Fraction = Field(0.12, description="Fraction of objects that are strong lenses.")
    label_fraction: Fraction = Field(
        0.6, description="Fraction of objects whose label is given away."
    )


class Provenance(Section):
    """What the record of a run, `runs/<run_id>.json`, holds of the images it was given."""

    most_files: Annotated[int, Field(ge=0)] = Field(
        100_000,
        description="Most images whose content is digested when a run has succeeded; with more, "
        "the record says that it holds the digests of tables, lists, labels and weights only. A "
        "file of unchanged size and time is not read again. 0 for none.",
    )
    most_gigabytes: Annotated[float, Field(ge=0)] = Field(
        1000.0, description="Their most size; it takes about a second a gigabyte and core."
    )


def _known_defect(name: str) -> str:
    if name not in DEFECTS:
        raise ValueError(f"{name!r} is no defect; {did_you_mean(name, list(DEFECTS))}")
    return name


DefectName = Annotated[str, AfterValidator(_known_defect)]
Policy = Literal["flag", "skip", "fail"]


def _merged(common: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Lay a task's settings over the common ones, key by key in nested sections too."""
    both = {key for key in own if isinstance(own[key], dict) and isinstance(common.get(key), dict)}
    return {**common, **own, **{key: {**common[key], **own[key]} for key in both}}


class Config(Section):
    """The settings of a survey."""

    preset: str | None = Field(
        None,
        description="Survey whose usual settings fill in what this config leaves out: sdss, "
        "legacysurvey, des, hsc, panstarrs, cfhtls, kids, euclid, lens_challenge, galaxy_zoo.",
    )
    survey: Name = Field(description="Name of the survey; all results go to `results/<survey>/`.")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(
        1, description="Seed of every random choice."
    )
    input: Annotated[Tiles | Stamps, Field(discriminator="kind")] = Field(
        description="Where the images come from."
    )
    cutouts: Cutouts = Field(default_factory=Cutouts, description="What is cut around each object.")
    quality: dict[DefectName, Policy] = Field(
        default_factory=dict,
        description="What a defect leads to, by the name of its flag. `flag` (the default): the "
        "object is flagged, and used as far as it can be. `skip`: it is not used, and left out of "
        "the catalog; the rejects say why. `fail`: the run stops.",
    )
    tasks: dict[Name, Task] = Field(
        default_factory=dict,
        description="Questions put to every object; without any, the survey is ingested, cut and "
        "cataloged.",
    )
    training: Training = Field(
        default_factory=Training, description="How networks are fine-tuned; a task may differ."
    )
    pretraining: Pretraining = Field(
        default_factory=Pretraining, description="How `weights: pretrain` are trained."
    )
    inference: Inference = Field(
        default_factory=Inference, description="How the trained networks are applied."
    )
    clustering: Clustering | None = Field(
        None,
        description="Groups, a map and anomaly scores from what the networks see; none if not "
        "given.",
    )
    catalog: Catalog = Field(
        default_factory=Catalog, description="How the catalog is laid out, and what is said of it."
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto",
        description="`gpu` stops where there is none; `auto` takes one that is there. A job whose "
        "profile gives it more (resource `gpu`) shares its training among them.",
    )
    provenance: Provenance = Field(
        default_factory=Provenance, description="What is noted of a run."
    )
    simulation: Simulation | None = Field(
        None, description="Demo only: the tiles are simulated before they are read."
    )

    @model_validator(mode="before")
    @classmethod
    def _tasks_inherit_training(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not isinstance(data.get("tasks"), dict):
            return data
        common = data.get("training") or {}
        if not isinstance(common, dict):
            return data
        tasks = {
            name: {**task, "training": _merged(common, task.get("training") or {})}
            if isinstance(task, dict) and isinstance(task.get("training") or {}, dict)
            else task
            for name, task in data["tasks"].items()
        }
        return {**data, "tasks": tasks}

    @model_validator(mode="after")
    def _clustered_tasks_exist(self) -> Config:
        names = self.clustering.tasks if self.clustering else []
        able = [name for name, task in self.tasks.items() if task.predict]
        for name in names:
            if name not in able:
                nothing = "no task of this config does: add one, or leave `clustering` out"
                fix = did_you_mean(name, able) if able else nothing
                raise ValueError(f"clustering.tasks = {name!r}: is no task that predicts; {fix}")
        return self

    @model_validator(mode="after")
    def _only_tiles_are_simulated(self) -> Config:
        if self.simulation is not None and not isinstance(self.input, Tiles):
            raise ValueError("simulation makes tiles: set input.kind to tiles")
        return self
