"""The settings of a survey: every key is named, described, defaulted and bounded here."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

BACKBONES = ("MobileNetV2", "ResNet50", "EfficientNetV2B0")


class ConfigError(ValueError):
    """A config that cannot work; the message names the key, the value and the mend."""


def _plain_name(value: str) -> str:
    if not value or not all(c.isascii() and (c.isalnum() or c == "_") for c in value):
        raise ValueError(
            "names become file and column names: use letters, digits and underscores only"
        )
    return value


def _no_repeats(names: list[str]) -> list[str]:
    if len(set(names)) != len(names):
        raise ValueError(f"{names} hold a name twice: name each once")
    return names


Name = Annotated[str, AfterValidator(_plain_name)]
Bands = Annotated[list[Name], Field(min_length=1), AfterValidator(_no_repeats)]
NonEmptyPaths = Annotated[list[Path], Field(min_length=1)]
CATALOG_COLUMNS = (
    "object_id", "ra", "dec", "tile", "x", "y", "flags", "reject_reason", "usable", "dx", "dy",
    "masked_fraction",
)  # fmt: skip


def _free_names(value: dict[str, str]) -> dict[str, str]:
    taken = sorted(set(value) & set(CATALOG_COLUMNS))
    if taken:
        raise ValueError(f"{taken} are columns of the catalog already; keep them by other names")
    return value


Keep = Annotated[dict[Name, str], AfterValidator(_free_names)]
PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the config: unknown keys are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Mask(Section):
    """How the pixels of a mask image are read."""

    encoding: Literal["bits", "codes"] = Field(
        "bits",
        description="`bits`: a pixel holds a sum of powers of two, a plane is a bit number from 0. "
        "`codes`: a pixel holds one number, a plane is that number (DECam Community Pipeline).",
    )
    planes: dict[Name, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict,
        description="Name of each mask plane and its bit number or code. "
        "Without planes every pixel that is not zero is bad.",
    )
    ignore: list[Name] = Field(
        default_factory=list,
        description="Planes that do not make a pixel bad. Planes not named under `planes` do.",
    )
    saturated: list[Name] = Field(
        default_factory=lambda: ["saturated"],
        description="Planes that mean saturation: an object whose cutout centre they touch is "
        "flagged.",
    )

    @model_validator(mode="after")
    def _planes_are_known(self) -> Mask:
        default = {"saturated"} if self.saturated == ["saturated"] else set()
        unknown = sorted({*self.ignore, *self.saturated} - set(self.planes) - default)
        if unknown:
            raise ValueError(f"{unknown} are not among the planes {sorted(self.planes)}")
        return self


class SourceColumns(Section):
    """Which column of the source list holds what."""

    object_id: str = Field("object_id", description="Unique name of the object.")
    ra: str = Field(
        "ra", description="Right ascension, ICRS; degrees unless the column has a unit."
    )
    dec: str = Field("dec", description="Declination, ICRS; degrees unless the column has a unit.")


class Tiles(Section):
    """Input of image tiles and a source list."""

    kind: Literal["tiles"] = Field(description="`tiles`: whole images and a source list.")
    tiles: Path = Field(
        description="Tab-separated table with the columns tile, band, image and, where there are "
        "any, mask, weight (inverse variance) and shard. A path may end in [EXTENSION] or [NUMBER]."
    )
    root: Path = Field(
        Path(), description="Folder from which the relative paths of the tile table start."
    )
    sources: str = Field(
        description="Source list: FITS table, VOTable, ECSV, CSV or Parquet. `{tile}` in the path "
        "means one list a tile."
    )
    columns: SourceColumns = Field(
        default_factory=SourceColumns, description="Column mapping of the source list."
    )
    keep: Keep = Field(
        default_factory=dict,
        description="Further columns to carry into the catalog: name in the catalog and column in "
        "the source list. Units are kept.",
    )
    bands: Bands = Field(description="Bands in the order of the cutout's first axis.")
    reference_band: Name | None = Field(
        None, description="Band whose pixel grid positions refer to; the first one if not given."
    )
    mask: Mask = Field(default_factory=Mask, description="How mask images are read.")

    @model_validator(mode="after")
    def _reference_is_a_band(self) -> Tiles:
        if self.reference_band is not None and self.reference_band not in self.bands:
            raise ValueError(
                f"reference_band {self.reference_band!r} is not one of bands {self.bands}"
            )
        return self

    @property
    def reference(self) -> str:
        """The reference band, given or first."""
        return self.reference_band or self.bands[0]


class StampColumns(Section):
    """Which column of the stamp table holds what."""

    object_id: str = Field("object_id", description="Unique name of the object.")
    ra: str | None = Field(None, description="Right ascension in degrees, if the table has it.")
    dec: str | None = Field(None, description="Declination in degrees, if the table has it.")


class Stamps(Section):
    """Input of one image per object."""

    kind: Literal["stamps"] = Field(
        description="`stamps`: one image per object, listed in a table."
    )
    table: Path = Field(
        description="Table of the stamps, one row per object: CSV, TSV, FITS, VOTable, ECSV or "
        "Parquet."
    )
    image: str = Field(
        "{image}",
        description="Path of an object's image, relative to the table's folder: a template over "
        "the table's columns and, for one file a band, `{band}`. May end in "
        "[EXTENSION].",
    )
    columns: StampColumns = Field(
        default_factory=StampColumns, description="Column mapping of the stamp table."
    )
    keep: Keep = Field(
        default_factory=dict,
        description="Further columns to carry into the catalog: name in the catalog and column in"
        " the table.",
    )
    bands: Bands = Field(
        description="Bands in the order of the cutout's first axis. For colour pictures the "
        "channels, as [red, green, blue]."
    )
    pixels: Literal["flux", "display"] = Field(
        "flux",
        description="`flux`: linear pixels of a FITS stamp. `display`: a picture already stretched "
        "to 0 to 255 (JPEG, PNG).",
    )
    stamps_per_shard: PositiveInt = Field(
        10_000, description="Objects per shard, in table order. Append new rows at the end."
    )


class Cutouts(Section):
    """What is cut around each object."""

    size: Annotated[int, Field(ge=8, le=1024)] = Field(
        64, description="Side of the square cutout in pixels."
    )
    crop: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="Stamps only: central fraction of the stamp's side that is kept, then "
        "resampled to `size`.",
    )
    subtract_background: bool = Field(
        True,
        description="Subtract the sky: a map fitted to each tile, the border's median of each "
        "stamp.",
    )
    noise_units: bool = Field(
        True, description="Divide by the band's sky noise. Always off for display pixels."
    )
    max_masked_fraction: Fraction = Field(
        0.5,
        description="An object whose cutout has more bad pixels than this, over all bands, is not "
        "used.",
    )


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


class Config(Section):
    """The settings of a survey."""

    survey: Name = Field(description="Name of the survey; all results go to `results/<survey>/`.")
    seed: Annotated[int, Field(ge=0)] = Field(1, description="Seed of every random choice.")
    input: Annotated[Tiles | Stamps, Field(discriminator="kind")] = Field(
        description="Where the images come from."
    )
    cutouts: Cutouts = Field(default_factory=Cutouts, description="What is cut around each object.")
    tasks: dict[Name, Task] = Field(
        default_factory=dict,
        description="Questions put to every object; without any, the survey is ingested, cut and "
        "cataloged.",
    )
    training: Training = Field(
        default_factory=Training, description="How networks are fine-tuned; a task may differ."
    )
    pretraining: Pretraining = Field(
        default_factory=Pretraining, description="The simulated source set of `weights: pretrain`."
    )
    inference: Inference = Field(
        default_factory=Inference, description="How the trained networks are applied."
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
            name: {**task, "training": {**common, **(task.get("training") or {})}}
            if isinstance(task, dict) and isinstance(task.get("training") or {}, dict)
            else task
            for name, task in data["tasks"].items()
        }
        return {**data, "tasks": tasks}

    @model_validator(mode="after")
    def _display_pixels_are_not_noise(self) -> Config:
        if self.simulation is not None and not isinstance(self.input, Tiles):
            raise ValueError("simulation makes tiles: set input.kind to tiles")
        return self


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    """Find the sections that a key of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from sections_in(part)


def _sections_at(path: tuple[str | int, ...]) -> list[type[Section]]:
    """Find the sections whose keys stand at a path as pydantic gives it."""
    found: list[type[Section]] = [Config]
    for part in path:
        chosen = [s for s in found if s.__name__.lower() == part] if len(found) > 1 else []
        fields = [s.model_fields[part] for s in found if part in s.model_fields]
        if chosen:
            found = chosen
        elif fields:
            found = [s for field in fields for s in sections_in(field.annotation)]
    return found


def _description(path: tuple[str | int, ...]) -> str:
    """Give what a key means, to end a message with; nothing if it is not one key's matter."""
    for section in _sections_at(path[:-1]):
        if path and path[-1] in section.model_fields:
            return f" ({section.model_fields[path[-1]].description})"
    return ""


def did_you_mean(wrong: str, names: list[str]) -> str:
    """Name the nearest of the allowed names, or all of them."""
    near = difflib.get_close_matches(str(wrong), names, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"allowed are {', '.join(names)}"


def _no_such_key(path: tuple[str | int, ...]) -> str:
    keys = [key for section in _sections_at(path[:-1]) for key in section.model_fields]
    return f"there is no such key; {did_you_mean(str(path[-1]), keys)}"


def _mend(error: dict[str, Any]) -> str:
    """Say what is wrong and what is allowed."""
    kind, path, given = error["type"], error["loc"], error["input"]
    text = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if kind == "extra_forbidden":
        return _no_such_key(path)
    if kind.startswith("union_tag"):
        return "must be tiles (images and a source list) or stamps (one image per object)"
    if kind == "missing":
        return f"this key is required{_description(path)}"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"must hold keys, one a line and indented below it{_description(path)}"
    if kind == "string_type" and isinstance(given, bool | int | float):
        text = "YAML reads this as a number or as true or false; put it in quotes"
    return text if kind == "value_error" else f"{text}{_description(path)}"


def _message(error: dict[str, Any]) -> str:
    path, given = error["loc"], error["input"]
    # Pydantic names the chosen kind of input as if it were a key.
    keys = (*path[:1], *path[2:]) if path[:1] == ("input",) else path
    if error["type"].startswith("union_tag"):
        keys = ("input", "kind")
        given = given.get("kind") if isinstance(given, dict) else given
    where = ".".join(str(key) for key in keys if key != "[key]") or "config"
    silent = error["type"] in ("missing", "union_tag_not_found") or isinstance(given, dict)
    value = "" if silent else f" = {given!r:.80}"
    return f"{where}{value}: {_mend(error)}"


def _is_inherited(error: dict[str, Any], errors: list[dict[str, Any]]) -> bool:
    """Whether a task only repeats what is wrong in the top-level `training`."""
    path = error["loc"]
    if path[:1] != ("tasks",) or path[2:3] != ("training",):
        return False
    return any(e["loc"] == path[2:] and e["input"] == error["input"] for e in errors)


def refusal(lines: list[str]) -> ConfigError:
    """Gather all that is wrong with a config in one error."""
    return ConfigError("The config cannot work:\n  " + "\n  ".join(lines))


def validate(data: dict[str, Any]) -> Config:
    """Check a config's keys, types and bounds.

    Raises
    ------
    ConfigError
        With one line for each key that is wrong.
    """
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        errors = error.errors()
        raise refusal([_message(e) for e in errors if not _is_inherited(e, errors)]) from None


def load(path: Path) -> Config:
    """Read and check a YAML config file.

    Raises
    ------
    ConfigError
        If there is no such file, it is no YAML, or `validate` refuses it.
    """
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise refusal([f"{path}: cannot be read ({error.strerror}); check the path"]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        hint = "look there for a tab, a missing space after a colon, or a bracket left open"
        raise refusal([f"{path}: is not YAML: {error}; {hint}"]) from None
    return validate(data)
