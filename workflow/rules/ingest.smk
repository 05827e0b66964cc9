rule ingest:
    input:
        sources=slices_or(made("source_files")),
        images=made("grids"),
    output:
        objects="<results>/objects/{shard}.parquet",
    log:
        "<logs>/ingest/{shard}.log",
    benchmark:
        "<benchmarks>/ingest/{shard}.jsonl"
    conda:
        "../../envs/luneta-cpu.yaml"
    params:
        settings=settings("ingest"),
        code=code_digest("ingest"),
    message:
        "Placing the objects of shard {wildcards.shard}"
    script:
        "../../scripts/ingest.py"
