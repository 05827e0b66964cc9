# A model file is too large for Snakemake to compare by content: the small sidecar, which
# holds the digest of the weights, decides whether predictions are out of date. The metrics
# hold that of the outlier model.
rule infer:
    input:
        cutouts=rules.cutouts.output.cutouts,
        quality=rules.cutouts.output.quality,
        models=ancient(folds(rules.finetune.output.model)),
        sidecars=folds(rules.finetune.output.sidecar),
        metrics=rules.evaluate.output.metrics,
        outliers=ancient(rules.evaluate.output.outliers),
    output:
        predictions="<results>/predictions/{task}/{shard}.parquet",
    log:
        "<logs>/infer/{task}/{shard}.log",
    benchmark:
        "<benchmarks>/infer/{task}/{shard}.jsonl"
    conda:
        "../../envs/luneta-cpu.yaml"
    params:
        settings=of_task("infer"),
        code=code_digest("infer"),
        device=device,
    message:
        "Predicting {wildcards.task} for shard {wildcards.shard}"
    script:
        "../../scripts/infer.py"
