"""Predict every object of a shard."""

from typing import TYPE_CHECKING

from luneta.files import log_to
from luneta.gpus import claim
from luneta.staging import stage

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log_to(snakemake.log[0])
device = claim(snakemake.resources.get("gpu"), snakemake.params.device)

from luneta.inference.infer import run

run(
    cutouts=stage(snakemake.input.cutouts, snakemake.resources.get("scratch")),
    quality=snakemake.input.quality,
    models=snakemake.input.models,
    sidecars=snakemake.input.sidecars,
    metrics=snakemake.input.metrics,
    outlier_model=snakemake.input.outliers,
    predictions=snakemake.output.predictions,
    settings=snakemake.params.settings,
    threads=snakemake.threads,
    device=device,
)
