"""Rule `ingest`: place the objects of a shard on their tiles."""

from typing import TYPE_CHECKING

from luneta.runs import start_job
from luneta.survey.ingest import run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
settings = snakemake.params.settings
run(settings["sources"], snakemake.output.objects, settings)
