"""Reading all files of one object: every one that is bad is told, with its band."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from luneta.cutouts.stamp_files import StampFiles, differing
from luneta.survey.calibration import (
    ZeroPoint,
    choose_planes,
    choose_zero_point,
    is_per_area,
    saturated_pixels,
)
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError, split_extension
from luneta.survey.masks import LARGEST_VALUE, sentinel_pixels
from luneta.survey.remote import is_remote, local_copy
from luneta.survey.wcs import pixel_scale, read_grid

KINDS = ("image", "mask", "weight")


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file of an object.

    Attributes
    ----------
    flag : Flag or None
        The defect; None: the file is odd, and can be used.
    reason : str
        What, and of which file.
    band : str or None
        The band that the file holds; None if it holds several.
    path : str or None
        The file.
    """

    flag: Flag | None
    reason: str
    band: str | None
    path: str | None


@dataclass
class Parts:
    """What the files of one object hold, each a list with an array (y, x) for each band.

    Attributes
    ----------
    image, mask, weight : list of (numpy.ndarray or None), or None
        None for a band that is missing; `mask` and `weight` are None where there are none.
    scale : float
        Arcsec per pixel; NaN where unknown or not asked for.
    faults : list of Fault
        What is wrong with the files; if any of them is of a band that is required, the object
        cannot be used.
    missing : list of bool
        Whether a band is missing.
    zero_points : list of ZeroPoint
        What turns the counts of each band into fluxes.
    saturated : list of (numpy.ndarray or None)
        Pixels of each band that its header calls saturated, shape (y, x), bool; None: there are
        none.
    planes : list of dict
        The config's `input.mask` section with the planes that hold for the mask of each band.
    """

    image: list[np.ndarray | None]
    mask: list[np.ndarray | None] | None = None
    weight: list[np.ndarray | None] | None = None
    scale: float = np.nan
    faults: list[Fault] = field(default_factory=list)
    missing: list[bool] = field(default_factory=list)
    zero_points: list[ZeroPoint] = field(default_factory=list)
    saturated: list[np.ndarray | None] = field(default_factory=list)
    planes: list[dict] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (y, x) of the bands that are there."""
        return next(plane.shape for plane in self.image if plane is not None)


class StampReader:
    """Reads objects' stamps, with their masks and weights.

    Parameters
    ----------
    files : StampFiles
        Reads single files.
    bands : sequence of str
        The survey's bands.
    required : sequence of str
        Those without which an object cannot be used.
    settings : mapping
        See `luneta.plan.Plan.cutouts`; `remote` and `pixel_scale` are read.
    asks_scale, needs_scale : bool
        Whether the pixel scale is wanted, and whether an object without one cannot be used.
    reads_urls : bool
        Whether any file is named by URL.
    """

    def __init__(
        self,
        files: StampFiles,
        bands: Sequence[str],
        required: Sequence[str],
        settings: Mapping,
        asks_scale: bool,
        needs_scale: bool,
        reads_urls: bool,
    ):
        self._is_remote = reads_urls
        self._files, self._bands, self._settings = files, list(bands), settings
        self._required = [band in required for band in bands]
        self._asks_scale, self._needs_scale = asks_scale, needs_scale

    def read(self, names: Mapping[str, Sequence[str] | None], row: int | None) -> Parts:
        """Read all files of one object.

        Parameters
        ----------
        names : mapping
            File of each band, by `image`, `mask` and `weight`; None where there are none.
        row : int or None
            The object's row, in files that hold the stamps of many objects.
        """
        parts = Parts([], missing=[False] * len(self._bands))
        with contextlib.ExitStack() as copies:
            local = self._local_names(names, copies) if self._is_remote else {}
            for kind in KINDS:
                planes = self._read_kind(kind, names.get(kind), local, row, parts)
                setattr(parts, kind, planes)
            self._agree_in_shape(names, parts)
            if self.is_usable(parts):
                self._read_headers_or_note(names, local, parts)
            if self._asks_scale and self.is_usable(parts):
                self._read_scale(names["image"], local, parts)
        return parts

    def is_usable(self, parts: Parts) -> bool:
        """Whether no band is missing that is required, and any is there."""
        lost = zip(parts.missing, self._required, strict=True)
        return not all(parts.missing) and not any(is_lost and must for is_lost, must in lost)

    def may_miss(self) -> np.ndarray:
        """Whether an object may do without a band; shape (band,), bool."""
        return ~np.array(self._required)

    def _local_names(self, names: Mapping, copies: contextlib.ExitStack) -> dict:
        """Fetch what is named by URL: the local path of each, or what is wrong with it."""
        local: dict[str, str | ImageError] = {}
        for name in (name for given in names.values() for name in given or ()):
            url = str(split_extension(name)[0])
            if url in local or not is_remote(name):
                continue
            try:
                local[url] = copies.enter_context(local_copy(url, self._settings["remote"]))
            except ImageError as error:
                local[url] = error
        return local

    def _read_kind(self, kind: str, names, local: dict, row, parts: Parts) -> list | None:
        if names is None:
            return None
        planes: list[np.ndarray | None] = [None] * len(names)
        for name, numbers in _by_file(names):
            try:
                found = self._read_file(kind, name, len(numbers), local, row)
            except ImageError as error:
                self._note(error, numbers, name, parts)
                continue
            for number, plane in zip(numbers, found, strict=True):
                planes[number] = plane
        return planes

    def _read_file(self, kind: str, name: str, count: int, local: dict, row) -> list[np.ndarray]:
        if name == "":
            raise ImageError(Flag.MISSING_FILE, f"the table names no {kind} file for this band")
        with _under_its_own_name(name, local) as there:
            if kind == "image":
                return self._files.planes_of(there, count, row)
            return self._files.planes_beside(there, count, row)

    def _note(self, error: ImageError, numbers: Sequence[int], name: str, parts: Parts) -> None:
        """Note a fault; the bands that the file holds are missing."""
        band = self._bands[numbers[0]] if len(numbers) == 1 else None
        path = error.path or name or None
        parts.faults.append(Fault(error.flag, str(error), band, path))
        for number in numbers:
            parts.missing[number] = True

    def _agree_in_shape(self, names: Mapping, parts: Parts) -> None:
        """Insist on one shape of all bands, and of the masks and weights beside them."""
        there = [n for n, plane in enumerate(parts.image) if plane is not None]
        if not there:
            return
        musts = [n for n in there if self._required[n]] or there[:1]
        if len({parts.image[n].shape for n in musts}) > 1:
            given = [names["image"][n] for n in there], [parts.image[n] for n in there]
            self._note(differing(*given), there, given[0][0], parts)
            return
        wanted = parts.image[musts[0]].shape
        for kind in KINDS:
            for name, numbers in _by_file(names[kind] or ()):
                plane = getattr(parts, kind)[numbers[0]]
                if plane is not None and plane.shape != wanted:
                    of = "the other bands have" if kind == "image" else "the image it belongs to"
                    reason = f"{name} has shape {plane.shape}, {of} {wanted}"
                    error = ImageError(Flag.SHAPE_MISMATCH, reason, name)
                    self._note(error, numbers, name, parts)

    def _read_headers_or_note(self, names: Mapping, local: dict, parts: Parts) -> None:
        """Read the headers; one that cannot be read again costs the object its bands."""
        try:
            self._read_headers(names, local, parts)
        except ImageError as error:
            self._note(error, range(len(self._bands)), names["image"][0], parts)

    def _read_headers(self, names: Mapping, local: dict, parts: Parts) -> None:
        """Take over what the headers say of units, saturation and mask planes."""
        there = [number for number, lost in enumerate(parts.missing) if not lost]
        count = len(self._bands)
        parts.zero_points = [ZeroPoint(None)] * count
        parts.saturated = [None] * count
        parts.planes = [self._settings["mask"]] * count
        for number in there if self._settings["pixels"] == "flux" else ():
            self._read_image_header(number, names["image"][number], local, parts)
        asks_planes = parts.mask is not None and self._settings["mask"].get("planes")
        for number in there if asks_planes else ():
            name = names["mask"][number]
            with _under_its_own_name(name, local) as path:
                header, _ = self._files.header(path, is_mask=True)
            if header is not None:
                planes, conflict = choose_planes(header, self._settings["mask"])
                parts.planes[number] = planes
                self._report(conflict, Flag.HEADER_CONFLICT, number, name, parts)

    def _read_image_header(self, number: int, name: str, local: dict, parts: Parts) -> None:
        with _under_its_own_name(name, local) as path:
            header, notes = self._files.header(path)
            scale = self._settings.get("pixel_scale")
            if header is not None and is_per_area(header):
                with contextlib.suppress(ImageError):
                    scale = pixel_scale(read_grid(path)[0])
        band = self._bands[number]
        parts.zero_points[number] = choose_zero_point(header, band, self._settings, scale)
        conflict = parts.zero_points[number].conflict
        self._report(conflict, Flag.HEADER_CONFLICT, number, name, parts)
        if header is not None:
            good = self._good_pixels(parts.image[number])
            parts.saturated[number], note = saturated_pixels(good, header, name)
            for text in (*notes, note):
                self._report(text, None, number, name, parts)

    def _good_pixels(self, plane: np.ndarray) -> np.ndarray:
        """Copy a band with NaN for what is no measured value; shape (y, x), float32."""
        good = plane.astype(np.float32)
        good[~(np.abs(good) < LARGEST_VALUE)] = np.nan
        good[sentinel_pixels(good, self._settings["mask"].get("sentinels", []))] = np.nan
        return good

    def _report(
        self, reason: str | None, flag: Flag | None, number: int, name: str, parts: Parts
    ) -> None:
        """Note what is odd about a file that can be used."""
        if reason is not None:
            text = reason if reason.startswith(name) else f"{name}: {reason}"
            parts.faults.append(Fault(flag, text, self._bands[number], name))

    def _read_scale(self, names: Sequence[str], local: dict, parts: Parts) -> None:
        """Arcsec per pixel by the image's own coordinate system, or else by the config."""
        number = parts.missing.index(False)
        name = names[number]
        try:
            with _under_its_own_name(name, local) as there:
                parts.scale = pixel_scale(read_grid(there)[0])
            return
        except ImageError as error:
            if error.flag == Flag.UNAVAILABLE:
                self._note(error, range(len(self._bands)), name, parts)
                return
            scale = self._settings.get("pixel_scale")
        if scale is None and self._needs_scale:
            reason = (
                f"{name} does not tell its pixel scale, which cutouts.extent needs; set "
                "input.pixel_scale, or give the extent in pixels"
            )
            every = range(len(self._bands))
            self._note(ImageError(Flag.NO_WCS, reason, name), every, name, parts)
        parts.scale = scale or np.nan


def _by_file(names: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Files, and which bands each holds: one may hold all."""
    if len(names) > 1 and len(set(names)) == 1:
        return [(names[0], list(range(len(names))))]
    return [(name, [number]) for number, name in enumerate(names)]


@contextlib.contextmanager
def _under_its_own_name(name: str, local: Mapping) -> Iterator[str]:
    """Give the local name of a file; errors name the file as the table does."""
    url = str(split_extension(name)[0]) if local else name
    path = local.get(url)
    if isinstance(path, ImageError):
        raise path
    if path is None:
        yield name
        return
    try:
        yield path + name[len(url) :]
    except ImageError as error:
        raise ImageError(error.flag, str(error).replace(path, url), url) from None
