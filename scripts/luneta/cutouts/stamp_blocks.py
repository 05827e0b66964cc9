"""Some objects' stamps, from files to cutouts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from luneta.cutouts.flux import flux_factors, source_factors
from luneta.cutouts.gather import over_edge
from luneta.cutouts.quality import centre_touched
from luneta.cutouts.recentre import shifts
from luneta.cutouts.resample import noise_growth
from luneta.cutouts.sky import ring_level
from luneta.cutouts.stamp_files import StampFiles
from luneta.cutouts.stamp_pixels import (
    around,
    border_sky,
    cut,
    drop_bad_values,
    kept_side,
    median,
    without_signal,
)
from luneta.cutouts.stamp_reading import Fault, Parts, StampReader
from luneta.survey.constants import describe, find_fills, mask_fills, suspects
from luneta.survey.flags import Flag
from luneta.survey.masks import bad_pixels, noise_of_weight, sentinel_pixels

LARGEST_GROUP = 32 * 1024**2  # bytes


@dataclass(frozen=True)
class Rejection:
    """Why an object cannot be used."""

    flag: Flag
    reason: str

    @classmethod
    def by(cls, faults: Sequence[Fault]) -> Rejection:
        """Sum up what is wrong with an object's files."""
        flags = Flag(0)
        for fault in faults:
            flags |= fault.flag or Flag(0)
        return cls(flags, "; ".join(dict.fromkeys(fault.reason for fault in faults)))


@dataclass
class Block:
    """What was found out about some objects.

    Attributes
    ----------
    slots : range
        The objects' places among all that are cut.
    rejected : dict
        `Rejection` by the object's slot among the cutouts.
    faults : list of Fault
        What is wrong with the files, one entry for each object and file.
    marked : list of (Flag, numpy.ndarray)
        Flags that leave an object usable, and the slots they concern.
    measured : list of (str, numpy.ndarray, numpy.ndarray)
        Measurement, slots, values; `sky_noise` of shape (slots, band), all others (slots,).
    """

    slots: range
    rejected: dict[int, Rejection] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    marked: list[tuple[Flag, np.ndarray]] = field(default_factory=list)
    measured: list[tuple[str, np.ndarray, np.ndarray]] = field(default_factory=list)

    def reject(self, slot: int, faults: Sequence[Fault]) -> None:
        """Reject an object for what is wrong with its files."""
        self.rejected[slot] = Rejection.by(faults)
        self.faults += faults


@dataclass
class Group:
    """Stamps of one shape.

    Attributes
    ----------
    slots : numpy.ndarray
        Shape (objects,), int64.
    stamps : numpy.ndarray
        Shape (objects, band, y, x), float32; NaN is bad.
    noise : numpy.ndarray
        Median noise by the weight images, shape (objects, band), float32; NaN where unknown.
    saturated : numpy.ndarray or None
        1 where any band is saturated, shape (objects, 1, y, x), float32.
    scale : numpy.ndarray
        Arcsec per pixel, shape (objects,), float64; NaN where unknown or not asked for.
    missing : numpy.ndarray
        Whether a band is missing, shape (objects, band), bool.
    zero_point : numpy.ndarray
        AB magnitude of one count, shape (objects, band), float64; NaN where there is none.
    per_area : numpy.ndarray
        Whether pixels hold a surface brightness, shape (objects, band), bool.
    is_known : numpy.ndarray
        Whether the unit is known as far as the config asks for it, shape (objects, band), bool.
    filled : numpy.ndarray or None
        Whether any band is filled with a constant, shape (objects, y, x), bool.
    count : int
        How many objects were put in so far.
    """

    slots: np.ndarray
    stamps: np.ndarray
    noise: np.ndarray
    saturated: np.ndarray | None
    scale: np.ndarray
    missing: np.ndarray
    zero_point: np.ndarray
    per_area: np.ndarray
    is_known: np.ndarray
    filled: np.ndarray | None = None
    count: int = 0

    @classmethod
    def empty(cls, stamps: np.ndarray) -> Group:
        """Make a group to be filled; `stamps` is where the stamps will go."""
        capacity = len(stamps)
        return cls(
            slots=np.empty(capacity, np.int64),
            stamps=stamps,
            noise=np.full(stamps.shape[:2], np.nan, np.float32),
            saturated=None,
            scale=np.empty(capacity),
            missing=np.zeros(stamps.shape[:2], bool),
            zero_point=np.full(stamps.shape[:2], np.nan),
            per_area=np.zeros(stamps.shape[:2], bool),
            is_known=np.ones(stamps.shape[:2], bool),
        )

    def take(self, chosen: slice | np.ndarray) -> Group:
        """Give some of the group's objects, chosen by a slice or by a mask of shape (objects,)."""
        arrays = {
            name: value[chosen]
            for name, value in vars(self).items()
            if isinstance(value, np.ndarray)
        }
        return replace(self, **arrays)

    def mark_saturated(self, index: int, saturated: np.ndarray | None) -> None:
        """Add saturated pixels of an object, shape (y, x), bool."""
        if saturated is None:
            return
        if self.saturated is None:
            self.saturated = np.zeros((len(self.slots), 1, *saturated.shape), np.float32)
        self.saturated[index, 0][saturated] = 1


class StampCutter:
    """Reads and cuts the stamps of a shard, block by block.

    Parameters
    ----------
    objects, stamps : pyarrow.Table
        Of the objects to cut, in the order of their slots; see `luneta.cutouts.stamps`.
    settings : dict
        See `luneta.plan.Plan.cutouts`.
    images : numpy.ndarray
        Where the cutouts go, slot by slot and then from the start again, shape (places, band, size,
        size), float32.
    """

    def __init__(self, objects: pa.Table, stamps: pa.Table, settings: dict, images: np.ndarray):
        self.objects, self.settings, self.images = objects, settings, images
        self.cutouts, self.bands = settings["cutouts"], settings["bands"]
        self.is_picture = settings["pixels"] == "display"
        self.names = {
            kind: _names(stamps, kind, self.bands) for kind in ("image", "mask", "weight")
        }
        given = (row for rows in self.names.values() for row in rows or ())
        self.is_remote = any("://" in name for row in given for name in row)
        self.row, self.refused = (
            stamps[name].to_pylist() if name in stamps.column_names else [None] * len(stamps)
            for name in ("row", "refused")
        )
        extent = self.cutouts.get("extent")
        in_arcsec = extent is not None and extent["unit"] != "pixels"
        self.moves = self.cutouts.get("recentre", "none") != "none"
        self.needs_scale, self.asks_scale = in_arcsec, in_arcsec or self.moves
        self.required = settings.get("bands_required") or self.bands
        self.may_miss = np.array([band not in self.required for band in self.bands])

    def __call__(self, slots: range) -> Block:
        """Cut the objects of some slots."""
        block = Block(slots)
        for group in self._read(slots, block):
            self._cut(group, block)
        if block.rejected:
            self.images[self._places(list(block.rejected))] = np.nan
        return block

    def lost(self, slot: int) -> Block:
        """Report an object whose reading ended the process."""
        self.images[self._places([slot])] = np.nan
        name = self.names["image"][slot][0]
        reason = (
            f"{name} is damaged, or asks for more memory than there is: the process that read it "
            "came to a sudden end"
        )
        block = Block(range(slot, slot + 1))
        block.reject(slot, [Fault(Flag.UNREADABLE_FILE, reason, None, name)])
        return block

    def _places(self, slots: Sequence[int] | np.ndarray) -> np.ndarray:
        return np.asarray(slots, np.int64) % len(self.images)

    def _read(self, slots: range, block: Block) -> Iterator[Group]:
        """Read the files of some objects; what cannot be read is noted in the block."""
        axes, rows = self.settings.get("axes", "auto"), [self.row[slot] for slot in slots]
        reader = StampReader(
            StampFiles(rows, axes, self.is_picture),
            self.bands,
            self.required,
            self.settings,
            self.asks_scale,
            self.needs_scale,
            self.is_remote,
        )
        groups: dict[tuple[int, int], Group] = {}
        for slot in slots:
            part = self._read_one(reader, slot, block)
            if part is None:
                continue
            shape = part.shape
            if shape not in groups:
                groups[shape] = self._new_group(shape, len(slots))
            self._add(groups[shape], slot, part)
            if groups[shape].count == len(groups[shape].slots):
                yield groups.pop(shape)
        yield from (group.take(slice(0, group.count)) for group in groups.values())

    def _read_one(self, reader: StampReader, slot: int, block: Block) -> Parts | None:
        """Read an object's files; None if it cannot be used."""
        names = {kind: given[slot] if given else None for kind, given in self.names.items()}
        if self.refused[slot] is not None:
            reason, name = self.refused[slot], names["image"][0]
            block.reject(slot, [Fault(Flag.MISSING_FILE, reason, None, name)])
            return None
        parts = reader.read(names, self.row[slot])
        if reader.is_usable(parts):
            block.faults += parts.faults
            if any(fault.flag is Flag.HEADER_CONFLICT for fault in parts.faults):
                block.marked.append((Flag.HEADER_CONFLICT, np.array([slot])))
            return parts
        block.reject(slot, parts.faults)
        return None

    def _new_group(self, shape: tuple[int, int], most: int) -> Group:
        """Make room for as many stamps of a shape as shall be in memory at once."""
        capacity = LARGEST_GROUP // (4 * len(self.bands) * shape[0] * shape[1])
        stamps = (max(1, min(capacity, most)), len(self.bands), *shape)
        return Group.empty(np.empty(stamps, np.float32))

    def _add(self, group: Group, slot: int, part: Parts) -> None:
        """Copy an object's stamp into its group; what is masked or has no weight becomes NaN."""
        index, group.count = group.count, group.count + 1
        group.slots[index], group.scale[index] = slot, part.scale
        group.missing[index] = part.missing
        stamp = group.stamps[index]
        with np.errstate(over="ignore", invalid="ignore"):
            for band, plane, is_missing in zip(stamp, part.image, part.missing, strict=True):
                band[...] = np.nan if is_missing else plane
        there = [number for number, is_missing in enumerate(part.missing) if not is_missing]
        for number, zero_point in enumerate(part.zero_points):
            if zero_point.value is not None:
                group.zero_point[index, number] = zero_point.value
            group.per_area[index, number] = zero_point.per_area
            group.is_known[index, number] = zero_point.is_known
        for number in there:
            group.mark_saturated(index, part.saturated[number])
        for number in there if part.mask else ():
            bad, saturated = bad_pixels(_native(part.mask[number]), part.planes[number])
            stamp[number][bad] = np.nan
            group.mark_saturated(index, saturated if saturated.any() else None)
        for number in there if part.weight else ():
            noise = noise_of_weight(part.weight[number], self.settings["weight"])
            stamp[number][np.isnan(noise)] = np.nan
            group.noise[index, number] = median(noise.reshape(1, -1))[0]

    def _cut(self, group: Group, block: Block) -> None:
        """Measure stamps of one shape, and put their cutouts into their slots."""
        drop_bad_values(group.stamps)
        if sentinels := self.settings["mask"].get("sentinels"):
            group.stamps[sentinel_pixels(group.stamps, sentinels)] = np.nan
        if not self.is_picture and (limit := self.settings["mask"].get("constant")):
            self._mask_fills(group, limit, block)
        good = self._have_signal(group, block)
        if not good.any():
            return
        group = group if good.all() else group.take(good)
        if self.is_picture:
            self._cut_pictures(group, block)
        else:
            self._cut_fluxes(group, block)

    def _have_signal(self, group: Group, block: Block) -> np.ndarray:
        """Reject stamps without a good pixel or of a single value; those left, shape (objects,)."""
        empty, constant = without_signal(group.stamps)
        if self.is_picture:  # a channel may well be dark
            constant &= (constant | group.missing).all(axis=1)[:, None]
        poor = (empty | constant) & ~group.missing
        for index in np.flatnonzero(poor.any(axis=1)):
            faults = self._why_poor(group, index, poor[index], constant[index])
            lost = poor[index] & (~self.may_miss | (poor[index] | group.missing[index]).all())
            if lost.any():
                block.reject(int(group.slots[index]), faults)
                continue
            block.faults += faults
            group.missing[index] |= poor[index]
            group.stamps[index, poor[index]] = np.nan
            poor[index] = False
        good = ~poor.any(axis=1)
        lacking = good & group.missing.any(axis=1)
        block.marked.append((Flag.MISSING_BAND, group.slots[lacking]))
        return good

    def _why_poor(self, group: Group, index: int, poor, constant) -> list[Fault]:
        """Say of an object's bands why they hold no data."""
        faults = []
        for number in np.flatnonzero(poor):
            name = self.names["image"][int(group.slots[index])][number]
            what = "has no good pixel"
            if constant[number]:
                value = np.nanmax(group.stamps[index, number])
                what = f"is constant: every pixel has the value {value:g}"
            reason = f"{name}, band {self.bands[number]}, {what}"
            faults.append(Fault(Flag.NO_DATA, reason, self.bands[number], name))
        return faults

    def _mask_fills(self, group: Group, limit: float, block: Block) -> None:
        """Make NaN of the pixels that one value fills, instead of observed ones."""
        count, bands, ny, nx = group.stamps.shape
        flat = group.stamps.reshape(count * bands, -1)
        for place in np.flatnonzero(suspects(flat, limit)):
            index, number = divmod(int(place), bands)
            stamp = group.stamps[index, number]
            if not (fills := find_fills(stamp[None], limit)):
                continue
            if group.filled is None:
                group.filled = np.zeros((count, ny, nx), bool)
            group.filled[index] |= mask_fills(stamp, fills)
            name = self.names["image"][int(group.slots[index])][number]
            reason = describe(f"{name}, band {self.bands[number]}", fills)
            block.faults.append(Fault(Flag.CONSTANT, reason, self.bands[number], name))

    def _cut_pictures(self, group: Group, block: Block) -> None:
        x, y = self._centres(group, None, block)
        factor = self._factors(group)
        self.images[self._places(group.slots)] = cut(
            group.stamps, x, y, factor, self.cutouts["size"], mean=True
        )
        self._note_place(group, x, y, factor, block)

    def _cut_fluxes(self, group: Group, block: Block) -> None:
        """Cut in the units that the config asks for, without the sky if it does."""
        level, noise = border_sky(group.stamps)
        x, y = self._centres(group, level, block)
        factor = self._factors(group)
        takes_level = self.cutouts["background"] == "map"
        if takes_level and (factor != 1).any():
            group.stamps -= level[..., None, None]
        images = cut(group.stamps, x, y, factor, self.cutouts["size"], mean=False)
        if takes_level and (factor == 1).all():  # the same, on fewer pixels
            images = images - level[..., None, None]
        elif self.cutouts["background"] == "annulus":
            ring = ring_level(images.reshape(-1, *images.shape[2:]), self.cutouts["annulus"])
            images = images - ring.reshape(level.shape)[..., None, None]
        scale = self._scales(group, noise, factor, block)[..., None, None]
        if np.ptp(group.slots) == len(group.slots) - 1:  # without gaps: no copy in between
            first = self._places(group.slots[:1])[0]
            np.multiply(images, scale, out=self.images[first : first + len(images)])
        else:
            self.images[self._places(group.slots)] = images * scale
        self._note_place(group, x, y, factor, block)

    def _scales(self, group: Group, noise, factor, block: Block) -> np.ndarray:
        """What a cutout's pixels are multiplied by, shape (objects, band), float32."""
        if self.cutouts.get("noise") == "weight" and self.settings["weight"] != "relative":
            noise = np.where(np.isfinite(group.noise), group.noise, noise)
        growth = [noise_growth(self.cutouts["size"], float(value)) for value in factor]
        # What a flux adds up, a surface brightness averages.
        share = np.where(group.per_area, factor[:, None] ** -2.0, 1.0)
        noise = noise.astype(float) * np.array(growth)[:, None] * share
        columns = [
            flux_factors(
                self.objects, group.slots, band, group.zero_point[:, number], self.settings
            )
            for number, band in enumerate(self.bands)
        ]
        scale = np.stack(columns, axis=1)
        sky_noise = np.where(group.is_known, noise * scale, np.nan)
        block.measured.append(("sky_noise", group.slots, sky_noise))
        if self.cutouts["noise_units"]:
            scale = np.divide(1.0, noise, where=noise > 0, out=np.ones_like(noise))
        return (scale * share).astype(np.float32)

    def _centres(self, group: Group, level, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Pixel of each object, shape (objects,), int64: the stamp's centre, or the light there."""
        count, (ny, nx) = len(group.slots), group.stamps.shape[-2:]
        x, y = np.full(count, nx // 2), np.full(count, ny // 2)
        if not self.moves:
            return x, y
        every, band = np.arange(count), group.missing.argmin(axis=1)  # the first that is there
        first = group.stamps[every, band]
        if level is not None:
            first = first - level[every, band][:, None, None]
        scale = np.where(np.isfinite(group.scale), group.scale, 1.0)
        radius = np.clip(self.cutouts["recentre_radius"] / scale, 1, max(1, min(ny, nx) // 2 - 1))
        way = np.zeros((2, count))
        for value in np.unique(radius):
            same = np.flatnonzero(radius == value)
            # The stamps, one on top of another, are one tall image.
            tall = first[same].reshape(-1, nx)
            rows = np.arange(len(same)) * ny + ny // 2
            way[:, same] = shifts(tall, x[same], rows, value, self.cutouts["recentre"])
        pixels = np.floor(way + 0.5).astype(np.int64)
        for number, axis in enumerate("xy"):
            block.measured.append((f"shift_{axis}", group.slots, way[number]))
            block.measured.append((f"d{axis}", group.slots, way[number] - pixels[number]))
        return x + pixels[0], y + pixels[1]

    def _factors(self, group: Group) -> np.ndarray:
        """Stamp pixels per cutout pixel along a side, shape (objects,), float64."""
        size = self.cutouts["size"]
        if self.cutouts.get("extent") is None:
            side = kept_side(group.stamps.shape[-2:], self.cutouts["crop"], size)
            return np.full(len(group.slots), side / size)
        objects = self.objects.take(pa.array(group.slots))
        factor = np.empty(len(group.slots))
        key = np.nan_to_num(group.scale)
        for scale in np.unique(key):
            same = key == scale
            factor[same] = source_factors(objects.filter(pa.array(same)), scale, self.settings)
        return factor

    def _note_place(self, group: Group, x, y, factor, block: Block) -> None:
        """Note where and how large the cutouts are, and what they touch."""
        ny, nx = group.stamps.shape[-2:]
        block.measured.append(("resample_factor", group.slots, factor))
        size = self.cutouts["size"]
        over = over_edge((ny, nx), x, y, size, factor)
        block.marked.append((Flag.EDGE, group.slots[over]))
        if group.filled is not None:
            self._note_fills(group, x, y, factor, block)
        for value in np.unique(factor) if group.saturated is not None else ():
            same = factor == value
            side = max(3, int(size * value) // 4)
            touched = centre_touched(around(group.saturated[same], x[same], y[same], side)[:, 0])
            block.marked.append((Flag.SATURATED, group.slots[same][touched]))

    def _note_fills(self, group: Group, x, y, factor, block: Block) -> None:
        """Flag the objects whose cutout holds pixels that a constant fills."""
        filled = group.filled[:, None].astype(np.float32)
        for value in np.unique(factor):
            same = factor == value
            side = int(np.ceil(self.cutouts["size"] * value))
            touched = centre_touched(around(filled[same], x[same], y[same], side)[:, 0])
            block.marked.append((Flag.CONSTANT, group.slots[same][touched]))


def _names(stamps: pa.Table, kind: str, bands: list[str]) -> list[tuple[str, ...]] | None:
    """File of each band of each object; None if the table has none of this kind."""
    if f"{kind}_{bands[0]}" not in stamps.column_names:
        return None
    return list(zip(*(stamps[f"{kind}_{band}"].to_pylist() for band in bands), strict=True))


def _native(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
