"""Rule `ingest`: place the objects of a shard on their tiles."""

from pathlib import Path
from typing import TYPE_CHECKING

from luneta.retries import remember
from luneta.runs import start_job
from luneta.survey.fingerprints import Deliveries
from luneta.survey.ingest import run
from luneta.urls import revealed

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
settings = revealed(snakemake.params.settings)
deliveries = Deliveries(settings.get("delivered", {}))
not_read = run(settings["sources"], snakemake.output.objects, settings)
results = Path("results", snakemake.config["survey"])
changed = deliveries.changed()
remember(results, "ingest", snakemake.wildcards.shard, not_read, settings, changed)
