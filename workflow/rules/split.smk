rule split:
    input:
        labels=of_task("label_files"),
        quality=labelled(rules.cutouts.output.quality),
        objects=of_task("positions"),
    output:
        split="<results>/splits/{task}.parquet",
    log:
        "<logs>/split/{task}.log",
    benchmark:
        "<benchmarks>/split/{task}.jsonl"
    conda:
        "../../envs/luneta-cpu.yaml"
    params:
        settings=settings("split"),
        code=code_digest("split"),
    message:
        "Dealing the labels of {wildcards.task} to folds"
    script:
        "../../scripts/split.py"
