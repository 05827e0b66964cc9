# The partitions are no outputs, as Snakemake would remove them before it runs the rule; those
# that do not change stay.
rule catalog:
    input:
        objects=of_all(rules.ingest.output.objects),
        quality=of_all(rules.cutouts.output.quality),
        files=of_all(rules.cutouts.output.files),
        predictions=of_all(rules.infer.output.predictions, task=PLAN.predicted),
        clusters=collect(rules.cluster.output.clusters, task=PLAN.clustered),
        metrics=collect(rules.evaluate.output.metrics, task=PLAN.predicted),
    output:
        collection="<results>/catalog/collection.properties",
        rejects="<results>/catalog/rejects.parquet",
        overlaps="<results>/catalog/overlaps.parquet",
        without_position="<results>/catalog/without_position.parquet",
    log:
        "<logs>/catalog.log",
    benchmark:
        "<benchmarks>/catalog.jsonl"
    conda:
        "../../envs/luneta-cpu.yaml"
    threads: 4
    params:
        settings=settings("catalog"),
        code=code_digest("catalog"),
    message:
        "Writing the catalog"
    script:
        "../../scripts/catalog.py"
