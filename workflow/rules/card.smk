rule card:
    input:
        metrics=rules.evaluate.output.metrics,
        out_of_fold=rules.evaluate.output.out_of_fold,
        split=rules.split.output.split,
        sidecar="<results>/models/{task}/fold0.json",
        cutouts=labelled(rules.cutouts.output.cutouts),
    output:
        card=report(
            "<results>/models/{task}/model_card.md",
            caption="../report/card.rst",
            category="3. Evaluation",
        ),
        failures=report(
            "<results>/models/{task}/failures.png",
            caption="../report/failures.rst",
            category="3. Evaluation",
        ),
    log:
        "<logs>/card/{task}.log",
    benchmark:
        "<benchmarks>/card/{task}.jsonl"
    conda:
        "../../envs/luneta-cpu.yaml"
    params:
        settings=of_task("card"),
        code=code_digest("card"),
    message:
        "Writing the model card of {wildcards.task}"
    script:
        "../../scripts/card.py"
