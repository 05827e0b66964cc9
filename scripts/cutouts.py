"""Rule `cutouts`: cut every object of a shard out of its images."""

from pathlib import Path
from typing import TYPE_CHECKING

from luneta.cutouts.job import run
from luneta.retries import remember
from luneta.runs import start_job
from luneta.survey.fingerprints import Deliveries
from luneta.urls import revealed

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
settings = revealed(snakemake.params.settings)
deliveries = Deliveries(settings.get("delivered", {}))
not_read = run(
    snakemake.input.objects,
    snakemake.input.get("stamps") or None,
    dict(snakemake.output.items()),
    settings,
    snakemake.threads,
)
results = Path("results", snakemake.config["survey"])
changed = deliveries.changed()
remember(results, "cutouts", snakemake.wildcards.shard, not_read, settings, changed)
