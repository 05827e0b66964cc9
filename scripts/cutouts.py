"""Rule `cutouts`: cut every object of a shard out of its images."""

from typing import TYPE_CHECKING

from luneta.cutouts.job import run
from luneta.runs import start_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
run(
    snakemake.input.objects,
    snakemake.input.get("stamps") or None,
    dict(snakemake.output.items()),
    snakemake.params.settings,
    snakemake.threads,
)
