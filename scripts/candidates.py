"""Rule `candidates`: list the most probable objects of a task, one row per system."""

from typing import TYPE_CHECKING

from luneta.catalog.candidates import run
from luneta.runs import start_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
run(
    snakemake.input.collection,
    snakemake.input.out_of_fold,
    snakemake.output.candidates,
    snakemake.params.settings,
)
