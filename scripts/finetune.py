"""Train the network of one task and fold."""

from typing import TYPE_CHECKING

from luneta.files import log_to
from luneta.training.finetune import run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log_to(snakemake.log[0])
weights = snakemake.input.get("weights")
run(
    split=snakemake.input.split,
    cutouts=snakemake.input.cutouts,
    model=snakemake.output.model,
    sidecar=snakemake.output.sidecar,
    history=snakemake.output.history,
    settings=snakemake.params.settings,
    fold=int(snakemake.wildcards.fold),
    weights=weights if isinstance(weights, str | None) else next(iter(weights), None),
    threads=snakemake.threads,
)
