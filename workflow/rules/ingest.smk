rule ingest:
    message:
        "Placing the objects of shard {wildcards.shard}"
    input:
        sources=of_shard("sources"),
        images=of_shard("grids"),
    output:
        objects="<results>/objects/{shard}.parquet",
    log:
        "<logs>/ingest/{shard}.log",
    benchmark:
        "<benchmarks>/ingest/{shard}.jsonl"
    params:
        settings=settings("ingest"),
        code=code_digest("ingest"),
    script:
        "../../scripts/ingest.py"
