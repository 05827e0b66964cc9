"""Write the catalog of a survey and the list of what was rejected."""

from typing import TYPE_CHECKING

from luneta.catalog.write import run
from luneta.runs import start_job
from luneta.urls import revealed

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
settings = revealed(snakemake.params.settings)
predictions = iter(snakemake.input.predictions)
run(
    objects=snakemake.input.objects,
    quality=snakemake.input.quality,
    files=snakemake.input.files,
    predictions={
        task: [next(predictions) for _ in settings["shards"]] for task in settings["predicted"]
    },
    clusters=dict(zip(settings["clustered"], snakemake.input.clusters, strict=True)),
    metrics=dict(zip(settings["predicted"], snakemake.input.metrics, strict=True)),
    outputs=dict(snakemake.output.items()),
    settings={**settings, "catalog": {**settings["catalog"], "code": snakemake.params.code}},
    threads=snakemake.threads,
)
