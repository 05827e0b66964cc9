if PLAN.config.simulation is not None:

    rule simulate:
        output:
            images=collect("<results>/raw/{{tile}}_{band}.fits", band=PLAN.bands),
            sources="<results>/raw/{tile}_sources.fits",
            labels="<results>/raw/{tile}_labels.csv",
            truth="<results>/raw/{tile}_truth.parquet",
        log:
            "<logs>/simulate/{tile}.log",
        benchmark:
            "<benchmarks>/simulate/{tile}.jsonl"
        conda:
            "../../envs/luneta-cpu.yaml"
        params:
            settings=settings("simulate"),
            code=code_digest("simulate"),
        message:
            "Simulating tile {wildcards.tile}"
        script:
            "../../scripts/simulate.py"
