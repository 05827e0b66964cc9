"""What the sections of the config share: names, paths, bounds."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from luneta.urls import is_remote, redacted
from luneta.wording import few

DEFECTS = (
    "edge", "masked", "saturated", "duplicate_id", "bad_position", "outside", "missing_file",
    "unreadable_file", "no_wcs", "no_data", "too_masked", "wcs_offset", "shape_mismatch",
    "bad_checksum", "bad_id", "header_conflict", "constant", "missing_band",
    "unavailable",
)  # fmt: skip


LONGEST_NAME = 64


class ConfigError(ValueError):
    """A config that cannot work; the message names the key, the value and the fix, no secret."""

    def __init__(self, message: str):
        super().__init__(redacted(message))


def _plain_name(value: str) -> str:
    if not value or not all(c.isascii() and (c.isalnum() or c == "_") for c in value):
        raise ValueError(
            "names become file and column names: use letters, digits and underscores only"
        )
    if len(value) > LONGEST_NAME:
        raise ValueError(
            f"names become part of file names: {len(value)} letters are too many, {LONGEST_NAME} "
            "are the most"
        )
    return value


def no_repeats(names: list[str]) -> list[str]:
    """Refuse a list that names something twice."""
    if len(set(names)) != len(names):
        raise ValueError(f"{names} hold a name twice: name each once")
    return names


def _no_url(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    if any(is_remote(str(each)) for each in values):
        raise ValueError("must be a local file; fetch it first, and give its path")
    return value


Name = Annotated[str, AfterValidator(_plain_name)]
Bands = Annotated[list[Name], Field(min_length=1), AfterValidator(no_repeats)]
LocalFile = Annotated[Path, BeforeValidator(_no_url)]
NonEmptyPaths = Annotated[list[LocalFile], Field(min_length=1)]
Keep = dict[Name, str]
PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the config: unknown keys are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def did_you_mean(wrong: str, names: list[str]) -> str:
    """Name the nearest of the allowed names, or some of them."""
    lower = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(str(wrong).lower(), lower, n=1, cutoff=0.6)
    return f"did you mean {lower[near[0]]}?" if near else f"allowed are {few(names)}"
