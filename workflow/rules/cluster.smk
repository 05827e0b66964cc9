rule cluster:
    input:
        embeddings=of_all(rules.embed.output.embeddings),
    output:
        clusters="<results>/clusters/{task}.parquet",
        neighbours="<results>/clusters/{task}_neighbours.parquet",
    log:
        "<logs>/cluster/{task}.log",
    benchmark:
        "<benchmarks>/cluster/{task}.jsonl"
    conda:
        "../../envs/luneta-cpu.yaml"
    threads: 2
    params:
        settings=of_task("cluster"),
        code=code_digest("cluster"),
    message:
        "Placing the objects of {wildcards.task} by their features"
    script:
        "../../scripts/cluster.py"
