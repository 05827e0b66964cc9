"""Predict every object of a shard."""

from typing import TYPE_CHECKING

from luneta.gpus import claim
from luneta.runs import start_job
from luneta.staging import stage

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
device = claim(snakemake.resources.get("gpu"), snakemake.params.device)

from luneta.inference.infer import run

settings = snakemake.params.settings
run(
    cutouts=stage(snakemake.input.cutouts, snakemake.resources.get("scratch")),
    quality=snakemake.input.quality,
    models=settings["models"],
    sidecars=settings["sidecars"],
    metrics=snakemake.input.metrics,
    outlier_model=snakemake.input.outliers,
    predictions=snakemake.output.predictions,
    settings=settings,
    threads=snakemake.threads,
    device=device,
    run_id=snakemake.params.run_id,
)
