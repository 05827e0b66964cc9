"""Reading a config, and saying what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from luneta.config.fields import ConfigError, Section, did_you_mean
from luneta.config.model import Config
from luneta.config.presets import with_preset
from luneta.config.yaml_files import read_config
from luneta.urls import redacted

MOST_PROBLEMS = 30
ONE_LETTER_BANDS = set("ugrizyUBVRIGZYJHK")


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    """Find the sections that a key of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from sections_in(part)


def _sections_at(path: tuple[str | int, ...]) -> list[type[Section]]:
    """Find the sections whose keys stand at a path as pydantic gives it."""
    found: list[type[Section]] = [Config]
    for part in path:
        chosen = [s for s in found if s.__name__.lower() == part] if len(found) > 1 else []
        fields = [s.model_fields[part] for s in found if part in s.model_fields]
        if chosen:
            found = chosen
        elif fields:
            found = [s for field in fields for s in sections_in(field.annotation)]
    return found


def _description(path: tuple[str | int, ...]) -> str:
    """Give what a key means, to end a message with; nothing if it is not one key's matter."""
    for section in _sections_at(path[:-1]):
        if path and path[-1] in section.model_fields:
            return f" ({section.model_fields[path[-1]].description})"
    return ""


def _no_such_key(path: tuple[str | int, ...]) -> str:
    keys = [key for section in _sections_at(path[:-1]) for key in section.model_fields]
    return f"there is no such key; {did_you_mean(str(path[-1]), keys)}"


def _fix(error: dict[str, Any]) -> str:
    """Say what is wrong and what is allowed."""
    kind, path, given = error["type"], error["loc"], error["input"]
    text = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    if kind == "extra_forbidden":
        return _no_such_key(path)
    if kind.startswith("union_tag"):
        return "must be tiles (images and a source list) or stamps (one image per object)"
    if kind == "missing":
        return f"this key is required{_description(path)}"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"must hold keys, one a line and indented below it{_description(path)}"
    if kind == "list_type" and isinstance(given, str | bool | int | float):
        return f"must be a list; write {path[-1]}: [{_listed(path[-1], given)}]"
    if kind == "string_type" and isinstance(given, bool | int | float | date):
        text = "YAML reads this as a number or as true or false; put it in quotes"
        text = "YAML reads this as a date; put it in quotes" if isinstance(given, date) else text
    return text if kind == "value_error" else f"{text}{_description(path)}"


def _listed(key: str | int, given: Any) -> str:
    """Write a single value as the list that was probably meant: `gri` of `bands` as g, r, i."""
    words = [word for word in re.split(r"[,;\s]+", str(given).strip("[](){} ")) if word]
    if key in ("bands", "rgb") and len(words) == 1 and set(words[0]) <= ONE_LETTER_BANDS:
        words = list(words[0])
    return ", ".join(words)


def _message(error: dict[str, Any]) -> str:
    path, given = error["loc"], error["input"]
    # Pydantic names the chosen kind of input as if it were a key.
    keys = (*path[:1], *path[2:]) if path[:1] == ("input",) else path
    if error["type"].startswith("union_tag"):
        keys = ("input", "kind")
        given = given.get("kind") if isinstance(given, dict) else given
    where = ".".join(str(key) for key in keys if key != "[key]") or "config"
    silent = error["type"] in ("missing", "union_tag_not_found") or isinstance(given, dict)
    silent = silent or keys[:3] == ("input", "remote", "options")
    value = "" if silent else f" = {redacted(repr(given)):.80}"
    return f"{where}{value}: {_fix(error)}"


def _is_inherited(error: dict[str, Any], errors: list[dict[str, Any]]) -> bool:
    """Whether a task only repeats what is wrong in the top-level `training`."""
    path = error["loc"]
    if path[:1] != ("tasks",) or path[2:3] != ("training",):
        return False
    return any(e["loc"] == path[2:] and e["input"] == error["input"] for e in errors)


def refusal(lines: list[str]) -> ConfigError:
    """Gather all that is wrong with a config in one error, the first problems of many."""
    more = len(lines) - MOST_PROBLEMS
    lines = lines[:MOST_PROBLEMS] + ([f"and {more:,} more problems"] if more > 0 else [])
    return ConfigError("The config cannot work:\n  " + "\n  ".join(lines))


def validate(data: dict[str, Any]) -> Config:
    """Check a config's keys, types and bounds.

    Raises
    ------
    ConfigError
        With one line for each key that is wrong.
    """
    try:
        return Config.model_validate(with_preset(data))
    except ValidationError as error:
        errors = error.errors()
        raise refusal([_message(e) for e in errors if not _is_inherited(e, errors)]) from None


def load(path: Path) -> Config:
    """Read and check a YAML config file.

    Raises
    ------
    ConfigError
        If there is no such file, it is not YAML, or `validate` refuses it.
    """
    return validate(read_file(path))


def read_file(path: Path | str) -> dict[str, Any]:
    """Read a config file without a look at its keys.

    Raises
    ------
    ConfigError
        As `read_config`.
    """
    try:
        return read_config(path)
    except ConfigError as error:
        raise refusal([str(error)]) from None
