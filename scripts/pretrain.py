"""Train a backbone on simulated galaxies, or on cutouts without labels."""

from typing import TYPE_CHECKING

from luneta.gpus import claim
from luneta.runs import start_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
device = claim(snakemake.resources.get("gpu"), snakemake.params.device)

from luneta.training.pretrain import run

cutouts, splits = (snakemake.input.get(name, []) for name in ("cutouts", "splits"))
run(
    weights=snakemake.output.weights,
    history=snakemake.output.history,
    settings=snakemake.params.settings,
    threads=snakemake.threads,
    cutouts=[cutouts] if isinstance(cutouts, str) else list(cutouts),
    splits=[splits] if isinstance(splits, str) else list(splits),
    device=device,
)
