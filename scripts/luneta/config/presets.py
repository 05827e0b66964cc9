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
    name = str(data["preset"])
    if name not in names():
        raise ConfigError(
            f"The config cannot work:\n  preset = {name!r}: there is no such preset; "
            f"{did_you_mean(name, names())}"
        )
    kinds = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    given = data.get("input")
    kind = (given.get("kind") if isinstance(given, dict) else None) or next(iter(kinds))
    if kind not in kinds:
        raise ConfigError(
            f"The config cannot work:\n  input.kind = {kind!r}: the preset {name} is for "
            f"{' or '.join(kinds)}; set it to that, or leave the preset out"
        )
    settings = kinds[kind]
    settings.setdefault("input", {})["kind"] = kind
    for key, others in INSTEAD_OF.items():
        if isinstance(given, dict) and given.get(key) is not None:
            settings["input"] = {k: v for k, v in settings["input"].items() if k not in others}
    return merged(settings, data)
