rule pretrain:
    input:
        cutouts=settings("pretrain_cutouts"),
        splits=settings("pretrain_splits"),
    output:
        weights="<results>/backbones/{backbone}.weights.h5",
        history="<results>/backbones/{backbone}.csv",
    log:
        "<logs>/pretrain/{backbone}.log",
    benchmark:
        "<benchmarks>/pretrain/{backbone}.jsonl"
    conda:
        "../../envs/luneta-cpu.yaml"
    threads: 2
    params:
        settings=settings("pretrain"),
        code=code_digest("pretrain"),
        device=device,
    message:
        "Pretraining backbone {wildcards.backbone}"
    script:
        "../../scripts/pretrain.py"
