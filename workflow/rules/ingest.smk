rule ingest:
    input:
        sources=of_shard("source_files"),
        images=of_shard("grids"),
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
