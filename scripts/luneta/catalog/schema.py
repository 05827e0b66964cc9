"""The columns of the catalog: name, type, unit, UCD and description."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from astropy import units
from astropy.io.votable.tree import CooSys, Field, Info, Resource, TableElement, VOTableFile

from luneta.survey.flags import DESCRIPTIONS, Flag

VOTABLE_TYPES = {
    pa.bool_(): "boolean",
    pa.int8(): "short",
    pa.uint8(): "unsignedByte",
    pa.int16(): "short",
    pa.uint16(): "int",
    pa.int32(): "int",
    pa.uint32(): "long",
    pa.int64(): "long",
    pa.uint64(): "long",
    pa.float16(): "float",
    pa.float32(): "float",
    pa.float64(): "double",
}


@dataclass(frozen=True)
class Column:
    """A column of the catalog.

    `length` is that of its longest string, in characters, and 1 for booleans of which some are
    null. Of a boolean that `is_decided`, what is not known is false.
    """

    name: str
    type: pa.DataType
    unit: str | None = None
    ucd: str | None = None
    description: str = ""
    length: int | None = None
    is_decided: bool = False

    def field(self) -> pa.Field:
        """Give the Arrow field, with unit, UCD and description as its metadata."""
        about = {"unit": self.unit, "ucd": self.ucd, "description": self.description}
        return pa.field(self.name, self.type, metadata={k: v for k, v in about.items() if v})


_FLAGS = "; ".join(f"{flag.value} {flag.name}: {DESCRIPTIONS[flag]}" for flag in Flag)

HEALPIX = "_healpix_29"  # as hats names it
# astropy reads a null as the string "None", whose place must suffice.
NULL_LENGTH = len("None")

HEALPIX_COLUMN = Column(
    HEALPIX,
    pa.int64(),
    None,
    "pos.healpix",
    "HEALPix pixel of the position, order 29, nested numbering; the files are sorted by it",
)
OBJECT_COLUMNS = (
    Column("object_id", pa.string(), None, "meta.id;meta.main", "Name of the object"),
    Column("ra", pa.float64(), "deg", "pos.eq.ra;meta.main", "Right ascension, ICRS"),
    Column("dec", pa.float64(), "deg", "pos.eq.dec;meta.main", "Declination, ICRS"),
    Column("tile", pa.string(), None, "meta.id;obs.field", "Tile the object lies on"),
    Column(
        "x",
        pa.float64(),
        "pix",
        "pos.cartesian.x;instr.det",
        "Column of the object in the reference band; 0 is the centre of the first pixel",
    ),
    Column(
        "y",
        pa.float64(),
        "pix",
        "pos.cartesian.y;instr.det",
        "Row of the object in the reference band; 0 is the centre of the first pixel",
    ),
)
QUALITY_COLUMNS = (
    Column("flags", pa.int32(), None, "meta.code.qual", f"Sum of defects, 0 if clean. {_FLAGS}"),
    Column(
        "reject_reason",
        pa.string(),
        None,
        "meta.note",
        "Why the object could not be classified; null if it was",
    ),
    Column("masked_fraction", pa.float32(), None, None, "Fraction of the cutout's pixels masked"),
    Column(
        "dx",
        pa.float32(),
        "pix",
        "pos.cartesian.x;arith.diff",
        "Object's column minus that of its pixel, index size // 2 of the cutout",
    ),
    Column(
        "dy",
        pa.float32(),
        "pix",
        "pos.cartesian.y;arith.diff",
        "Object's row minus that of its pixel, index size // 2 of the cutout",
    ),
    Column(
        "edge_distance",
        pa.float32(),
        "pix",
        "pos.angDistance",
        "Pixels from the object to the nearest edge of its image; NaN for stamps",
    ),
    Column(
        "resample_factor",
        pa.float32(),
        None,
        "arith.factor",
        "Image pixels per cutout pixel along a side; 1 if the cutout was not resampled",
    ),
    Column(
        "shift_x",
        pa.float32(),
        "pix",
        "pos.cartesian.x;arith.diff",
        "Way from the list's position to the light the cutout is centred on, along a row",
    ),
    Column(
        "shift_y",
        pa.float32(),
        "pix",
        "pos.cartesian.y;arith.diff",
        "Way from the list's position to the light the cutout is centred on, along a column",
    ),
    Column(
        "galaxy_area_ratio",
        pa.float32(),
        None,
        "phys.area;arith.ratio",
        "Area of the galaxy over that of the seeing disc, K of Barchi et al. (2020)",
    ),
)


def noise_column(band: str, calibrated: bool = False) -> Column:
    """Describe the sky noise of a band; `calibrated`: whether it has a zero point."""
    text = f"Standard deviation of the sky in a pixel of the cutout in {band}"
    if not calibrated:
        text += ", in the unit of the image: no zero point is known"
    unit = "nJy" if calibrated else None
    return Column(f"sky_noise_{band}", pa.float32(), unit, "stat.stdev;instr.background", text)


KEPT_UCDS = {
    "axis_ratio": "phys.size.axisRatio",
    "position_angle": "pos.posAng",
    "signal_to_noise": "stat.snr",
    "star": "src.class.starGalaxy",
}


def _guess_ucd(name: str) -> str | None:
    if "err" in name:  # its UCD would be that of an error
        return None
    if name.startswith(("magnitude", "mag_")):
        return "phot.mag"
    return "phys.angSize" if "radius" in name else KEPT_UCDS.get(name)


def kept_column(field: pa.Field, source: str | None) -> Column:
    """Describe a column that the source list gave, or detection measured.

    Parameters
    ----------
    field : pyarrow.Field
        Its metadata may hold `unit`, `ucd` and `description`.
    source : str or None
        Name of the column in the source list.
    """
    about = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    text = f"Column {source!r} of the source list" if source else "From the source list"
    return Column(
        field.name,
        field.type,
        about.get("unit") or None,
        about.get("ucd") or _guess_ucd(field.name.lower()),
        about.get("description") or text,
    )


def task_columns(task: str, kind: str, classes: list[str]) -> list[Column]:
    """Describe the predictions of a task, in the order of the catalog.

    Parameters
    ----------
    task : str
        Name of the task.
    kind : {"multiclass", "binary"}
        Decides on the UCD of the class.
    classes : list of str
        In the order of the columns.
    """
    columns = []
    for name in classes:
        text = f"Calibrated probability of {name} in the task {task}, mean over the ensemble"
        spread = f"Standard deviation of the probability of {name} over the ensemble's members"
        stem = f"{task}_{name}"
        columns += [
            Column(f"{stem}_probability", pa.float32(), None, "stat.probability", text),
            Column(f"{stem}_std", pa.float32(), None, "stat.stdev", spread),
        ]
    ucd = "src.morph.type" if kind == "multiclass" else "src.class"
    entropy = f"Entropy of the probabilities of {task}, in nat: 0 is certain"
    shared = f"Mutual information of class and member in {task}, in nat: 0 if all members agree"
    score = f"Distance from the training objects of {task} in the networks' features, in sigma"
    strange = f"Out of distribution: {task}_outlier_score above that of most labelled objects"
    model = (
        f"Sha256 of all that gave the row's {task}: networks, calibration, views, draws, outlier "
        "model"
    )
    return [
        *columns,
        Column(f"{task}_class", pa.string(), None, ucd, f"Most probable class of {task}"),
        Column(f"{task}_entropy", pa.float32(), None, None, entropy),
        Column(f"{task}_mutual_information", pa.float32(), None, None, shared),
        Column(f"{task}_outlier_score", pa.float32(), None, "stat.value", score),
        Column(f"{task}_outlier", pa.bool_(), None, "meta.code", strange, is_decided=True),
        Column(f"{task}_model_id", pa.string(), None, "meta.id;meta.software", model),
    ]


def run_column(task: str) -> Column:
    """Describe the column that says in which run a row's predictions of a task were made."""
    text = f"Run in which the row's {task} was predicted: digest of code, config and environment"
    return Column(f"{task}_run_id", pa.string(), None, "meta.id;meta.software", text)


def cluster_columns(task: str) -> list[Column]:
    """List the columns that say where an object is in the space of a task's features."""
    space = f"what the network of {task} sees"
    return [
        *(
            Column(
                f"{task}_pca_{i}", pa.float32(), None, None, f"Principal component {i} of {space}"
            )
            for i in (1, 2)
        ),
        *(
            Column(f"{task}_map_{i}", pa.float32(), None, None, f"UMAP coordinate {i} of {space}")
            for i in (1, 2)
        ),
        Column(
            f"{task}_group",
            pa.int32(),
            None,
            "meta.id;src.class",
            f"Group of objects that are alike in {space}, 0 the largest; -1 is none",
        ),
        Column(
            f"{task}_anomaly_score",
            pa.float32(),
            None,
            "stat.value",
            f"Isolation forest score in {space}, 0 to 1; 0.5 is common, higher is rarer",
        ),
    ]


def kept_fields(objects: pa.Schema) -> list[pa.Field]:
    """List the fields of an objects file that came from the source list."""
    known = {column.name for column in OBJECT_COLUMNS + QUALITY_COLUMNS} | {"usable", "skipped"}
    return [field for field in objects if field.name not in known]


def catalog_columns(objects: pa.Schema, quality: pa.Schema, settings: Mapping) -> list[Column]:
    """List all columns of the catalog.

    Parameters
    ----------
    objects, quality : pyarrow.Schema
        Of all shards' files, unified.
    settings : mapping
        `bands`, `calibrated` (those with a zero point), `keep` (name: column of the source list),
        `tasks` (name: kind and classes), `clustered` (tasks).
    """
    given = [column for column in QUALITY_COLUMNS if column.name in quality.names]
    calibrated = settings.get("calibrated", [])
    noise = [noise_column(band, band in calibrated) for band in settings["bands"]]
    kept = [kept_column(f, settings["keep"].get(f.name)) for f in kept_fields(objects)]
    tasks = [
        column
        for name, task in settings["tasks"].items()
        for column in {
            column.name: column
            for column in (
                *task_columns(name, task["kind"], task["classes"]),
                run_column(name),
            )
        }.values()
    ]
    noise = [column for column in noise if column.name in quality.names]
    clusters = [column for task in settings["clustered"] for column in cluster_columns(task)]
    return [*OBJECT_COLUMNS, *given, *noise, *kept, *tasks, *clusters]


def _standard_unit(column: Column) -> Column:
    """Put an unknown unit into the description, where it cannot make the VOTable invalid."""
    if column.unit is None:
        return column
    try:
        units.Unit(column.unit, format="vounit")
    except ValueError:
        return replace(column, unit=None, description=f"{column.description} [{column.unit}]")
    return column


def _votable_field(votable: VOTableFile, column: Column) -> Field:
    column = _standard_unit(column)
    kind = VOTABLE_TYPES.get(column.type)
    # Of an unbounded string astropy makes an object column, which it cannot join to the data.
    size = f"{column.length}*" if column.length else "*"
    form = {"datatype": kind} if kind else {"datatype": "char", "arraysize": size}
    if pa.types.is_boolean(column.type) and column.length:
        form["arraysize"] = size  # astropy joins nothing but an object column to nulls
    field = Field(
        votable, name=column.name, ID=column.name, unit=column.unit, ucd=column.ucd, **form
    )
    field.description = column.description
    if column.name in ("ra", "dec"):
        field.ref = "icrs"
    return field


def votable_xml(name: str, columns: Sequence[Column], provenance: Mapping[str, str]) -> bytes:
    """Describe a table as a VOTable without data (IVOA Note VOParquet 1.0, 2025).

    Parameters
    ----------
    name : str
        Name of the table.
    columns : list of Column
        Become FIELD elements.
    provenance : mapping
        Becomes INFO elements.
    """
    votable = VOTableFile(version="1.4")
    resource, table = Resource(name=name), TableElement(votable, name=name)
    votable.resources.append(resource)
    resource.coordinate_systems.append(CooSys(ID="icrs", system="ICRS"))
    resource.infos.extend(Info(name=key, value=value) for key, value in provenance.items())
    resource.tables.append(table)
    table.fields.extend(_votable_field(votable, column) for column in columns)
    stream = io.BytesIO()
    votable.to_xml(stream)
    return stream.getvalue()


def with_lengths(columns: Sequence[Column], table: pa.Table) -> list[Column]:
    """Measure the longest string of each string column of a table, and find booleans with nulls."""

    def measured(column: Column) -> Column:
        if pa.types.is_boolean(column.type):
            return replace(column, length=1 if table[column.name].null_count else None)
        if not pa.types.is_string(column.type):
            return column
        longest = pc.max(pc.utf8_length(table[column.name])).as_py() or 0
        return replace(column, length=max(longest, NULL_LENGTH))

    return [measured(column) for column in columns]


def _is_long(column: Column) -> bool:
    return bool(column.length) and pa.types.is_string(column.type)


def arrow_schema(
    name: str, columns: Sequence[Column], provenance: Mapping[str, str] | None = None
) -> pa.Schema:
    """Make the schema of a Parquet file, with VOParquet and provenance keys.

    The keys `table::len::{column}` tell astropy the length of the strings; without them its
    reader warns, and fails on nulls.
    """
    provenance = provenance or {}
    lengths = {f"table::len::{c.name}": str(c.length) for c in columns if _is_long(c)}
    metadata = {
        "IVOA.VOTable-Parquet.version": "1.0",
        "IVOA.VOTable-Parquet.content": votable_xml(name, columns, provenance),
        **provenance,
        **lengths,
    }
    return pa.schema([column.field() for column in columns], metadata=metadata)
