"""Deal the labelled objects of a task into folds."""

from typing import TYPE_CHECKING

from luneta.files import log_to
from luneta.training.folds import run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log_to(snakemake.log[0])
run(
    labels=snakemake.input.labels,
    quality=snakemake.input.quality,
    split=snakemake.output.split,
    settings=snakemake.params.settings,
    objects=snakemake.input.objects,
)
