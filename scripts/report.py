"""Draw the figures and tables of a survey's report."""

from typing import TYPE_CHECKING

from luneta.reporting.report import run
from luneta.runs import start_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
settings = snakemake.params.settings
histories = iter(snakemake.input.histories)
run(
    catalog=snakemake.input.catalog,
    rejects=snakemake.input.rejects,
    overlaps=snakemake.input.overlaps,
    cutouts=dict(zip(settings["shards"], snakemake.input.cutouts, strict=True)),
    metrics=dict(zip(settings["tasks"], snakemake.input.metrics, strict=True)),
    out_of_fold=dict(zip(settings["tasks"], snakemake.input.out_of_fold, strict=True)),
    splits=dict(zip(settings["tasks"], snakemake.input.splits, strict=True)),
    sidecars=dict(zip(settings["tasks"], snakemake.input.sidecars, strict=True)),
    histories={
        task: [next(histories) for _ in range(settings["folds"][task])]
        for task in settings["tasks"]
    },
    gradients=dict(zip(settings["tasks"], snakemake.input.gradients, strict=True)),
    clusters=dict(zip(settings["clustered"], snakemake.input.clusters, strict=True)),
    candidates=dict(zip(settings["listed"], snakemake.input.candidates, strict=True)),
    truth=snakemake.input.get("truth", []),
    settings=settings,
)
