"""Train the network of one task and fold."""

from pathlib import Path
from typing import TYPE_CHECKING

from luneta.gpus import claim
from luneta.runs import start_job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

start_job(snakemake.log[0])
device = claim(snakemake.resources.get("gpu"), snakemake.params.device)

from luneta.training.finetune import run

weights = snakemake.input.get("weights")
task, fold = snakemake.wildcards.task, int(snakemake.wildcards.fold)
log_folder = Path(snakemake.log[0]).parents[2] / "tensorboard" / task / f"fold{fold}"
run(
    split=snakemake.input.split,
    cutouts=snakemake.input.cutouts,
    model=snakemake.output.model,
    sidecar=snakemake.output.sidecar,
    history=snakemake.output.history,
    gradients=snakemake.output.gradients,
    settings=snakemake.params.settings,
    fold=fold,
    weights=weights if isinstance(weights, str | None) else next(iter(weights), None),
    threads=snakemake.threads,
    device=device,
    log_folder=log_folder if snakemake.params.tensorboard else None,
)
