"""The config as reports show it: without the secrets that are written in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from luneta.files import atomic_path
from luneta.plan.survey import SurveyPlan
from luneta.urls import literal_secrets, redacted

FOLDER = "shown"


def shown_files(files: Sequence[Path | str], plan: SurveyPlan) -> list[str]:
    """Copy config files without secrets, and return the paths to show in their place.

    Parameters
    ----------
    files : sequence of path
        What the config was read from.
    plan : SurveyPlan
        Made of it; the copies lie in its `index/shown`.
    """
    secrets = [word for _, word in literal_secrets(plan.given["remote"]["options"])]
    folder = plan.index / FOLDER
    return [_shown(Path(file), folder / str(n), secrets) for n, file in enumerate(files)]


def _shown(file: Path, folder: Path, secrets: Sequence[str]) -> str:
    text = file.read_text(encoding="utf-8")
    shown = redacted(text, secrets)
    if shown == text:
        return str(file)
    with atomic_path(folder / file.name, keep_equal=True) as temporary:
        temporary.write_text(shown, encoding="utf-8")
    return str(folder / file.name)
