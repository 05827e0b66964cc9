rule pretrain:
    message:
        "Pretraining backbone {wildcards.backbone} on simulated galaxies"
    output:
        weights="<results>/backbones/{backbone}.weights.h5",
        history="<results>/backbones/{backbone}.csv",
    log:
        "<logs>/pretrain/{backbone}.log",
    benchmark:
        "<benchmarks>/pretrain/{backbone}.jsonl"
    threads: 2
    params:
        settings=settings("pretrain"),
        code=code_digest("pretrain"),
    script:
        "../../scripts/pretrain.py"
