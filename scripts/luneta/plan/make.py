"""Checking a config whole, and planning it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from luneta.config import Config, ConfigError, read_file, refusal, validate
from luneta.config_checks import check_paths, remarks
from luneta.files import DamagedFile, disk_trouble
from luneta.outputs import Outputs
from luneta.plan.clocks import future_problems
from luneta.plan.expected import Expected
from luneta.plan.fold_checks import fold_problems
from luneta.plan.jobs import Plan
from luneta.plan.relay import told
from luneta.plan.runs import named_files
from luneta.runs import Run, RunError, start_jobs
from luneta.surroundings import keras_problem, pin_jobs
from luneta.survey.fingerprints import fingerprint
from luneta.survey.images import ImageError
from luneta.survey.tables import TableError
from luneta.survey.tiles import Tile, TileTableError

_runs: dict[Path, tuple[Run, Outputs | None]] = {}


def make_plan(data: dict, is_run: bool = False, files: Sequence[Path | str] = ()) -> Plan:
    """Check a config whole, and plan it.

    Parameters
    ----------
    data : dict
        The config.
    is_run : bool
        This process will start jobs: the results are locked, and cleared of what an earlier run
        that did not end well has left. Else, as in a job on a cluster, what the run has found is
        taken over.
    files : sequence of path
        The files that the config was read from: Snakemake lets the last of two equal keys win.

    Raises
    ------
    ConfigError
        Before any job starts, if the config cannot work.
    """
    if not data:
        raise ConfigError(
            "There is no config. Name one: snakemake --configfile config/demo.yaml --cores 2"
        )
    for path in files if is_run else ():
        read_file(path)
    config = validate(data)
    if config.tasks and (problem := keras_problem()) is not None:
        raise refusal([problem])
    pin_jobs()
    start_jobs()
    if not is_run and (found := told(config)) is not None:
        return Plan(config, found.tiles, found)
    tiles = check_paths(config)
    for remark in remarks(config) if is_run else ():
        print(f"Note: {remark}", file=sys.stderr)
    try:
        run, outputs = _begun(config) if is_run else (None, None)
        plan = _planned(config, tiles)
        problems = [*fold_problems(plan), *future_problems(plan)] if is_run else []
    except (ImageError, TableError, TileTableError) as error:
        raise ConfigError(f"The config cannot work:\n  {error}") from None
    except RunError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        if (trouble := disk_trouble(error)) is None:
            raise
        raise ConfigError(trouble) from None
    if problems:
        raise refusal(problems)
    plan.run = run
    plan.outputs = outputs
    if outputs is not None:
        outputs.check_others(Expected(plan).is_output)
        _tell(outputs)
    if is_run:
        plan.named = {path: fingerprint(path, plan.index) for path in named_files(plan)}
    return plan


def _begun(config: Config) -> tuple[Run, Outputs | None]:
    """Lock the results, and find what is damaged there before anybody uses it.

    As a module of another workflow the Snakefile is read once for each `use rule`.
    """
    results = (Path("results") / config.survey).resolve()
    if results not in _runs:
        run = Run(results)
        outputs = Outputs(Path("results") / config.survey) if run.is_alone else None
        if outputs is None:
            print(f"Note: {run.refusal()}", file=sys.stderr)
        _runs[results] = run, outputs
        _tell(outputs)
    return _runs[results]


def _tell(outputs: Outputs | None) -> None:
    """Print what was found, once."""
    if outputs is not None:
        for message in outputs.messages:
            print(message, file=sys.stderr)
        outputs.messages.clear()


# Each try sets one damaged file aside, and the next one does without it. A bound, as a file that
# cannot be moved out of its place would be met for ever; the error of the last try is told.
MOST_SET_ASIDE = 9


def _planned(config: Config, tiles: dict[str, Tile]) -> Plan:
    """Plan; what is damaged in the memory of earlier plans is set aside, and found out anew."""
    for _ in range(MOST_SET_ASIDE):
        try:
            return Plan(config, tiles)
        except DamagedFile as error:
            print(error, file=sys.stderr)
    return Plan(config, tiles)
