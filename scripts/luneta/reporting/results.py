"""Tables of results in Markdown, from the metrics and the sidecars of surveys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luneta.files import read_json
from luneta.reporting.challenge import CITATION, GROUND, TEST_OBJECTS
from luneta.reporting.networks import Network, described, label_efficiency, short_names
from luneta.reporting.tables import interval, measured


@dataclass(frozen=True)
class Results:
    """What a survey has come to: `metrics/{task}.json` and the network of each task."""

    survey: str
    metrics: dict[str, dict[str, Any]]
    networks: dict[str, Network]


def read_results(folder: Path | str) -> Results:
    """Read the results of a survey.

    Parameters
    ----------
    folder : path
        `results/{survey}`.

    Raises
    ------
    ValueError
        If it holds no metrics.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("metrics/*.json"))
    if not paths:
        raise ValueError(
            f"{folder} holds no metrics/*.json. Give a folder results/SURVEY whose workflow has "
            "come as far as the rule evaluate."
        )
    sidecars = {path.stem: folder / "models" / path.stem / "fold0.json" for path in paths}
    return Results(
        folder.resolve().name,
        {path.stem: read_json(path) for path in paths},
        {task: described(read_json(path)) for task, path in sidecars.items()},
    )


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """Write a table in Markdown: so many columns of words, the others numbers."""
    rules = ["---"] * words + ["---:"] * (len(header) - words)
    lines = [header, rules, *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def networks_table(results: Results) -> str:
    """Tabulate all tasks: network, and mean ± standard error over folds of the common scores."""
    header = ["task", "backbone", "weights", "parameters", "balanced accuracy", "macro F1",
              "ROC AUC"]  # fmt: skip
    rows = [
        [f"`{task}`", network.backbone, network.weights, f"{network.parameters:,}"]
        + [
            measured(results.metrics[task], score)
            for score in ("balanced_accuracy", "macro_f1", "roc_auc")
        ]
        for task, network in results.networks.items()
    ]
    return markdown_table(header, rows, words=3)


def holdouts(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Give the hold-out of the binary tasks that have one."""
    return {
        task: content["holdout"]
        for task, content in metrics.items()
        if content["kind"] == "binary" and content["holdout"]
    }


def of_lenses(results: Results) -> bool:
    """Whether all binary tasks with a hold-out ask for lenses."""
    return all(results.metrics[task]["classes"][1] == "lens" for task in holdouts(results.metrics))


def holdout_table(results: Results) -> str | None:
    """Tabulate binary tasks on their hold-out; None if there is none."""
    found = holdouts(results.metrics)
    if not found:
        return None
    names = ("lenses", "non-lenses") if of_lenses(results) else ("positives", "negatives")
    header = ["task", "backbone", "AUROC", "TPR0", "TPR10", "log-loss", *names]
    rows = []
    for task, content in found.items():
        negatives, positives = (sum(row) for row in content["confusion"])
        scores = [interval(content, n) for n in ("roc_auc_delong", "tpr0", "tpr10", "log_loss")]
        backbone = results.networks[task].backbone
        rows.append([f"`{task}`", backbone, *scores, f"{positives:,}", f"{negatives:,}"])
    return markdown_table(header, rows, words=2)


def challenge_table() -> str:
    """Tabulate what was published of the lens challenge's ground-based data."""
    rows = [
        [entry.name, entry.method, *(f"{value:.2f}" for value in entry[2:])] for entry in GROUND
    ]
    return markdown_table(["entry", "method", "AUROC", "TPR0", "TPR10"], rows, words=2)


def efficiency_table(results: Results) -> str | None:
    """Tabulate scores against the number of labels; None if tasks differ in no fraction."""
    lines = label_efficiency(results.networks)
    if not lines:
        return None
    names = short_names(lines, results.networks)
    found: dict[tuple[int, float], dict[str, str]] = {}
    for name, tasks in lines.items():
        for task in tasks:
            network = results.networks[task]
            found.setdefault((network.labels, network.label_fraction), {})[name] = task
    scores = {"balanced_accuracy": "balanced accuracy", "macro_f1": "macro F1"}
    header = ["labels", "fraction", *(f"{n}: {scores[s]}" for s in scores for n in names)]
    rows = [
        [f"{labels:,}", f"{100 * fraction:g} %"]
        + [
            measured(results.metrics[tasks[line]], score) if line in tasks else "–"
            for score in scores
            for line in lines
        ]
        for (labels, fraction), tasks in sorted(found.items())
    ]
    return markdown_table(header, rows)


def sections(results: Results) -> Iterable[str]:
    """Write the tables of a survey, each with what it shows."""
    yield f"### {results.survey}"
    yield "Mean ± standard error over the folds, on objects that the network did not see."
    yield networks_table(results)
    table = holdout_table(results)
    if table is not None:
        yield (
            "On the hold-out, which no fold saw, all networks of a task together, with 68.3 % "
            "intervals: DeLong's for AUROC, bootstrap for the others."
        )
        yield table
        if of_lenses(results):
            yield (
                f"Published results on the ground-based data of the lens challenge ({CITATION}). "
                "The data differ, so that the two tables cannot be compared number by number; TPR0 "
                "and TPR10 also depend on how many non-lenses were tried: the challenge had "
                f"{TEST_OBJECTS:,} test objects, half of them lenses."
            )
            yield challenge_table()
    table = efficiency_table(results)
    if table is not None:
        yield (
            "Label efficiency: mean ± standard error over the folds, against the number of labels "
            "that the network of fold 0 learned from."
        )
        yield table


def text(folders: Sequence[Path | str]) -> str:
    """Write the tables of surveys in Markdown.

    Parameters
    ----------
    folders : sequence of path
        `results/{survey}` of each.

    Raises
    ------
    ValueError
        As `read_results`.
    """
    parts = [part for folder in folders for part in sections(read_results(folder))]
    return "\n\n".join(parts) + "\n"
