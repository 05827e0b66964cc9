rule cutouts:
    input:
        objects=rules.ingest.output.objects,
        images=made("images"),
        stamps=[] if PLAN.is_tiles else slices_or([]),
    output:
        cutouts="<results>/cutouts/{shard}.arrow",
        quality="<results>/quality/{shard}.parquet",
        files="<results>/quality/{shard}_files.json",
    log:
        "<logs>/cutouts/{shard}.log",
    benchmark:
        "<benchmarks>/cutouts/{shard}.jsonl"
    conda:
        "../../envs/luneta-cpu.yaml"
    threads: 2
    params:
        settings=settings("cutouts"),
        code=code_digest("cutouts"),
    message:
        "Cutting shard {wildcards.shard}"
    script:
        "../../scripts/cutouts.py"
