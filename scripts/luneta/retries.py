"""Which jobs could not read a file, or one as it was planned, so that the next run does them again.

A job that met a passing fault (see `luneta.faults`), or a file that changed while the run was at
work (see `luneta.survey.fingerprints.Deliveries`), leaves `index/retries/{rule}/{shard}.json` with
the number of the next try and the files. The number is among the settings of the job when the next
run plans, so that Snakemake does it again, once a run, and no other job. It stays when a try has
succeeded, since a changed number would be one more reason to do the job again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from luneta.files import DamagedFile, read_json, write_json
from luneta.wording import counted

FOLDER = "retries"
RULES = ("ingest", "cutouts")


def remember(
    results: Path | str,
    rule: str,
    shard: str,
    files: Iterable[str],
    settings: Mapping,
    changed: Iterable[str] = (),
) -> None:
    """Write down at the end of a job which files it could not read, or changed meanwhile.

    Parameters
    ----------
    results : path
        `results/<survey>`.
    rule, shard : str
        Which job.
    files : iterable of str
        Names without secrets; none if all could be read, or are bad for good.
    settings : mapping
        Of the job; `retry` is the number of this try.
    changed : iterable of str
        Names of files that were not as planned when they were read.
    """
    number = settings.get("retry", 0)
    lost = sorted(set(files))
    moved = sorted(set(changed))
    if number or lost or moved:
        content = {"number": number + bool(lost or moved), "files": lost, "changed": moved}
        write_json(_path(Path(results) / "index", rule, shard), content, indent=None)


def _path(index: Path, rule: str, shard: str) -> Path:
    return index / FOLDER / rule / f"{shard}.json"


class Retries:
    """What jobs of earlier runs have left.

    Parameters
    ----------
    index : path
        `results/<survey>/index`.
    """

    def __init__(self, index: Path | str):
        self._found = {
            (rule, path.stem): content
            for rule in RULES
            for path in sorted((Path(index) / FOLDER / rule).glob("*.json"))
            if (content := _read(path)) is not None
        }

    def settings(self, rule: str, shard: str) -> dict[str, int]:
        """Return what a job's settings hold of earlier tries; nothing if there were none."""
        number = self._found.get((rule, shard), {}).get("number", 0)
        return {"retry": number} if number else {}

    def files(self, shards: Iterable[str] | None = None) -> list[str]:
        """Name the files that could not be read, those of some shards or of all."""
        return self._names("files", shards)

    def changed(self, shards: Iterable[str] | None = None) -> list[str]:
        """Name the files that changed while they were read, those of some shards or of all."""
        return self._names("changed", shards)

    def _names(self, kind: str, shards: Iterable[str] | None) -> list[str]:
        wanted = None if shards is None else set(shards)
        found = (
            content.get(kind, [])
            for (_, shard), content in self._found.items()
            if wanted is None or shard in wanted
        )
        return sorted({name for names in found for name in names})


def _read(path: Path) -> dict | None:
    """Read what a job has left; a damaged file is set aside, and its job done as if anew."""
    with suppress(DamagedFile, FileNotFoundError):
        content = read_json(path)
        if isinstance(content, dict) and {"number", "files"} <= content.keys():
            return content
    return None


def retried(files: list[str], when: str) -> list[str]:
    """Say in a line that files are tried again; in none if there are none."""
    if not files:
        return []
    return [f"{counted(len(files), 'file')} could not be read {when} (first: {files[0]})"]


def changed_meanwhile(files: list[str], run: str, what_follows: str) -> list[str]:
    """Say in a line that files changed while a run was at work; in none if there are none."""
    if not files:
        return []
    verb = "is" if len(files) == 1 else "are"
    return [
        f"{counted(len(files), 'file')} changed while {run} was at work, and {verb} {what_follows} "
        f"(first: {files[0]})"
    ]
