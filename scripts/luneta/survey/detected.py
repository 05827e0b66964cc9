"""The columns that detection measures: names, types, units, UCDs and descriptions."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

# The part of the spectrum of a band whose name is one of the usual systems' (UCD1+ 1.5).
SPECTRUM = {
    **dict.fromkeys(("u", "U"), "em.opt.U"),
    **dict.fromkeys(("g", "B"), "em.opt.B"),
    "V": "em.opt.V",
    **dict.fromkeys(("r", "R"), "em.opt.R"),
    **dict.fromkeys(("i", "z", "I"), "em.opt.I"),
    "J": "em.IR.J",
    "H": "em.IR.H",
    **dict.fromkeys(("K", "Ks"), "em.IR.K"),
}


def is_calibrated(settings: Mapping, band: str) -> bool:
    """Whether the images of a band have a zero point, as far as the config tells.

    Parameters
    ----------
    settings : mapping
        `zero_points` and `zero_point` of the config's `input` section.
    """
    by_header = settings.get("zero_point", "config") == "header"
    return by_header or band in (settings.get("zero_points") or {})


def measured_bands(settings: Mapping) -> list[str]:
    """Bands that detection measures, the reference band first.

    Parameters
    ----------
    settings : mapping
        `reference_band` and `bands` of the config's `input` section; the first of `bands` is the
        reference band if none is named, and the only band if there are no `bands`.
    """
    bands = settings.get("bands") or [settings["reference_band"]]
    reference = settings.get("reference_band") or bands[0]
    return [reference, *(band for band in bands if band != reference)]


def detection_bands(settings: Mapping) -> list[str]:
    """Bands on whose sum objects are detected, the reference band first if it is among them.

    Parameters
    ----------
    settings : mapping
        As `measured_bands`, and `detection` of the config's `input` section.
    """
    wanted, bands = settings["detection"].get("bands", "reference"), measured_bands(settings)
    if wanted == "reference":
        return bands[:1]
    return bands if wanted == "all" else [band for band in bands if band in wanted]


def magnitude_names(settings: Mapping, band: str) -> tuple[str, str]:
    """Names of a band's magnitude and its error; without a zero point it is instrumental."""
    kind = "" if is_calibrated(settings, band) else "instrumental_"
    return f"{kind}magnitude_{band}", f"{kind}magnitude_error_{band}"


def detected_columns(settings: Mapping) -> list[str]:
    """Name the columns that detection gives, beside the position.

    Parameters
    ----------
    settings : mapping
        `bands`, `reference_band`, `zero_points` and `zero_point` of the config's `input` section.
    """
    return detected_schema(settings).names


def detected_schema(settings: Mapping) -> pa.Schema:
    """Fields of the detected columns, with `unit`, `ucd` and `description` as their metadata.

    Parameters
    ----------
    settings : mapping
        As `detected_columns`.
    """
    magnitudes = [
        field for band in measured_bands(settings) for field in _magnitude_fields(settings, band)
    ]
    return pa.schema([*magnitudes, *_SHAPE])


def _field(name, kind, unit=None, ucd=None, description="") -> pa.Field:
    about = {"unit": unit, "ucd": ucd, "description": description}
    return pa.field(name, kind, metadata={key: value for key, value in about.items() if value})


_SHAPE = (
    _field(
        "half_light_radius",
        pa.float32(),
        "arcsec",
        "phys.angSize",
        "Radius of the circle about the object that holds half of its Kron flux, in the image it "
        "was detected on; not corrected for seeing",
    ),
    _field(
        "axis_ratio",
        pa.float32(),
        None,
        "phys.size.axisRatio",
        "Minor over major axis, from the second moments of the image the object was detected on",
    ),
    _field(
        "position_angle",
        pa.float32(),
        "deg",
        "pos.posAng",
        "Angle of the major axis, from north through east, 0 to 180",
    ),
    _field(
        "signal_to_noise",
        pa.float32(),
        None,
        "stat.snr",
        "Kron flux over its error in the image the object was detected on",
    ),
    _field(
        "star",
        pa.bool_(),
        None,
        "src.class.starGalaxy",
        "Whether the half-light radius is that of the tile's point sources; null if that is not "
        "known. Faint objects of either kind are mistaken",
    ),
)


def _magnitude_fields(settings: Mapping, band: str) -> list[pa.Field]:
    names = magnitude_names(settings, band)
    where = f"in {band}, in the Kron ellipse of the image the object was detected on"
    error = f"Standard error of {names[0]}, from the noise of the pixels"
    if not is_calibrated(settings, band):
        text = f"-2.5 log10 of the counts {where}; no zero point is known"
        return [
            _field(names[0], pa.float32(), description=text),
            _field(names[1], pa.float32(), description=error),
        ]
    ucd = ";".join(filter(None, ("phot.mag", SPECTRUM.get(band))))
    return [
        _field(names[0], pa.float32(), "mag", ucd, f"AB magnitude {where}"),
        _field(names[1], pa.float32(), "mag", f"stat.error;{ucd}", error),
    ]
