"""Checking a config whole, and planning it."""

from __future__ import annotations

from luneta.config import ConfigError, validate
from luneta.config_checks import check_paths
from luneta.plan.jobs import Plan
from luneta.survey.images import ImageError
from luneta.survey.tables import TableError
from luneta.survey.tiles import TileTableError


def make_plan(data: dict) -> Plan:
    """Check a config whole, and plan it.

    Raises
    ------
    ConfigError
        Before any job starts, if the config cannot work.
    """
    if not data:
        raise ConfigError(
            "There is no config. Name one: snakemake --configfile config/demo.yaml --cores 2"
        )
    config = validate(data)
    check_paths(config)
    try:
        return Plan(config)
    except (ImageError, TableError, TileTableError) as error:
        raise ConfigError(f"The config cannot work:\n  {error}") from None
