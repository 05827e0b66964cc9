"""Write the tables of columns in docs/catalog.md from the catalog's own description."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from luneta.catalog import candidates, index, schema
from luneta.catalog.schema import Column
from luneta.files import atomic_path
from luneta.survey.detected import detected_schema

PAGE = Path(__file__).resolve().parent.parent / "docs" / "catalog.md"
BEGIN, END = "<!-- {}: written by `make schema` -->", "<!-- end -->"
TYPES = {"float": "float32", "double": "float64"}
FLAGS = "Sum of defects, 0 if clean; [all of them](data_model.md#flags)"


def rows(columns: Iterable[Column]) -> str:
    """Give a table of columns in Markdown."""
    lines = ["| column | type | unit | UCD | meaning |", "|---|---|---|---|---|"]
    for column in columns:
        ucd = f"`{column.ucd}`" if column.ucd else ""
        meaning = FLAGS if column.name == "flags" else column.description
        cells = (
            f"`{column.name}`",
            TYPES.get(str(column.type), str(column.type)),
            column.unit or "",
            ucd,
            meaning,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _noise_column(band: str) -> Column:
    """Describe the sky noise of a band, whether it has a zero point or not."""
    column = schema.noise_column(band, calibrated=True)
    text = f"{column.description}; in the unit of the image where no zero point is known"
    return replace(column, unit="nJy, or none", description=text)


def catalog_columns() -> list[Column]:
    """List the columns of any catalog; {task}, {class} and {band} stand for those of the config."""
    return [
        schema.HEALPIX_COLUMN,
        *schema.OBJECT_COLUMNS,
        *schema.QUALITY_COLUMNS,
        _noise_column("{band}"),
        *schema.task_columns("{task}", "binary", ["{class}"]),
        schema.run_column("{task}"),
        *schema.cluster_columns("{task}"),
    ]


def measured_columns() -> list[Column]:
    """List the columns that detection measures: with a zero point, and the others without."""
    bare = {"bands": ["{band}"], "zero_points": {}}
    fields = {
        field.name: field
        for settings in (bare | {"zero_points": {"{band}": 0.0}}, bare)
        for field in detected_schema(settings)
    }
    return [schema.kept_column(field, None) for field in fields.values()]


def tables() -> dict[str, str]:
    """Give all tables of the page by name."""
    return {
        "catalog": rows(catalog_columns()),
        "detection": rows(measured_columns()),
        "candidates": rows(candidates.columns_of("{task}", "{class}", [])),
        "index": rows(index.COLUMNS),
    }


def page(text: str) -> str:
    """Put the tables in their places on the page."""
    for name, table in tables().items():
        begin = BEGIN.format(name)
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{table}\n{END}{rest.split(END, 1)[1]}"
    return text


if __name__ == "__main__":
    with atomic_path(PAGE) as temporary:
        temporary.write_text(page(PAGE.read_text()))
