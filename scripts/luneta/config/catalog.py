"""Settings of the catalog: how it is laid out, and what is said of it."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator

from luneta.config.fields import PositiveInt, Section

NARROWEST = 1.6  # how much wider a HEALPix cell is, by area, than its narrowest place
LEAST_MARGIN = 0.1  # arcsec


def widest_margin(order: int) -> float:
    """Widest margin, in arcsec, that partitions of an order can have."""
    side = math.degrees(math.sqrt(math.pi / 3) / 2 ** (order + 1)) * 3600
    return side / NARROWEST


class Catalog(Section):
    """How the catalog, a HATS collection, is laid out."""

    rows_per_partition: PositiveInt = Field(
        1_000_000,
        description="A HEALPix pixel that holds more rows is divided in four; each that is not "
        "is a file. 1e6 rows of two tasks are about 200 MB.",
    )
    lowest_order: Annotated[int, Field(ge=0, le=12)] = Field(
        0, description="HEALPix order of the largest partitions."
    )
    highest_order: Annotated[int, Field(ge=0, le=12)] = Field(
        10,
        description="HEALPix order of the smallest partitions, 3.4 arcmin wide at order 10; these "
        "are not divided, however many rows they hold.",
    )
    margin: Annotated[float, Field(ge=0)] = Field(
        5.0,
        description="Arcsec around each partition within which rows of others are kept beside it, "
        "so that matches do not stop at its border; 0: none.",
    )
    index: bool = Field(
        True,
        description="Write an index of names, by which LSDB finds an object without reading the "
        "whole catalog.",
    )
    compression_level: Annotated[int, Field(ge=1, le=22)] = Field(
        6, description="Level of zstd: higher is smaller and slower."
    )
    footers: bool = Field(
        True,
        description="Put the footers of all files together in `dataset/_metadata`, which some "
        "readers use. It grows with files times columns: turn it off beyond some thousand files.",
    )
    default_columns: list[str] = Field(
        default_factory=list,
        description="Columns that LSDB reads when it is told none; if empty: names, positions, "
        "flags, kept columns, and of each task classes, probabilities, outlier and model.",
    )
    title: str | None = Field(None, description="Title, for the properties of the catalog.")
    creator: str | None = Field(None, description="Who made it, likewise.")

    @model_validator(mode="after")
    def _orders_fit(self) -> Catalog:
        if self.lowest_order > self.highest_order:
            raise ValueError(
                f"lowest_order {self.lowest_order} is above highest_order {self.highest_order}: "
                "the largest partitions have the lowest order"
            )
        most = widest_margin(self.highest_order)
        if self.margin and not LEAST_MARGIN <= self.margin <= most:
            raise ValueError(
                f"a margin of {self.margin:g} arcsec does not fit: at highest_order "
                f"{self.highest_order} it is {LEAST_MARGIN:g} to {most:.1f} arcsec, or 0 for none; "
                "a lower highest_order allows wider ones"
            )
        return self
