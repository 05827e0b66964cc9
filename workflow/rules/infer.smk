# The metrics hold the digests of all networks and of the outlier model, so that they decide whether
# predictions are out of date. The networks themselves are asked for by `all` and `evaluate`: as
# inputs of each shard they were most of what planning a large survey cost.
rule infer:
    input:
        cutouts=rules.cutouts.output.cutouts,
        quality=rules.cutouts.output.quality,
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
        run_id=run_id,
    message:
        "Predicting {wildcards.task} for shard {wildcards.shard}"
    script:
        "../../scripts/infer.py"
