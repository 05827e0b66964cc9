"""Deal the labelled objects of a task into folds."""

from typing import TYPE_CHECKING

from luneta.runs import start_job
from luneta.training.folds import run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
run(
    labels=snakemake.input.labels,
    quality=snakemake.input.quality,
    split=snakemake.output.split,
    settings=snakemake.params.settings,
    objects=snakemake.input.objects,
)
