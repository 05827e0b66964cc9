rule embed:
    input:
        cutouts=rules.cutouts.output.cutouts,
        quality=rules.cutouts.output.quality,
        model=ancient("<results>/models/{task}/fold0.keras"),
        sidecar="<results>/models/{task}/fold0.json",
    output:
        embeddings="<results>/embeddings/{task}/{shard}.parquet",
    log:
        "<logs>/embed/{task}/{shard}.log",
    benchmark:
        "<benchmarks>/embed/{task}/{shard}.jsonl"
    conda:
        "../../envs/luneta-cpu.yaml"
    params:
        settings=of_task("embed"),
        code=code_digest("embed"),
        device=device,
    message:
        "Features of {wildcards.task} for shard {wildcards.shard}"
    script:
        "../../scripts/embed.py"
