"""Settings of the tasks: what is asked of every object, and how networks learn to answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from luneta.config.fields import Name, NonEmptyPaths, PositiveInt, Section


class Training(Section):
    """How a network is fine-tuned."""

    backbone: Literal["MobileNetV2", "ResNet50", "EfficientNetV2B0"] = Field(
        "MobileNetV2", description="Network from keras.applications."
    )
    width: Annotated[float, Field(gt=0, le=1.4)] = Field(
        1.0, description="Width multiplier (alpha) of MobileNetV2; 1 for the others."
    )
    weights: str = Field(
        "imagenet",
        description="`imagenet` (downloaded by Keras), `pretrain` (trained in this workflow on "
        "simulated galaxies), `none` (random), or the path of a .weights.h5 file.",
    )
    image_size: Annotated[int, Field(ge=32, le=512)] | None = Field(
        None,
        description="Side to which the network resizes a cutout; the cutout's own if not given.",
    )
    stretch: Literal["asinh", "linear"] = Field(
        "asinh", description="Stretch of flux pixels inside the network; display pixels have none."
    )
    stretch_softening: Annotated[float, Field(gt=0)] = Field(
        3.0,
        description="Flux, in units of sky noise, at which the asinh stretch turns logarithmic.",
    )
    stretch_maximum: Annotated[float, Field(gt=0)] = Field(
        250.0,
        description="Flux, in units of sky noise, that maps to white; brighter pixels are clipped.",
    )
    folds: Annotated[int, Field(ge=2, le=20)] = Field(
        5,
        description="Folds of the cross-validation; as many networks are trained. A hash of the "
        "object's name decides its fold, so that new labels move no old object; every class "
        "must be in every fold.",
    )
    head_epochs: Annotated[int, Field(ge=0)] = Field(
        3, description="Epochs with the backbone frozen: only the head learns."
    )
    head_learning_rate: Annotated[float, Field(gt=0)] = Field(
        1e-3, description="Learning rate of these epochs."
    )
    fine_tune_epochs: Annotated[int, Field(ge=0)] = Field(
        8,
        description="Epochs with the whole network free, batch norm frozen; 0 gives a linear "
        "probe.",
    )
    fine_tune_learning_rate: Annotated[float, Field(gt=0)] = Field(
        2e-4, description="Peak learning rate of these epochs; it falls to zero as a cosine."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        1e-4, description="Decoupled weight decay of AdamW (Loshchilov & Hutter 2019)."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="Dropout before the last layer."
    )
    batch_size: PositiveInt = Field(64, description="Objects per training step.")
    augment: bool = Field(
        True, description="Random flips and quarter turns (the dihedral group) in training."
    )
    class_weight_cap: Annotated[float, Field(ge=1)] = Field(
        4.0, description="Classes are weighted by inverse frequency, at most this; 1 turns it off."
    )
    patience: PositiveInt = Field(
        4,
        description="Stop after this many epochs without a lower validation loss; the best epoch's "
        "weights are kept.",
    )

    @model_validator(mode="after")
    def _can_work(self) -> Training:
        if self.width != 1.0 and self.backbone != "MobileNetV2":
            raise ValueError(
                f"width {self.width} is for MobileNetV2 only; set width: 1 for {self.backbone}"
            )
        if self.head_epochs + self.fine_tune_epochs == 0:
            raise ValueError(
                "head_epochs and fine_tune_epochs are both 0: nothing would be trained"
            )
        return self


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

    @field_validator("labels", mode="before", json_schema_input_type=Path | NonEmptyPaths)
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | Path) else value


class Pretraining(Section):
    """The simulated source set on which `weights: pretrain` are trained."""

    galaxies: Annotated[int, Field(ge=100)] = Field(
        6000, description="Simulated galaxies, shared evenly by the classes."
    )
    epochs: PositiveInt = Field(6, description="Epochs.")
    learning_rate: Annotated[float, Field(gt=0)] = Field(
        2e-3, description="Peak learning rate; it falls to zero as a cosine."
    )
    batch_size: PositiveInt = Field(64, description="Galaxies per training step.")


class Inference(Section):
    """How the trained networks are applied."""

    batch_size: PositiveInt = Field(256, description="Objects per forward pass.")
