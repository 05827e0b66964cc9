# A model file is too large for Snakemake to compare by content: the small sidecar, which
# holds the digest of the weights, decides whether the scores are out of date.
rule evaluate:
    input:
        split=rules.split.output.split,
        cutouts=labelled(rules.cutouts.output.cutouts),
        models=ancient(folds(rules.finetune.output.model)),
        sidecars=folds(rules.finetune.output.sidecar),
    output:
        metrics="<results>/metrics/{task}.json",
        out_of_fold="<results>/metrics/{task}_out_of_fold.parquet",
        holdout="<results>/metrics/{task}_holdout.parquet",
        outliers="<results>/metrics/{task}_outliers.npz",
    log:
        "<logs>/evaluate/{task}.log",
    benchmark:
        "<benchmarks>/evaluate/{task}.jsonl"
    conda:
        "../../envs/luneta-cpu.yaml"
    params:
        settings=settings("evaluate"),
        code=code_digest("evaluate"),
        device=device,
    message:
        "Evaluating {wildcards.task} out of fold"
    script:
        "../../scripts/evaluate.py"
