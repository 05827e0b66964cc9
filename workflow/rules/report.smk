rule report:
    input:
        catalog=rules.catalog.output.collection,
        rejects=rules.catalog.output.rejects,
        overlaps=rules.catalog.output.overlaps,
        cutouts=of_all(rules.cutouts.output.cutouts),
        metrics=collect(rules.evaluate.output.metrics, task=PLAN.tasks),
        out_of_fold=collect(rules.evaluate.output.out_of_fold, task=PLAN.tasks),
        splits=collect(rules.split.output.split, task=PLAN.tasks),
        histories=[
            collect(rules.finetune.output.history, task=task, fold=PLAN.folds(task))
            for task in PLAN.tasks
        ],
        sidecars=collect(rules.finetune.output.sidecar, task=PLAN.tasks, fold=0),
        gradients=collect(rules.finetune.output.gradients, task=PLAN.tasks, fold=0),
        clusters=collect(rules.cluster.output.clusters, task=PLAN.clustered),
        candidates=collect(rules.candidates.output.candidates, task=PLAN.listed),
        truth=PLAN.truth(),
    output:
        objects=report(
            "<results>/figures/objects.png",
            caption="../report/objects.rst",
            category="1. Data",
        ),
        cutouts=report(
            "<results>/figures/cutouts.png",
            caption="../report/cutouts.rst",
            category="1. Data",
        ),
        flagged=report(
            "<results>/figures/flagged.png",
            caption="../report/flagged.rst",
            category="1. Data",
        ),
        rejects=report(
            "<results>/report/rejects.html",
            caption="../report/rejects.rst",
            category="1. Data",
        ),
        labels=report(
            collect("<results>/figures/{task}_labels.png", task=PLAN.tasks),
            caption="../report/labels.rst",
            category="2. Training",
        ),
        training=report(
            collect("<results>/figures/{task}_training.png", task=PLAN.tasks),
            caption="../report/training.rst",
            category="2. Training",
        ),
        gradients=report(
            collect("<results>/figures/{task}_gradients.png", task=PLAN.tasks),
            caption="../report/gradients.rst",
            category="2. Training",
        ),
        scores=report(
            "<results>/report/scores.html",
            caption="../report/scores.rst",
            category="3. Evaluation",
        ),
        comparison=report(
            PLAN.comparison_figure(),
            caption="../report/comparison.rst",
            category="3. Evaluation",
        ),
        label_efficiency=report(
            PLAN.label_efficiency_figure(),
            caption="../report/label_efficiency.rst",
            category="3. Evaluation",
        ),
        confusion=report(
            collect("<results>/figures/{task}_confusion.png", task=PLAN.tasks),
            caption="../report/confusion.rst",
            category="3. Evaluation",
        ),
        roc=report(
            collect("<results>/figures/{task}_roc.png", task=PLAN.tasks),
            caption="../report/roc.rst",
            category="3. Evaluation",
        ),
        precision_recall=report(
            collect("<results>/figures/{task}_precision_recall.png", task=PLAN.tasks),
            caption="../report/precision_recall.rst",
            category="3. Evaluation",
        ),
        magnitude_size=report(
            collect("<results>/figures/{task}_magnitude_size.png", task=PLAN.tasks),
            caption="../report/magnitude_size.rst",
            category="3. Evaluation",
        ),
        examples=report(
            collect("<results>/figures/{task}_examples.png", task=PLAN.tasks),
            caption="../report/examples.rst",
            category="3. Evaluation",
        ),
        calibration=report(
            collect("<results>/figures/{task}_calibration.png", task=PLAN.tasks),
            caption="../report/calibration.rst",
            category="4. Calibration",
        ),
        map=report(
            collect("<results>/figures/{task}_map.png", task=PLAN.clustered),
            caption="../report/map.rst",
            category="5. Features",
        ),
        groups=report(
            collect("<results>/figures/{task}_groups.png", task=PLAN.clustered),
            caption="../report/groups.rst",
            category="5. Features",
        ),
        anomalies=report(
            collect("<results>/figures/{task}_anomalies.png", task=PLAN.clustered),
            caption="../report/anomalies.rst",
            category="5. Features",
        ),
        candidates=report(
            collect("<results>/figures/{task}_candidates.png", task=PLAN.listed),
            caption="../report/candidates.rst",
            category="6. Candidates",
        ),
        truth=report(
            PLAN.truth_figure(),
            caption="../report/truth.rst",
            category="7. Hidden truth",
        ),
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.jsonl"
    conda:
        "../../envs/luneta-cpu.yaml"
    params:
        settings=settings("report"),
        code=code_digest("report"),
    message:
        "Drawing the report"
    script:
        "../../scripts/report.py"
