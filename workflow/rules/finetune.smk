rule finetune:
    message:
        "Training {wildcards.task}, fold {wildcards.fold}"
    input:
        split=rules.split.output.split,
        cutouts=labelled(rules.cutouts.output.cutouts),
        weights=of_task("weights"),
    output:
        model="<results>/models/{task}/fold{fold}.keras",
        sidecar="<results>/models/{task}/fold{fold}.json",
        history="<results>/models/{task}/fold{fold}_history.csv",
    log:
        "<logs>/finetune/{task}/fold{fold}.log",
    benchmark:
        "<benchmarks>/finetune/{task}/fold{fold}.jsonl"
    params:
        settings=of_task("finetune"),
        code=code_digest("finetune"),
    script:
        "../../scripts/finetune.py"
