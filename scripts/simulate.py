"""Simulate one tile of the demo survey."""

from typing import TYPE_CHECKING

from luneta.runs import start_job
from luneta.simulation.tile import run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
settings = snakemake.params.settings
outputs = {
    "images": dict(zip(settings["bands"], snakemake.output.images, strict=True)),
    "sources": snakemake.output.sources,
    "labels": snakemake.output.labels,
    "truth": snakemake.output.truth,
}
run(snakemake.wildcards.tile, settings, outputs)
