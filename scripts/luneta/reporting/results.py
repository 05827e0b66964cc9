"""Tables of results in Markdown, from the metrics and the sidecars of surveys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luneta.files import read_json
from luneta.reporting.challenge import BESIDE, HANGS, HEADER, holdouts, of_lenses, rows
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
        If it holds no metrics, or a task has metrics and no network.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("metrics/*.json"))
    if not paths:
        raise ValueError(
            f"{folder} holds no metrics/*.json. Give a folder results/SURVEY whose workflow has "
            "come as far as the rule evaluate."
        )
    sidecars = {path.stem: folder / "models" / path.stem / "fold0.json" for path in paths}
    alone = [task for task, path in sidecars.items() if not path.exists()]
    if alone:
        raise ValueError(
            f"{folder} holds metrics/{alone[0]}.json but no models/{alone[0]}/fold0.json, which "
            f"tells what its network is ({len(alone)} of {len(paths)} tasks). Bring models/ along, "
            "or remove the metrics of tasks that are no more."
        )
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


def holdout_table(results: Results) -> str | None:
    """Tabulate binary tasks on their hold-out; None if there is none."""
    found = holdouts(results.metrics)
    if not found:
        return None
    names = ("lenses", "non-lenses") if of_lenses(results.metrics) else ("positives", "negatives")
    header = ["task", "backbone", "AUROC", "TPR0", "TPR10", "log-loss", *names]
    lines = []
    for task, content in found.items():
        negatives, positives = (sum(row) for row in content["confusion"])
        scores = [interval(content, n) for n in ("roc_auc_delong", "tpr0", "tpr10", "log_loss")]
        backbone = results.networks[task].backbone
        lines.append([f"`{task}`", backbone, *scores, f"{positives:,}", f"{negatives:,}"])
    return markdown_table(header, lines, words=2)


def challenge_table() -> str:
    """Tabulate what was published of the lens challenge's ground-based data."""
    return markdown_table(HEADER, rows(), words=2)


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
            f"intervals: DeLong's for AUROC, bootstrap for the others. {HANGS}"
        )
        yield table
        if of_lenses(results.metrics):
            yield BESIDE
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
