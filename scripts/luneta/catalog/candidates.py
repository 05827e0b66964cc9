"""Rule candidates: the most probable objects of a binary task, ranked, one row per system."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy.spatial import cKDTree
from scipy.special import betaincinv, expit, logit

from luneta.catalog.read import batches, catalog_schema
from luneta.catalog.schema import OBJECT_COLUMNS, Column, arrow_schema, kept_column, with_lengths
from luneta.parquet import read_parquet, write_parquet
from luneta.survey.ids import rounded
from luneta.survey.positions import coordinate, on_the_sky, settled
from luneta.survey.tables import TableError, read_table, text
from luneta.wording import few

log = logging.getLogger(__name__)

TAIL = 0.158655  # of a normal distribution beyond one standard deviation
NAMES = {
    "ra": ("ra", "ra_deg", "ra [deg]", "ra_j2000", "raj2000", "right_ascension", "_ra"),
    "dec": ("dec", "dec_deg", "dec [deg]", "dec_j2000", "dej2000", "declination", "_dec", "de"),
    "name": ("name", "object_id", "id", "system", "lens_name", "object"),
}


def interval(probability: np.ndarray, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give the 68.3 % interval of a probability whose mean and standard deviation are known.

    That of the beta distribution with both, which stays within 0 and 1.

    Parameters
    ----------
    probability, spread : numpy.ndarray
        Float (objects,); NaN gives NaN.
    """
    mean = np.clip(probability, 1e-9, 1 - 1e-9)
    most = mean * (1 - mean)
    variance = np.clip(spread, 1e-6, None) ** 2
    weight = np.maximum(most / variance - 1, 1e-3)
    low, high = (betaincinv(mean * weight, (1 - mean) * weight, p) for p in (TAIL, 1 - TAIL))
    certain = spread <= 1e-6
    return np.where(certain, probability, low), np.where(certain, probability, high)


def with_prior(probability: np.ndarray, labelled: float, expected: float | None) -> np.ndarray:
    """Correct probabilities for another share of positives (Saerens et al. 2002, eq. 4).

    Parameters
    ----------
    probability : numpy.ndarray
        Calibrated on objects of which the share `labelled` is positive.
    labelled, expected : float
        Shares of positives; nothing changes if `expected` is None.
    """
    if expected is None or not 0 < labelled < 1:
        return probability
    known = np.clip(probability, 1e-12, 1 - 1e-12)
    return expit(logit(known) + logit(expected) - logit(labelled))


def _directions(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Unit vectors of positions in degrees, (objects, 3)."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def _chord(radius: float) -> float:
    """Length of the chord of an angle in arcsec."""
    return 2 * np.sin(np.radians(radius / 3600) / 2)


def systems(ra: np.ndarray, dec: np.ndarray, radius: float) -> np.ndarray:
    """Tell which object stands for each: the best one near it that no better one stands for.

    Parameters
    ----------
    ra, dec : numpy.ndarray
        Degrees, the best object first; one without a position stands for itself.
    radius : float
        Arcsec.

    Returns
    -------
    numpy.ndarray
        Index of that object, int64 (objects,).
    """
    leader = np.arange(len(ra))
    placed = np.flatnonzero(on_the_sky(ra, dec))
    if radius <= 0 or not len(placed):
        return leader
    tree = cKDTree(_directions(ra[placed], dec[placed]))
    pairs = placed[tree.query_pairs(_chord(radius), output_type="ndarray").reshape(-1, 2)]
    for better, other in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
        if leader[better] == better and leader[other] == other:
            leader[other] = better
    return leader


def _column_named(found: Sequence[str], what: str, given: Mapping, path: Path | str) -> str:
    """Find the column of the list of known ones that holds a quantity."""
    wanted = (given[what],) if what in given else NAMES[what]
    lower = {name.lower(): name for name in reversed(found)}
    for name in wanted:
        if name in found or name.lower() in lower:
            return name if name in found else lower[name.lower()]
    raise TableError(
        f"{path}: no column holds the {what} of the known ones; it has {few(found)}. Name "
        f"it in candidates.known_columns: {{{what}: ...}}"
    )


def _whole_names(table: pa.Table, column: str, path: Path | str) -> np.ndarray:
    """Read a column of names; TableError if they were rounded as numbers."""
    problem = rounded(table[column], column)
    if problem is not None:
        raise TableError(f"{path}: {problem}")
    return text(table[column])


def read_known(path: Path | str, given: Mapping[str, str]) -> tuple[np.ndarray, ...]:
    """Read a list of known ones: right ascension and declination in degrees, and names.

    Positions are read as those of sources are: text such as 12:30:49.4 is hours, in `ra`.

    Raises
    ------
    luneta.survey.tables.TableError
        If it cannot be read, or a column is not found.
    """
    table = read_table(path)
    names = {what: _column_named(table.column_names, what, given, path) for what in NAMES}
    table = read_table(path, text_columns=[names["name"]])  # 007 is a name, not 7
    try:
        (ra, raw_ra), (dec, raw_dec) = (coordinate(table, names[k], k, {}) for k in ("ra", "dec"))
    except TableError as error:
        raise TableError(f"{path}: {error}") from None
    return *settled(ra, dec, (raw_ra, raw_dec)), _whole_names(table, names["name"], path)


def match(
    ra: np.ndarray, dec: np.ndarray, known: tuple[np.ndarray, ...], radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest known one of each candidate: its name and distance in arcsec.

    Where none is within the radius, the name is None and the distance NaN.
    """
    name, distance = np.full(len(ra), None, object), np.full(len(ra), np.nan)
    there, here = on_the_sky(*known[:2]), np.flatnonzero(on_the_sky(ra, dec))
    if not there.any() or not len(here):
        return name, distance
    tree = cKDTree(_directions(known[0][there], known[1][there]))
    chord, nearest = tree.query(_directions(ra[here], dec[here]))
    near = chord <= _chord(radius)
    name[here[near]] = known[2][there][nearest[near]]
    distance[here[near]] = np.degrees(2 * np.arcsin(chord[near] / 2)) * 3600
    return name, distance


def read_grades(path: Path | str) -> dict[str, str]:
    """Read experts' grades by object_id; rows without a grade count as not graded.

    Raises
    ------
    luneta.survey.tables.TableError
        If it cannot be read, or grades an object twice, and not alike.
    """
    columns = ["object_id", "grade"]
    table = read_table(path, text_columns=columns, columns=columns)
    found: dict[str, str] = {}
    names = _whole_names(table, "object_id", path)
    for name, grade in zip(names, text(table["grade"]), strict=True):
        if grade and found.setdefault(name, grade) != grade:
            raise TableError(
                f"{path}: {name} has the grades {found[name]} and {grade}; leave one row of it"
            )
    return found


def _grades(rows: pd.DataFrame, leader: np.ndarray, grades: Mapping[str, str]) -> np.ndarray:
    """Give the grade of each object's system: its own, or that of its best member with one."""
    own = np.array([grades.get(name) for name in rows["object_id"]], object)
    found = own.copy()
    for row in np.flatnonzero((own != None) & (leader != np.arange(len(own)))):  # noqa: E711
        if found[leader[row]] is None:
            found[leader[row]] = own[row]
    return found


def _share_of_positives(path: Path | str, positive: str) -> float:
    """Share of the labelled objects that are positive, out of fold."""
    labels = read_parquet(path, columns=["label"])["label"]
    return pc.mean(pc.equal(labels, positive).cast(pa.float64())).as_py() or 0.0


def columns_of(task: str, positive: str, kept: Sequence[Column]) -> list[Column]:
    """Describe the columns of the list of candidates of a task.

    Parameters
    ----------
    task, positive : str
        Names of the task and of its positive class.
    kept : sequence of Column
        Columns of the source list that are carried along.
    """
    given = f"that the object is {positive}"
    return [
        Column("rank", pa.int64(), None, "meta.number", "1 is the best candidate"),
        *OBJECT_COLUMNS[:4],
        Column("members", pa.int64(), None, "meta.number", "Objects of the list in this system"),
        Column(
            "score",
            pa.float32(),
            None,
            "stat.probability",
            f"Column {task}_{positive}_probability of the catalog, which the list is ranked by",
        ),
        Column(
            "probability",
            pa.float32(),
            None,
            "stat.probability",
            f"Calibrated probability {given}; corrected for the survey's share of them if "
            "candidates.fraction is given, else the score",
        ),
        Column(
            "probability_low",
            pa.float32(),
            None,
            "stat.probability;stat.min",
            "Lower end of the 68.3 % interval of the probability, from the ensemble's spread",
        ),
        Column(
            "probability_high",
            pa.float32(),
            None,
            "stat.probability;stat.max",
            "Upper end of the 68.3 % interval of the probability, from the ensemble's spread",
        ),
        Column(
            "expected_purity",
            pa.float32(),
            None,
            "stat.probability;stat.mean",
            f"Share of {positive} to be expected in the list down to this rank: mean probability",
        ),
        Column(
            "outlier",
            pa.bool_(),
            None,
            "meta.code",
            "Out of distribution: the probability is not to be trusted",
        ),
        Column("flags", pa.int32(), None, "meta.code.qual", "As in the catalog"),
        *kept,
        Column(
            "known_name",
            pa.string(),
            None,
            "meta.id.assoc",
            "Nearest known one, null if there is none",
        ),
        Column(
            "known_distance",
            pa.float32(),
            "arcsec",
            "pos.angDistance",
            "To the known one, null if there is none",
        ),
        Column("grade", pa.string(), None, "meta.code.class", "Experts' grade, null if not graded"),
        Column(
            "model_id", pa.string(), None, "meta.id;meta.software", f"{task}_model_id of the row"
        ),
        Column("run_id", pa.string(), None, "meta.id;meta.software", f"{task}_run_id of the row"),
    ]


def _read(collection: Path | str, settings: Mapping, kept: Sequence[str]) -> pd.DataFrame:
    """Read the objects that are probable enough, the best first."""
    task = settings["task_name"]
    stem = f"{task}_{settings['positive']}"
    names = {
        **{name: name for name in ("object_id", "ra", "dec", "tile", "flags", *kept)},
        f"{stem}_probability": "score",
        f"{stem}_std": "spread",
        f"{task}_outlier": "outlier",
        f"{task}_model_id": "model_id",
        f"{task}_run_id": "run_id",
    }
    parts = []
    for batch in batches(collection, list(names)):
        probable = pc.greater_equal(batch[f"{stem}_probability"], settings["probability"])
        chosen = pa.Table.from_batches([batch]).filter(probable)
        # As floats, which pandas makes of integers with nulls, long names would lose digits.
        parts.append(chosen.to_pandas(integer_object_nulls=True))
    rows = pd.concat(parts, ignore_index=True).rename(columns=names)
    return rows.sort_values(["score", "object_id"], ascending=[False, True], ignore_index=True)


def ranked(rows: pd.DataFrame, labelled: float, settings: Mapping) -> pd.DataFrame:
    """Rank the candidates, one for each system, with what is known of them.

    Parameters
    ----------
    rows : pandas.DataFrame
        Objects, the best first: `object_id`, `ra`, `dec`, `score`, `spread` and columns that
        are carried along.
    labelled : float
        Share of positives among the labels that the scores were calibrated on.
    settings : mapping
        The section `candidates` of the task.
    """
    ra, dec = (rows[name].to_numpy(float) for name in ("ra", "dec"))
    leader = systems(ra, dec, settings["radius"])
    score, spread = (rows[name].to_numpy(float) for name in ("score", "spread"))
    bounds = interval(score, spread)
    columns = dict(zip(("probability_low", "probability_high"), bounds, strict=True))
    columns["probability"] = score
    rows = rows.assign(
        members=np.bincount(leader, minlength=len(rows)),
        **{n: with_prior(v, labelled, settings["fraction"]) for n, v in columns.items()},
    )
    grades = read_grades(settings["grades"]) if settings["grades"] else {}
    rows["grade"] = _grades(rows, leader, grades)
    known = (np.empty(0), np.empty(0), np.empty(0, object))
    if settings["known"]:
        known = read_known(settings["known"], settings["known_columns"])
    rows["known_name"], rows["known_distance"] = match(ra, dec, known, settings["known_radius"])
    first = rows[leader == np.arange(len(rows))].head(settings["most"] or len(rows))
    left = set(grades) - set(rows["object_id"])
    if left:
        log.info("%d graded objects are not probable enough to be listed", len(left))
    purity = first["probability"].expanding().mean()
    return first.assign(rank=np.arange(1, len(first) + 1), expected_purity=purity)


def run(
    collection: Path | str, out_of_fold: Path | str, candidates: Path | str, settings: Mapping
) -> None:
    """Write the list of candidates of a task.

    Parameters
    ----------
    collection : path
        `catalog/collection.properties`.
    out_of_fold : path
        `metrics/{task}_out_of_fold.parquet`: the labels that the probabilities hold for.
    candidates : path
        Written: `catalog/{task}_candidates.parquet`.
    settings : mapping
        `task_name`, `positive` (its class), `survey`, `keep` (name: column of the source list),
        and the section `candidates` of the task.
    """
    known = catalog_schema(collection)
    keep = settings["keep"]
    kept = [kept_column(known.field(name), keep[name]) for name in keep if name in known.names]
    columns = columns_of(settings["task_name"], settings["positive"], kept)
    rows = _read(collection, settings, [column.name for column in kept])
    rows = ranked(rows, _share_of_positives(out_of_fold, settings["positive"]), settings)
    plain = pa.schema([column.field() for column in columns])
    table = pa.Table.from_pandas(rows[plain.names], plain, preserve_index=False)
    wanted = arrow_schema(Path(candidates).stem, with_lengths(columns, table))
    write_parquet(table.replace_schema_metadata(wanted.metadata).cast(wanted), candidates)
    expected = float(rows["probability"].sum())
    log.info("%d candidates, of which %.1f are expected to be true", len(rows), expected)
