"""Train a backbone on simulated galaxies."""

from typing import TYPE_CHECKING

from luneta.files import log_to
from luneta.training.pretrain import run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log_to(snakemake.log[0])
run(
    weights=snakemake.output.weights,
    history=snakemake.output.history,
    settings=snakemake.params.settings,
    threads=snakemake.threads,
)
