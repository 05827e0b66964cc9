"""What went well and what did not, for every object of a shard."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from luneta.survey.flags import DESCRIPTIONS, UNUSABLE, Flag


@dataclass
class Quality:
    """Flags and measurements of a shard's objects, filled in while cutting.

    Attributes
    ----------
    object_id, reject_reason : numpy.ndarray
        Shape (objects,), object.
    flags : numpy.ndarray
        Shape (objects,), int32.
    dx, dy : numpy.ndarray
        Object position less the centre of its pixel, shape (objects,), pixels.
    sky_noise : numpy.ndarray
        Shape (objects, band), float32, in the image's own units.
    files : list of dict
        The files that could not be used: tile, band, path, reason.
    """

    object_id: np.ndarray
    flags: np.ndarray
    reject_reason: np.ndarray
    dx: np.ndarray
    dy: np.ndarray
    sky_noise: np.ndarray
    masked_fraction: np.ndarray
    files: list[dict] = field(default_factory=list)

    @classmethod
    def of(cls, objects: pa.Table, bands: list[str]) -> Quality:
        """Start from what ingestion found."""
        count = len(objects)
        return cls(
            object_id=np.array(objects["object_id"].to_pylist(), object),
            flags=np.array(objects["flags"].to_pylist(), np.int32),
            reject_reason=np.array(objects["reject_reason"].to_pylist(), object),
            dx=np.full(count, np.nan),
            dy=np.full(count, np.nan),
            sky_noise=np.full((count, len(bands)), np.nan, np.float32),
            masked_fraction=np.full(count, np.nan, np.float32),
        )

    @property
    def usable(self) -> np.ndarray:
        """Whether nothing stands against the object so far; shape (objects,), bool."""
        return (self.flags & UNUSABLE.value) == 0

    def mark(self, rows: np.ndarray, flag: Flag, reason: str | None = None) -> None:
        """Flag some objects, and give the reason if that makes them unusable."""
        self.flags[rows] |= flag.value
        if flag & UNUSABLE:
            new = np.asarray(rows)[np.equal(self.reject_reason[rows], None)]
            self.reject_reason[new] = reason or DESCRIPTIONS[flag]

    def reject_file(self, rows, flag: Flag, reason: str, tile, band, path) -> None:
        """Reject the objects of a file that cannot be used, and remember the file."""
        self.mark(rows, flag, reason)
        self.files.append({"tile": tile, "band": band, "path": path, "reason": reason})

    def measure(self, rows: np.ndarray, images: np.ndarray, max_masked_fraction: float) -> None:
        """Measure bad pixels, and reject the objects that have too many.

        Parameters
        ----------
        rows : numpy.ndarray
            Rows of the objects cut, shape (cut,), int64.
        images : numpy.ndarray
            Their cutouts, shape (cut, band, y, x), float32; bad pixels are NaN.
        """
        slots = np.flatnonzero(self.usable[rows])
        usable = rows[slots]
        fraction = np.array([np.isnan(images[slot]).mean() for slot in slots], np.float32)
        self.masked_fraction[usable] = fraction
        self.mark(usable[fraction > 0], Flag.MASKED)
        self.mark(usable[fraction > max_masked_fraction], Flag.TOO_MASKED)

    def table(self, bands: list[str]) -> pa.Table:
        """The contents of `quality/{shard}.parquet`."""
        columns = {
            "object_id": pa.array(self.object_id, pa.string()),
            "flags": pa.array(self.flags),
            "reject_reason": pa.array(self.reject_reason, pa.string()),
            "usable": pa.array(self.usable),
            "dx": pa.array(self.dx.astype(np.float32)),
            "dy": pa.array(self.dy.astype(np.float32)),
            "masked_fraction": pa.array(self.masked_fraction),
        }
        for number, band in enumerate(bands):
            columns[f"sky_noise_{band}"] = pa.array(np.ascontiguousarray(self.sky_noise[:, number]))
        return pa.table(columns)


def center_touched(stamps: np.ndarray) -> np.ndarray:
    """Whether any pixel of the central quarter of the side is set.

    Parameters
    ----------
    stamps : numpy.ndarray
        Shape (objects, y, x), bool.
    """
    size = stamps.shape[-1]
    low, high = size // 2 - size // 8, size // 2 + size // 8 + 1
    return stamps[:, low:high, low:high].any(axis=(1, 2))
