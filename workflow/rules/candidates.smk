rule candidates:
    input:
        collection=rules.catalog.output.collection,
        out_of_fold=rules.evaluate.output.out_of_fold,
        beside=of_task("beside_candidates"),
    output:
        candidates="<results>/catalog/{task}_candidates.parquet",
    log:
        "<logs>/candidates/{task}.log",
    benchmark:
        "<benchmarks>/candidates/{task}.jsonl"
    conda:
        "../../envs/luneta-cpu.yaml"
    params:
        settings=of_task("candidates"),
        code=code_digest("candidates"),
    message:
        "Listing the candidates of {wildcards.task}"
    script:
        "../../scripts/candidates.py"
