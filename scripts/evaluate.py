"""Score and calibrate the networks of a task."""

from typing import TYPE_CHECKING

from luneta.gpus import claim
from luneta.runs import start_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
device = claim(snakemake.resources.get("gpu"), snakemake.params.device)

from luneta.training.evaluate import run

run(
    split=snakemake.input.split,
    cutouts=snakemake.input.cutouts,
    models=snakemake.input.models,
    sidecars=snakemake.input.sidecars,
    metrics=snakemake.output.metrics,
    out_of_fold=snakemake.output.out_of_fold,
    holdout=snakemake.output.holdout,
    outlier_model=snakemake.output.outliers,
    settings=snakemake.params.settings,
    threads=snakemake.threads,
    device=device,
)
