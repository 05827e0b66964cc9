"""Settings of the list of candidates, such as strong lenses, that people are to look at."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from luneta.config.fields import Fraction, LocalFile, PositiveInt, Section


class Candidates(Section):
    """List of the most probable objects of a binary task, one row for each system."""

    probability: Fraction = Field(
        0.5, description="Objects whose calibrated probability is below it are not listed."
    )
    most: PositiveInt | None = Field(
        None, description="List at most so many systems, the best; all if not given."
    )
    radius: Annotated[float, Field(ge=0)] = Field(
        2.0,
        description="Arcsec within which objects are one system: the most probable one is listed, "
        "and how many there are.",
    )
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="Share of the survey's objects that are expected to be positive. Probabilities "
        "hold for the share among the labels; with this they are corrected for the survey's.",
    )
    known: LocalFile | None = Field(
        None,
        description="List of known ones (CSV, FITS, VOTable, Parquet, ...) to be matched by "
        "position, such as lenscat's catalog.csv.",
    )
    known_columns: dict[Literal["ra", "dec", "name"], str] = Field(
        default_factory=dict,
        description="Columns of `known`, where they are not called ra, dec and name, or alike: "
        '{ra: "RA [deg]"} is found without.',
    )
    known_radius: Annotated[float, Field(gt=0)] = Field(
        3.0, description="Arcsec within which a known one is the candidate."
    )
    grades: LocalFile | None = Field(
        None,
        description="Table of experts' grades, with the columns object_id and grade. It stays "
        "yours: runs read it, and never write it.",
    )
