"""Rule `cluster`: place every object in the space of a network's features."""

from typing import TYPE_CHECKING

from luneta.clustering.job import run
from luneta.runs import start_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
run(
    snakemake.input.embeddings,
    snakemake.output.clusters,
    snakemake.output.neighbours,
    snakemake.params.settings,
    snakemake.threads,
)
