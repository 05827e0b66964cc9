"""What went well and what did not, for every object of a shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from luneta.survey.flags import DESCRIPTIONS, NOTE, UNUSABLE, Flag
from luneta.survey.images import split_extension
from luneta.urls import redacted, shown_url

OBJECTS_AT_ONCE = 256


class QualityError(ValueError):
    """A defect that the config does not allow."""


@dataclass
class Quality:
    """Flags and measurements of a shard's objects, filled in while cutting.

    Attributes
    ----------
    object_id, reject_reason : numpy.ndarray
        Shape (objects,), object.
    flags : numpy.ndarray
        Shape (objects,), int32.
    skipped : numpy.ndarray
        Whether the config leaves the object out of the catalog, shape (objects,), bool.
    sky_noise : numpy.ndarray
        Shape (objects, band), float32, in the image's own units, of a cutout's pixel.
    measured : dict
        Further columns by name, each of shape (objects,), float32; NaN where not measured.
    files : list of dict
        The files that could not be used: tile, band, path, flag, reason.
    """

    object_id: np.ndarray
    flags: np.ndarray
    reject_reason: np.ndarray
    skipped: np.ndarray
    sky_noise: np.ndarray
    measured: dict[str, np.ndarray]
    files: list[dict] = field(default_factory=list)

    @classmethod
    def of(cls, objects: pa.Table, bands: list[str]) -> Quality:
        """Start from what ingestion found."""
        count = len(objects)
        columns = ("dx", "dy", "masked_fraction", "edge_distance", "resample_factor")
        return cls(
            object_id=np.array(objects["object_id"].to_pylist(), object),
            flags=np.array(objects["flags"].to_pylist(), np.int32),
            reject_reason=np.array(objects["reject_reason"].to_pylist(), object),
            skipped=np.zeros(count, bool),
            sky_noise=np.full((count, len(bands)), np.nan, np.float32),
            measured={name: np.full(count, np.nan, np.float32) for name in columns},
        )

    @property
    def usable(self) -> np.ndarray:
        """Whether nothing stands against the object so far; shape (objects,), bool."""
        return ((self.flags & UNUSABLE.value) == 0) & ~self.skipped

    def put(self, name: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Remember a measurement of some objects."""
        empty = np.full(len(self.flags), np.nan, np.float32)
        self.measured.setdefault(name, empty)[rows] = values

    def mark(self, rows: np.ndarray, flag: Flag, reason: str | None = None) -> None:
        """Flag some objects, and give the reason if that makes them unusable."""
        self.flags[rows] |= flag.value
        if flag & UNUSABLE:
            self._give_reason(rows, reason or DESCRIPTIONS[flag])

    def _give_reason(self, rows: np.ndarray, reason: str) -> None:
        """Say why some objects are not used; the first reason stays."""
        new = np.asarray(rows)[np.equal(self.reject_reason[rows], None)]
        self.reject_reason[new] = redacted(reason)

    def reject_file(self, rows, flag: Flag, reason: str, tile, band, path) -> None:
        """Reject the objects of a file that cannot be used, and remember the file."""
        self.mark(rows, flag, reason)
        self.note_file(flag, reason, tile, band, path)

    def note_file(self, flag: Flag | None, reason: str, tile, band, path) -> None:
        """Remember a file that something is wrong with, or without a flag odd."""
        name = NOTE if flag is None else flag.name.lower()
        path = path if path is None else shown_url(str(path))
        entry = {"tile": tile, "band": band, "path": path, "flag": name}
        self.files.append({**entry, "reason": redacted(reason)})

    def not_read(self) -> list[str]:
        """Name the files that could not be read this time."""
        name = Flag.UNAVAILABLE.name.lower()
        lost = (entry for entry in self.files if entry["flag"] == name)
        names = (entry["path"] or entry["reason"] for entry in lost)
        return sorted({str(split_extension(each)[0]) for each in names})

    def measure(self, rows: np.ndarray, images: np.ndarray, max_masked_fraction: float) -> None:
        """Measure bad pixels, and reject the objects that have too many.

        Those of a band that is missing count as bad, so that a tile with all bands gives the better
        cutout; but an object is judged by the bands that it has.

        Parameters
        ----------
        rows : numpy.ndarray
            Rows of the objects cut, shape (cut,), int64.
        images : numpy.ndarray
            Their cutouts, shape (cut, band, y, x), float32; bad pixels are NaN.
        """
        slots = np.flatnonzero(self.usable[rows])
        usable, fraction = rows[slots], bad_fraction(images)[slots]
        self.measured["masked_fraction"][usable] = fraction
        for place in np.flatnonzero(self.flags[usable] & Flag.MISSING_BAND.value):
            fraction[place] = _fraction_of_what_is_there(images[slots[place]])
        self.mark(usable[fraction > 0], Flag.MASKED)
        reason = (
            f"more than {max_masked_fraction:.0%} of the cutout's pixels are bad "
            "(cutouts.max_masked_fraction)"
        )
        too_many = usable[fraction > max_masked_fraction]
        filled = (self.flags[too_many] & Flag.CONSTANT.value) != 0
        why = f"{reason}: one value fills a large part of a band (input.mask.constant)"
        self.mark(too_many[filled], Flag.TOO_MASKED, why)
        self.mark(too_many[~filled], Flag.TOO_MASKED, reason)

    def skip(self, rows: np.ndarray, policies: Mapping[str, str]) -> None:
        """Leave out those of some objects whose defects the config wants skipped.

        Parameters
        ----------
        rows : numpy.ndarray
            Shape (some,), int64.
        policies : mapping
            `flag`, `skip` or `fail` by the name of a flag.
        """
        for name in (name for name, policy in policies.items() if policy == "skip"):
            flag = Flag[name.upper()]
            hit = rows[(self.flags[rows] & flag.value) != 0]
            self.skipped[hit] = True
            self._give_reason(hit, f"{DESCRIPTIONS[flag]} (skipped by config)")

    def refuse(self, policies: Mapping[str, str]) -> None:
        """Stop if there is a defect whose policy is `fail`.

        Raises
        ------
        QualityError
            Naming the files and objects.
        """
        for name in (name for name, policy in policies.items() if policy == "fail"):
            self._refuse(name, np.flatnonzero(self.flags & Flag[name.upper()].value))

    def _refuse(self, name: str, hit: np.ndarray) -> None:
        files = [entry["reason"] for entry in self.files if entry["flag"] == name]
        if not len(hit) and not files:
            return
        first = ", ".join(map(str, self.object_id[hit[:5]]))
        found = "; ".join(files[:5]) or DESCRIPTIONS[Flag[name.upper()]]
        raise QualityError(
            f"{found}. {len(hit)} objects have this defect{f', first {first}' if first else ''}. "
            f"The config says quality.{name}: fail; fix the data, or set it to flag or skip"
        )

    def table(self, bands: list[str]) -> pa.Table:
        """The contents of `quality/{shard}.parquet`."""
        columns = {
            "object_id": pa.array(self.object_id, pa.string()),
            "flags": pa.array(self.flags),
            "reject_reason": pa.array(self.reject_reason, pa.string()),
            "usable": pa.array(self.usable),
            "skipped": pa.array(self.skipped),
            **{name: pa.array(values) for name, values in self.measured.items()},
        }
        for number, band in enumerate(bands):
            columns[f"sky_noise_{band}"] = pa.array(np.ascontiguousarray(self.sky_noise[:, number]))
        return pa.table(columns)


def bad_fraction(images: np.ndarray) -> np.ndarray:
    """Fraction of NaN among the pixels of each cutout.

    Parameters
    ----------
    images : numpy.ndarray
        Shape (objects, band, y, x), float32.

    Returns
    -------
    numpy.ndarray
        Shape (objects,), float32.
    """
    fraction = np.zeros(len(images), np.float32)
    for start in range(0, len(images), OBJECTS_AT_ONCE):
        part = images[start : start + OBJECTS_AT_ONCE]
        # A sum is NaN if a term is, and is had in half the time of looking at each.
        with np.errstate(over="ignore", invalid="ignore"):
            some = np.flatnonzero(np.isnan(part.sum(axis=(1, 2, 3))))
        fraction[start + some] = np.isnan(part[some]).mean(axis=(1, 2, 3))
    return fraction


def _fraction_of_what_is_there(image: np.ndarray) -> float:
    """Fraction of NaN in those bands (band, y, x) that have any good pixel; 1 if none has."""
    bad = np.isnan(image)
    there = ~bad.all(axis=(1, 2))
    return float(bad[there].mean()) if there.any() else 1.0


def centre_touched(stamps: np.ndarray) -> np.ndarray:
    """Whether any pixel of a stamp is set; shape (objects,), bool.

    Parameters
    ----------
    stamps : numpy.ndarray
        Shape (objects, y, x), float32; NaN counts as not set.
    """
    return (stamps > 0).any(axis=(1, 2))
