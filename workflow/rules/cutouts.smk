rule cutouts:
    message:
        "Cutting shard {wildcards.shard}"
    input:
        objects=rules.ingest.output.objects,
        images=of_shard("images"),
        stamps=of_shard("stamps"),
    output:
        cutouts="<results>/cutouts/{shard}.arrow",
        quality="<results>/quality/{shard}.parquet",
        files="<results>/quality/{shard}_files.json",
    log:
        "<logs>/cutouts/{shard}.log",
    benchmark:
        "<benchmarks>/cutouts/{shard}.jsonl"
    params:
        settings=settings("cutouts"),
        code=code_digest("cutouts"),
    script:
        "../../scripts/cutouts.py"
