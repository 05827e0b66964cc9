"""Settings of the tasks: what is asked of every object."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from luneta.config.candidates import Candidates
from luneta.config.fields import Name, NonEmptyPaths, Section
from luneta.config.training import Training

# Of a task's training, what `split` and `evaluate` read, and what shapes no network
READ_BY_OTHERS = {"calibration", "holdout", "group_column", "group_radius"}
NO_NETWORK_READS = READ_BY_OTHERS | {"tensorboard"}


class Question(Section):
    """What a task asks, and how its networks learn to answer."""

    kind: Literal["multiclass", "binary"] = Field(
        description="`multiclass`: one of several classes. `binary`: yes or no; the second class "
        "is the positive one."
    )
    classes: Annotated[list[Name], Field(min_length=2)] = Field(
        description="Classes, in the order of the columns. Binary: [negative, positive]."
    )
    id_column: str = Field(
        "object_id", description="Column of the label table with the object's name."
    )
    label_column: str = Field("label", description="Column of the label table with the class.")
    merge: dict[Name, list[str]] = Field(
        default_factory=dict,
        description="Labels that count as a class: {spiral: [spiral_acw, spiral_cw]}.",
    )
    ignore: list[str] = Field(
        default_factory=list, description="Labels that are left out of training."
    )
    training: Training = Field(
        default_factory=Training, description="Settings that differ from the top-level `training`."
    )

    @model_validator(mode="after")
    def _classes_fit(self) -> Question:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes {self.classes} hold a name twice")
        if self.kind == "binary" and len(self.classes) != 2:
            raise ValueError(
                f"a binary task has 2 classes, not {len(self.classes)}: {self.classes}"
            )
        unknown = sorted(set(self.merge) - set(self.classes))
        if unknown:
            raise ValueError(f"merge names {unknown}, which are not among classes {self.classes}")
        return self


class Task(Question):
    """One question put to every object, and where its labels are."""

    labels: NonEmptyPaths = Field(
        description="Label tables (CSV, TSV, FITS, VOTable, ECSV, Parquet), read one after the "
        "other."
    )
    label_tiles: list[str] | None = Field(
        None,
        description="Tiles or shards whose objects are labelled; all if not given. Name them, and "
        "tiles that come later never retrain this task.",
    )
    predict: bool = Field(
        True,
        description="false: a baseline; it is trained and evaluated, and stays out of the catalog.",
    )

    candidates: Candidates | None = Field(
        None,
        description="List the most probable objects of a binary task, such as lenses, in "
        "`catalog/<task>_candidates.parquet`; {} takes what is usual. None if not given.",
    )

    @model_validator(mode="after")
    def _candidates_are_of_a_binary_task(self) -> Task:
        if self.candidates is not None and self.kind != "binary":
            raise ValueError(
                f"candidates are listed for binary tasks, whose second class is the positive one; "
                f"this one is {self.kind}: leave `candidates` out"
            )
        if self.candidates is not None and not self.predict:
            raise ValueError(
                "candidates come from the catalog, and with predict: false the task is not in it"
            )
        return self

    @field_validator("labels", mode="before", json_schema_input_type=Path | NonEmptyPaths)
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Path) else value
