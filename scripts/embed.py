"""Rule `embed`: write the features of every object of a shard."""

from typing import TYPE_CHECKING

from luneta.gpus import claim
from luneta.runs import start_job
from luneta.staging import stage

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
device = claim(snakemake.resources.get("gpu"), snakemake.params.device)

from luneta.inference.embed import run

run(
    stage(snakemake.input.cutouts, snakemake.resources.get("scratch")),
    snakemake.input.quality,
    snakemake.input.model,
    snakemake.input.sidecar,
    snakemake.output.embeddings,
    snakemake.params.settings,
    snakemake.threads,
    device,
)
