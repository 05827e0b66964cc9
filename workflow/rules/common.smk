import gc
import sys
from importlib import import_module
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)) / "../.."

try:
    import_module("luneta.surroundings").check(ROOT / "scripts")
    import_module("luneta.plan")
except ModuleNotFoundError as error:
    raise WorkflowError(
        f"{error}, for {sys.executable}. Run `make` in luneta's folder and use its "
        ".venv/bin/snakemake, or install luneta here: pip install -r envs/requirements-cpu.txt, "
        "then pip install --no-deps -e . (both in luneta's folder)"
    ) from None
except import_module("luneta.surroundings").SurroundingsError as error:
    raise WorkflowError(str(error)) from None

from luneta.code_digest import code_digest
from luneta.config import ConfigError
from luneta.files import disk_trouble
from luneta.plan import make_plan
from luneta.plan.recording import close
from luneta.plan.relay import tell_jobs
from luneta.plan.shown import shown_files
from luneta.reporting.summary import summary
from luneta.runs import RunError, explanations
from luneta.slurm import SlurmError, check
from luneta.surroundings import claimed, note_module

IS_MODULE = not workflow.modifier.is_main_snakefile()

if IS_MODULE and workflow.is_main_process:
    note_module(__name__)

try:
    PLAN = make_plan(config, workflow.is_main_process, workflow.configfiles)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

# What has been planned stays, and jobs come by the ten thousand: the garbage collector need not look
# at all of them again and again.
gc.freeze()
gc.set_threshold(50_000, 20, 20)


pathvars:
    results=str(PLAN.results),
    logs=str(PLAN.results / "logs"),
    benchmarks=str(PLAN.results / "benchmarks"),


# As a module, luneta may be given other places, of which its jobs know nothing.
if workflow.modifier.path_modifier.replace_prefix(
    "results"
) != "results" or workflow.pathvars.get("results") != str(PLAN.results):
    raise WorkflowError(
        f"module {__name__}: prefix, replace_prefix and pathvars cannot move the results of luneta, "
        f"which lie in {PLAN.results}; leave them out. Surveys are kept apart by their names: "
        "`survey` in the config of each module"
    )


wildcard_constraints:
    shard=r"[^/]+",
    tile=r"[^/]+",
    task="|".join(PLAN.tasks) or "none",
    fold=r"\d+",
    backbone=r"[^/]+",


def settings(rule):
    """Return a function that looks up the settings of one job of a rule by its wildcards."""
    return lambda wildcards: getattr(PLAN, rule)(*wildcards)


def of_shard(what):
    """Return a function that looks up the files of a shard."""
    return lambda wildcards: getattr(PLAN, what)(wildcards.shard)


def made(what):
    """Return `of_shard` where the simulation makes files; those delivered reach a job as settings."""
    return of_shard(what) if PLAN.config.simulation is not None else []


def slices_or(otherwise):
    """Return the pattern of a shard's slice of a survey-wide list, or what there is instead."""
    return "<results>/index/{shard}.parquet" if PLAN.slices else otherwise


def of_all(pattern, **more):
    """Return a function that fills a path's shard with all of them.

    A plain list of paths is hashed whole by Snakemake for each of its paths, which takes the square
    of their number; a function is not.
    """
    return lambda wildcards: collect(
        pattern, **more, shard=PLAN.shards, allow_missing=True
    )


def of_task(what):
    """Return a function that looks up the files of a task."""
    return lambda wildcards: getattr(PLAN, what)(wildcards.task)


def labelled(pattern):
    """Return a function that fills a path's shard with those that hold labels of the task."""
    return lambda wildcards: collect(
        pattern, shard=PLAN.labelled_shards(wildcards.task)
    )


def folds(pattern):
    """Return a function that fills a path's fold with those of the task."""
    return lambda wildcards: collect(
        pattern, fold=PLAN.folds(wildcards.task), allow_missing=True
    )


def device(wildcards, threads):
    """Return the device asked for; as it takes `threads`, a change of it reruns nothing."""
    return PLAN.config.device


def run_id(wildcards, threads):
    """Return the name of this run, for the rows it makes; like `device`, it reruns nothing."""
    return PLAN.run_id


def tensorboard(wildcards, threads):
    """Tell whether TensorBoard's files are wanted; like `device`, it reruns nothing."""
    return PLAN.config.tasks[wildcards.task].training.tensorboard


def explain():
    """Print what has changed since the last run, in a line for each reason to run again."""
    for line in [*PLAN.heal_catalog(), *PLAN.retried(), *PLAN.changes()]:
        print(f"Since the last run: {line}", file=sys.stderr)
    PLAN.complete_record()


def check_cluster():
    """Stop before the first job if Slurm would refuse it; other executors speak for themselves."""
    settings = workflow.executor_settings
    if not hasattr(settings, "init_seconds_before_status_checks"):
        return
    asked = [job.rule.resources for job in workflow.dag.needrun_jobs()]
    partitions = {
        each["slurm_partition"].raw for each in asked if "slurm_partition" in each
    }
    try:
        check(
            partitions,
            settings.status_command,
            settings.init_seconds_before_status_checks,
        )
    except SlurmError as error:
        raise WorkflowError(str(error)) from None


def claim():
    """Take the results for this run; stop before the first job if another run is at work there."""
    try:
        PLAN.run.claim()
    except RunError as error:
        raise WorkflowError(str(error)) from None
    claimed(__name__)
    if workflow.non_local_exec:
        tell_jobs(PLAN)


def hide_secrets():
    """Let every report of Snakemake show the config without the secrets that are written in it.

    Whether there will be a report is not known here: options have many spellings, and stand in
    profiles too. Jobs get the list of config files that the user has given, which is another one.
    """
    workflow.configfiles[:] = shown_files(workflow.configfiles, PLAN)


def note_outputs():
    """Write the manifest of what is finished, to tell later what was changed."""
    try:
        PLAN.note_outputs()
    except OSError as error:
        print(disk_trouble(error) or error, file=sys.stderr)


def explain_failure(logs):
    """Print what to do about faults that jobs could not explain themselves."""
    for line in explanations(logs, PLAN.results):
        print(line, file=sys.stderr)


def seen_to():
    """List the files that this run made, or found to be up to date."""
    return [str(path) for job in workflow.dag.jobs for path in job.output]


def is_unchecked():
    """Tell whether Snakemake counts files as made without a look at what they were made from."""
    return workflow.touch or "PARAMS" not in {
        trigger.name for trigger in workflow.rerun_triggers
    }


def summarize():
    """Remember what the run was made of; print what was found, and what was left out."""
    is_all = workflow.dag_settings.forceall
    is_recorded, lines = close(PLAN, seen_to(), is_unchecked(), is_all)
    note_outputs()
    for line in lines:
        print(line, file=sys.stderr)
    if is_recorded:
        print(summary(PLAN.results, PLAN.shards))


# Jobs on a cluster read this file too, and have nothing to tell.
if workflow.is_main_process:
    hide_secrets()
    explain()
