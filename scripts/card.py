"""Rule `card`: write the model card of a task."""

from typing import TYPE_CHECKING

from luneta.reporting.card import run
from luneta.runs import start_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
settings = snakemake.params.settings
run(
    snakemake.input.metrics,
    snakemake.input.out_of_fold,
    snakemake.input.split,
    snakemake.input.sidecar,
    dict(zip(settings["shards"], snakemake.input.cutouts, strict=True)),
    snakemake.output.card,
    snakemake.output.failures,
    settings,
)
