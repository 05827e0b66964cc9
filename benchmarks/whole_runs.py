"""Running the whole workflow for the benchmarks, and what of its time its jobs worked."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from statistics import median

import yaml

REPOSITORY = Path(__file__).parents[1]


def snakemake(folder: Path, config: dict, *arguments: str) -> float:
    """Run the workflow in a folder; gives its wall time in seconds, its own start-up included."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    command = [
        sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "workflow/Snakefile"),
        "--directory", str(folder), "--configfile", str(folder / "config.yaml"), *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")}
    start = time.perf_counter()
    with (folder / "run.log").open("w") as log:
        done = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, check=False
        )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit((folder / "run.log").read_text()[-4000:])
    return seconds


def jobs_since(results: Path, moment: float) -> list[tuple[str, float]]:
    """Rule and seconds of each job that ended after a moment, by Snakemake's benchmark files."""
    folder = results / "benchmarks"
    return [
        (path.relative_to(folder).parts[0].removesuffix(".jsonl"), _seconds(path))
        for path in sorted(folder.rglob("*.jsonl"))
        if path.stat().st_mtime >= moment
    ]


def _seconds(path: Path) -> float:
    return float(json.loads(path.read_text().splitlines()[-1])["s"])


@cache
def start_up(rule: str, repeats: int = 3) -> float:
    """Seconds that a rule's script takes to start: the interpreter, and all that it imports."""
    tree = ast.parse((REPOSITORY / f"scripts/{rule}.py").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    program = "\n".join(ast.unparse(node) for node in imports)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")}
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def own_work(jobs: list[tuple[str, float]]) -> float:
    """Seconds that jobs worked, each without the start-up of its script."""
    return sum(max(0.0, seconds - start_up(rule)) for rule, seconds in jobs)


def by_rule(jobs: list[tuple[str, float]]) -> list[tuple]:
    """Rows of a table: of each rule the jobs, their seconds, and those of a start-up."""
    rows: list[tuple] = [("rule", "jobs", "all [s]", "start-up of one [s]")]
    for rule in dict.fromkeys(rule for rule, _ in jobs):
        seconds = [s for name, s in jobs if name == rule]
        rows.append((rule, len(seconds), sum(seconds), start_up(rule)))
    return rows
