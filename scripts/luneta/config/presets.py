"""Presets: the usual settings of a survey, which a config may fill in or overrule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from luneta.config.fields import ConfigError, did_you_mean

FOLDER = Path(__file__).parent / "presets"
INSTEAD_OF = {
    "tiles": {"images", "masks", "weights"},
    "sources": {"detection"},
    "detection": {"sources"},
}
BY_BAND = ("image", "masks", "weights", "zero_points", "seeing", "band_names", "planes")


def names() -> list[str]:
    """List the presets there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def merged(preset: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Fill in what `given` leaves out, section by section; what it sets wins."""
    result = {**preset, **given}
    for key in set(preset) & set(given):
        if isinstance(preset[key], dict) and isinstance(given[key], dict):
            result[key] = merged(preset[key], given[key])
    return result


def with_preset(data: Any) -> Any:
    """Fill in the settings of the preset that a config names, if it does.

    A preset file has a section for each kind of input, `tiles` or `stamps`; the config's
    `input.kind` chooses, or else the first one there is.

    Raises
    ------
    ConfigError
        If there is no such preset, or none for this kind of input.
    """
    if not isinstance(data, dict) or data.get("preset") is None:
        return data
    given = data.get("input")
    given = given if isinstance(given, dict) else {}
    settings = _settings(str(data["preset"]), given.get("kind"))
    settings["input"] = _suitable(settings["input"], given)
    return merged(settings, data)


def _settings(name: str, kind: str | None) -> dict[str, Any]:
    """Read the preset's section for a kind of input; the first one if none is given."""
    if name not in names():
        raise ConfigError(
            f"The config cannot work:\n  preset = {name!r}: there is no such preset; "
            f"{did_you_mean(name, names())}"
        )
    kinds = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    kind = kind or next(iter(kinds))
    if kind not in kinds:
        raise ConfigError(
            f"The config cannot work:\n  input.kind = {kind!r}: the preset {name} is for "
            f"{' or '.join(kinds)}; set it to that, or leave the preset out"
        )
    return {**kinds[kind], "input": {"kind": kind, **kinds[kind]["input"]}}


def _suitable(preset: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the config's own input makes senseless."""
    left_out = {
        k for own, others in INSTEAD_OF.items() if given.get(own) is not None for k in others
    }
    if isinstance(given.get("image"), dict):
        left_out.add("image")
    encoding = _encoding(given)
    if encoding is not None and encoding != _encoding(preset):
        left_out.add("mask")
    return _of_bands({k: v for k, v in preset.items() if k not in left_out}, given.get("bands"))


def _encoding(section: dict[str, Any]) -> str | None:
    mask = section.get("mask")
    return mask.get("encoding") if isinstance(mask, dict) else None


def _of_bands(preset: dict[str, Any], bands: Any) -> dict[str, Any]:
    """Keep what concerns the bands that the config asks for; all if it does not say."""
    if not isinstance(bands, list):
        return preset
    result = {
        key: {b: v for b, v in value.items() if b in bands}
        if key in BY_BAND and isinstance(value, dict)
        else value
        for key, value in preset.items()
    }
    if result.get("reference_band") not in bands:
        result.pop("reference_band", None)
    return result
