rule finetune:
    input:
        split=rules.split.output.split,
        cutouts=labelled(rules.cutouts.output.cutouts),
        weights=of_task("weights"),
    output:
        model="<results>/models/{task}/fold{fold}.keras",
        sidecar="<results>/models/{task}/fold{fold}.json",
        history="<results>/models/{task}/fold{fold}_history.csv",
        gradients="<results>/models/{task}/fold{fold}_gradients.csv",
    log:
        "<logs>/finetune/{task}/fold{fold}.log",
    benchmark:
        "<benchmarks>/finetune/{task}/fold{fold}.jsonl"
    conda:
        "../../envs/luneta-cpu.yaml"
    params:
        settings=of_task("finetune"),
        code=code_digest("finetune"),
        device=device,
        tensorboard=tensorboard,
    message:
        "Training {wildcards.task}, fold {wildcards.fold}"
    script:
        "../../scripts/finetune.py"
