"""Settings of the input: images, masks, weights, source lists and stamps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from luneta.config.fields import (
    Bands,
    Keep,
    LocalFile,
    Name,
    PositiveInt,
    Section,
    no_repeats,
)
from luneta.urls import KNOWN_PROTOCOLS, PROTOCOLS, ascii_host

Positive = Annotated[float, Field(gt=0)]


def _no_url(value: Any) -> Any:
    if "://" in str(value):
        raise ValueError("must be a folder; write URLs whole, as the names of images")
    return value


Folder = Annotated[Path, BeforeValidator(_no_url)]


class Mask(Section):
    """How bad pixels are told from good ones."""

    encoding: Literal["bits", "codes", "good"] = Field(
        "bits",
        description="`bits`: a pixel of the mask holds a sum of powers of two, a plane is a bit "
        "number from 0. `codes`: a pixel holds one number, a plane is that number (DECam "
        "Community Pipeline). `good`: zero is bad, all else good.",
    )
    planes: dict[Name, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict,
        description="Name of each mask plane and its bit number or code. "
        "Without planes every pixel that is not zero is bad.",
    )
    planes_from: Literal["config", "header"] = Field(
        "config",
        description="`header`: the mask's own header numbers its planes, file by file (MP_SAT = 1 "
        "of LSST and HSC, MSKNAM05 = SAT of Pan-STARRS); `planes` hold for masks that do not. "
        "`config`: `planes` hold, and a tile whose header contradicts them is flagged.",
    )
    header_names: dict[Name, str] = Field(
        default_factory=dict,
        description="How headers name a plane, where not as `planes` do: {saturated: SAT}.",
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
    sentinels: list[float] = Field(
        default_factory=list,
        description="Values of the image itself that mark a bad pixel, such as 100 in the lens "
        "challenge. NaN and infinity always do.",
    )
    constant: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        0.1,
        description="Share of a band's good pixels above which one exact value is no data, as of "
        "cutouts filled with zeros: its pixels are masked, and objects whose cutout holds any are "
        "flagged CONSTANT. Values that quantised noise, photon counts or the empty sky of a "
        "simulation repeat stay. Not for display pixels; null: never.",
    )

    @model_validator(mode="after")
    def _planes_are_known(self) -> Mask:
        default = {"saturated"} if self.saturated == ["saturated"] else set()
        unknown = sorted({*self.ignore, *self.saturated} - set(self.planes) - default)
        if unknown:
            raise ValueError(f"{unknown} are not among the planes {sorted(self.planes)}")
        if self.encoding == "good" and self.planes:
            raise ValueError("a mask of encoding good has no planes: zero is bad, all else good")
        return self


class SourceColumns(Section):
    """Which column of the source list holds what."""

    object_id: str | None = Field(
        "object_id",
        description="Unique name of the object; from several columns as a template, in which "
        'Python\'s number formats may stand: "{brickname}-{objid}", "G{l:.4f}{b:+.4f}". Null: a '
        "name by the position, such as J123049.42+122328.0.",
    )
    ra: str | None = Field(
        "ra",
        description="Right ascension (or galactic longitude); degrees unless the column has a "
        'unit or `units` names one. From several columns as a template: "{RAh}:{RAm}:{RAs}", '
        'dec: "{DE-}{DEd}:{DEm}:{DEs}".',
    )
    dec: str | None = Field("dec", description="Declination (or galactic latitude), likewise.")
    x: str | None = Field(
        None, description="Pixel position along the image's first axis, instead of ra and dec."
    )
    y: str | None = Field(None, description="Pixel position along the second axis.")
    tile: str | None = Field(
        None,
        description="Tile of the object, for a survey-wide list with pixel positions or where the "
        "list knows better than the footprints.",
    )
    pm_ra: str | None = Field(
        None, description="Proper motion in right ascension times cos(dec); mas/yr without a unit."
    )
    pm_dec: str | None = Field(None, description="Proper motion in declination, likewise.")

    @model_validator(mode="after")
    def _there_is_a_position(self) -> SourceColumns:
        for first, second in (("ra", "dec"), ("x", "y"), ("pm_ra", "pm_dec")):
            if (getattr(self, first) is None) != (getattr(self, second) is None):
                raise ValueError(f"{first} and {second} go together: name both, or set both null")
        if self.ra is None and self.x is None:
            raise ValueError("there is no position: name the columns ra and dec, or x and y")
        if self.ra is None and self.object_id is None:
            raise ValueError("object_id: null names objects by ra and dec: name these columns")
        return self


class Detection(Section):
    """How objects are found where the survey has no source list (SEP, Barbary 2016)."""

    bands: Literal["reference", "all"] | Bands = Field(
        "reference",
        description="Bands that objects are detected on: `reference`, `all`, or a list of them. "
        "Several are added up, each in units of its noise, which finds fainter objects. Magnitudes "
        "are measured in all bands in any case.",
    )
    threshold: Positive = Field(
        2.0, description="Pixels this many times above the local sky noise belong to an object."
    )
    minimum_area: PositiveInt = Field(9, description="Fewest pixels of an object.")
    deblend_levels: PositiveInt = Field(32, description="Levels of deblending.")
    deblend_contrast: Annotated[float, Field(gt=0, le=1)] = Field(
        0.005,
        description="Least share of the flux for a part to be an object of its own; 1: no "
        "deblending.",
    )
    mesh: Annotated[int, Field(ge=16)] = Field(
        64, description="Mesh of the background map in pixels."
    )
    stars: Literal["keep", "drop"] = Field(
        "keep",
        description="What becomes of point-like objects: half-light radius within "
        "`star_tolerance` of the tile's stellar locus. In a tile where that is not known, none is "
        "dropped.",
    )
    star_tolerance: Positive = Field(
        0.15, description="Half-width of the stellar locus, as a fraction of its radius."
    )
    brightest: PositiveInt | None = Field(
        None, description="Keep only so many objects a tile, the brightest; all if not given."
    )


class Astrometry(Section):
    """Check of the images' coordinate system against the source list."""

    max_offset: Positive | None = Field(
        None,
        description="Largest median offset in arcsec between bright sources and their nearest "
        "detection; a tile beyond it has its objects flagged. Not checked if null.",
    )
    sources: Annotated[int, Field(ge=5)] = Field(
        100, description="How many of the tile's brightest sources are compared."
    )


def _known_protocols(values: list[str]) -> list[str]:
    if unknown := [value for value in values if value not in KNOWN_PROTOCOLS]:
        raise ValueError(
            f"{unknown} cannot be allowed: name some of {', '.join(KNOWN_PROTOCOLS)}. Local files "
            "are named by paths, and protocols that wrap another one are not read"
        )
    return no_repeats(values)


def _host_names(values: list[str]) -> list[str]:
    for value in values:
        name = value.removeprefix("*.").strip("[]")
        is_address = ":" in name and not set(name) - set("0123456789abcdefABCDEF:.")
        if not (ascii_host(name) or is_address):
            raise ValueError(
                f"{value!r} is not the name of a host: write data.example.org, or *.example.org "
                "for all hosts below it, without protocol, port and path"
            )
    return values


class Remote(Section):
    """Reading of files named by URL: https, http and s3, and what `protocols` adds."""

    protocols: Annotated[list[str], Field(min_length=1), AfterValidator(_known_protocols)] = Field(
        default_factory=lambda: list(PROTOCOLS),
        description="Protocols that a URL may have, also in a table and after a redirect.",
    )
    hosts: Annotated[list[str], Field(min_length=1), AfterValidator(_host_names)] | None = Field(
        None,
        description="Hosts that files may come from, also after a redirect: names, or "
        "`*.example.org` for all below it; of an object store its bucket. Any host if null, and "
        "then no redirect to a private address of another host.",
    )
    retries: Annotated[int, Field(ge=0, le=20)] = Field(
        3, description="How often a transfer that failed is tried again."
    )
    wait: Annotated[float, Field(ge=0)] = Field(
        1.0, description="Seconds before the first retry; doubled each time."
    )
    timeout: Positive = Field(60.0, description="Seconds after which a silent server is given up.")
    most_seconds: Positive = Field(
        3600.0, description="Seconds after which a file is given up, all tries together."
    )
    most_gigabytes: Positive = Field(
        20.0, description="Largest file that is fetched, in units of 1e9 bytes."
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of fsspec's file system, such as {anon: true} for public s3 buckets. "
        "A secret stays out of the config and of all records as the name of an environment "
        "variable: {headers: {Authorization: {env: TOKEN}}}.",
    )


def pattern_problem(images: str, bands: list[str], beside: dict[str, str]) -> str | None:
    """Say what the file patterns lack to tell tiles and bands apart; None if nothing.

    One band needs no {band}. One file a band needs no {tile}: it is the only tile; nor do files
    of one band, which are then named by their files. Masks and weights may serve all bands, but
    not several tiles.
    """
    if "{band}" not in images and len(bands) > 1:
        return (
            f"images = {images!r}: with {len(bands)} bands a file pattern must hold {{band}}, to "
            "tell them apart; * stands for anything"
        )
    if "{tile}" not in images and "*" in images and "{band}" in images:
        return (
            f"images = {images!r}: a file pattern with * must hold {{tile}}, which tells the files "
            "of one tile; write {tile} in place of the *"
        )
    several = "{tile}" in images or "*" in images
    for key, pattern in beside.items():
        if several and "{tile}" not in pattern:
            return f"{key} = {pattern!r}: must hold {{tile}}, as there may be several tiles"
    return None


class Survey(Section):
    """What tiles and stamps have in common."""

    bands: Bands = Field(description="Bands in the order of the cutout's first axis.")
    keep: Keep = Field(
        default_factory=dict,
        description="Further columns to carry into the catalog: name in the catalog and column in "
        "the list. Units are kept.",
    )
    mask: Mask = Field(default_factory=Mask, description="How bad pixels are told from good ones.")
    weight: Literal["inverse_variance", "variance", "rms", "relative"] = Field(
        "inverse_variance",
        description="What weight images hold. `relative`: only that zero is bad.",
    )
    pixel_scale: Positive | None = Field(
        None, description="Arcsec a pixel, where the images do not say (stamps without WCS)."
    )
    bands_required: Bands | None = Field(
        None,
        description="Bands without which an object cannot be used; all if not given. Another band "
        "that is missing or unreadable is masked, and the object flagged MISSING_BAND.",
    )
    seeing: Positive | dict[Name, Positive] | None = Field(
        None, description="Full width at half maximum of the point-spread function in arcsec."
    )
    zero_points: dict[Name, float] = Field(
        default_factory=dict,
        description="AB magnitude of one count, by band. With them fluxes are in nanojansky.",
    )
    zero_point: Literal["config", "header"] = Field(
        "config",
        description="`header`: each image's own zero point (FLUXMAG0, MAGZERO, MAGZPT, PHOTFLAM, a "
        "physical BUNIT and the like), and `zero_points` for images that tell none. `config`: "
        "`zero_points`; an image whose header contradicts them is flagged.",
    )
    remote: Remote = Field(
        default_factory=Remote, description="How files named by URL are fetched."
    )
    most_gigabytes: Positive = Field(
        16.0,
        description="Memory that one delivered file may ask for, in 10^9 bytes: its pixels or its "
        "rows, unpacked. A file that asks for more is unusable, as one that claims more than it "
        "can hold.",
    )

    @model_validator(mode="after")
    def _required_bands_are_known(self) -> Survey:
        if unknown := sorted(set(self.bands_required or []) - set(self.bands)):
            raise ValueError(f"bands_required {unknown} are not among bands {self.bands}")
        return self


RESHARD = Field(
    False,
    exclude=True,  # it says what may be done, not what is computed
    description="Allow another shard size than the survey was dealt with: the objects are cut and "
    "predicted again. Without it such a change is refused, and what it costs is told.",
)


class Tiles(Survey):
    """Input of image tiles and a source list."""

    kind: Literal["tiles"] = Field(description="`tiles`: whole images and a source list.")
    tiles: LocalFile | None = Field(
        None,
        description="Tab-separated table with the columns tile, band, image and, where there are "
        "any, mask, weight and shard. A path may end in [EXTENSION] or [NUMBER], with * for "
        "anything in an extension's name.",
    )
    images: str | None = Field(
        None,
        description="Instead of a table: pattern of the image files with {tile} and {band}, and * "
        "for anything. One band needs no {band}; one file (a band) needs no {tile}.",
    )
    masks: str | None = Field(None, description="Pattern of the mask files, likewise.")
    weights: str | None = Field(None, description="Pattern of the weight files, likewise.")
    band_names: dict[Name, str] = Field(
        default_factory=dict,
        description="How file names and cubes write a band, where not by its name: {r: HSC-R}.",
    )
    planes: dict[Name, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict,
        description="Plane of each band in a cube (band, y, x), from 0; else the order of `bands`.",
    )
    root: Folder = Field(Path(), description="Folder from which relative paths and patterns start.")
    tiles_per_shard: PositiveInt | None = Field(
        None,
        description="Tiles computed as one job; if not given, one, or as many as keep the tiles "
        "that are new to 1000 jobs. Which tile is in which shard is written down once; tiles that "
        "come later make new shards.",
    )
    reshard: bool = RESHARD
    sources: str | Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="Source list, a path or URL, or several: FITS table, VOTable, ECSV, CSV or "
        "other text, HDF5, Parquet, or the folder of a HATS catalog. A path may end in [TABLE], "
        "and hold * for anything; a relative one starts in the working folder or, where nothing is "
        "there, in `root`. `{tile}` in it means one list a tile. Null with `detection`.",
    )
    detection: Detection | None = Field(
        None, description="Find the objects on the images, where there is no source list."
    )
    columns: SourceColumns = Field(
        default_factory=SourceColumns, description="Column mapping of the source list."
    )
    units: dict[Name, str] = Field(
        default_factory=dict,
        description="Unit of a mapped column, which goes before one of its own: {ra: hourangle}; "
        "text such as 12:30:49.4 is understood without.",
    )
    frame: Literal["icrs", "fk5", "fk4", "galactic"] = Field(
        "icrs", description="Frame of the list's positions."
    )
    equinox: str = Field(
        "J2000", description="Equinox of the frames fk5 and fk4; fk4 is usually B1950."
    )
    epoch: float | None = Field(
        None, description="Epoch of the list's positions, in Julian years; for proper motions."
    )
    image_epoch: float | None = Field(
        None, description="Epoch of the images, to which proper motions carry the positions."
    )
    first_pixel: Literal[0, 1] = Field(
        1, description="Number of the first pixel in columns x and y; 1 in FITS and SExtractor."
    )
    reference_band: Name | None = Field(
        None, description="Band whose pixel grid positions refer to; the first one if not given."
    )
    overlap_radius: Positive = Field(
        1.0,
        description="Arcsec within which rows of two tiles are one object, if they bear one name "
        "or are detected; the best cutout is used.",
    )
    astrometry: Astrometry = Field(
        default_factory=Astrometry, description="Check of the coordinate system."
    )

    @model_validator(mode="after")
    def _can_work(self) -> Tiles:
        if self.reference_band is not None and self.reference_band not in self.bands:
            raise ValueError(
                f"reference_band {self.reference_band!r} is not one of bands {self.bands}"
            )
        if self.bands_required is not None and self.reference not in self.bands_required:
            raise ValueError(
                f"bands_required {self.bands_required} lacks the reference band "
                f"{self.reference!r}, on whose image the objects are placed; add it"
            )
        if self.detection is not None and isinstance(self.detection.bands, list):
            unknown = [band for band in self.detection.bands if band not in self.bands]
            if unknown:
                raise ValueError(
                    f"detection.bands {unknown} are not among bands {self.bands}: name some of "
                    f"these, or write all"
                )
        if (self.tiles is None) == (self.images is None):
            raise ValueError("name either tiles (a table) or images (a file pattern)")
        beside = {key: getattr(self, key) for key in ("masks", "weights") if getattr(self, key)}
        problem = self.images and pattern_problem(self.images, self.bands, beside)
        if problem:
            raise ValueError(problem)
        if (self.sources is None) == (self.detection is None):
            raise ValueError("name either sources (a list) or detection (find them)")
        moving = self.columns.pm_ra is not None
        if moving and (self.epoch is None or self.image_epoch is None):
            raise ValueError("proper motions need epoch (of the list) and image_epoch")
        if moving and self.frame == "fk4":
            raise ValueError("proper motions in frame fk4 are not known; bring the list to fk5")
        per_tile = self.sources is None or (
            isinstance(self.sources, str) and "{tile}" in self.sources
        )
        if isinstance(self.sources, list) and any("{tile}" in name for name in self.sources):
            raise ValueError("sources: {tile} stands in one name alone, not in one of several")
        if self.columns.ra is None and not per_tile and self.columns.tile is None:
            raise ValueError(
                "pixel positions need a tile: name columns.tile, or one list a tile by {tile}"
            )
        return self

    @property
    def reference(self) -> str:
        """The reference band, given or first."""
        return self.reference_band or self.bands[0]


class StampColumns(Section):
    """Which column of the stamp table holds what."""

    object_id: str | None = Field(
        "object_id",
        description="Unique name of the object, or a template, as of a source list. Null: a name "
        "by the position.",
    )
    ra: str | None = Field(None, description="Right ascension in degrees, if the table has it.")
    dec: str | None = Field(None, description="Declination in degrees, if the table has it.")

    @model_validator(mode="after")
    def _there_is_a_name(self) -> StampColumns:
        if self.object_id is None and (self.ra is None or self.dec is None):
            raise ValueError("object_id: null names objects by ra and dec: name these columns")
        return self


class Stamps(Survey):
    """Input of one image per object."""

    kind: Literal["stamps"] = Field(
        description="`stamps`: one image per object, listed in a table."
    )
    table: LocalFile = Field(
        description="Table of the stamps, one row per object: CSV, TSV, FITS, VOTable, ECSV, "
        "Parquet, or the one-dimensional datasets of an HDF5 file."
    )
    image: str | dict[Name, str] = Field(
        "{image}",
        description="Path of an object's image, relative to `root`: a template over the table's "
        "columns and, for one file a band, `{band}`; or one template a band. May end in "
        "[EXTENSION]. A `.npy` or HDF5 file ([dataset]) holds all stamps, in table order.",
    )
    masks: str | dict[Name, str] | None = Field(
        None, description="Path of an object's mask, likewise."
    )
    weights: str | dict[Name, str] | None = Field(
        None, description="Path of an object's weight image, likewise."
    )
    root: Folder | None = Field(
        None, description="Folder from which the templates start; the table's own if not given."
    )
    row: str | None = Field(
        None,
        description="Column with the object's row, from 0, in a `.npy` or HDF5 file; the table's "
        "order if not given.",
    )
    axes: Literal["auto", "band_first", "band_last"] = Field(
        "auto",
        description="Order of a stamp's axes in cubes and arrays: (band, y, x) or (y, x, band). "
        "`auto`: the axis as long as `bands`.",
    )
    columns: StampColumns = Field(
        default_factory=StampColumns, description="Column mapping of the stamp table."
    )
    positions: Literal["auto", "columns", "wcs", "none"] = Field(
        "auto",
        description="Where positions on the sky come from. `columns`: from the table. `wcs`: of "
        "the stamp's central pixel, by the header of its first band that has a coordinate system. "
        "`auto`: from the columns if they are named, else from the headers of local files. `none`: "
        "there are none, as where the coordinate systems are dummies.",
    )
    pixels: Literal["flux", "display"] = Field(
        "flux",
        description="`flux`: linear pixels. `display`: pictures already stretched (JPEG, PNG, "
        "TIFF, WebP, BMP, GIF), brought to 0 to 255 whatever their depth; FITS and arrays must "
        "hold 0 to 255, or 0 to 1.",
    )
    stamps_per_shard: PositiveInt = Field(
        10_000, description="Objects per shard, in table order. Append new rows at the end."
    )
    reshard: bool = RESHARD

    @model_validator(mode="after")
    def _positions_are_told_once(self) -> Stamps:
        named = self.columns.ra is not None and self.columns.dec is not None
        if self.positions == "columns" and not named:
            raise ValueError("positions: columns needs columns.ra and columns.dec; name them")
        if self.positions in ("wcs", "none") and (self.columns.ra or self.columns.dec):
            raise ValueError(
                f"positions: {self.positions} leaves columns.ra and columns.dec unread; set them "
                "to null, or set positions: columns"
            )
        return self

    @field_validator("image", "masks", "weights")
    @classmethod
    def _all_bands(cls, value: Any, info: Any) -> Any:
        bands = info.data.get("bands")
        if bands and isinstance(value, dict) and set(value) != set(bands):
            raise ValueError(f"name a template for each of the bands {bands}, and for no other")
        return value
