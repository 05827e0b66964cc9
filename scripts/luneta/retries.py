"""Which jobs could not read a file, so that the next run does them again.

A job that met a passing fault (see `luneta.faults`) leaves `index/retries/{rule}/{shard}.json` with
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
    results: Path | str, rule: str, shard: str, files: Iterable[str], settings: Mapping
) -> None:
    """Write down at the end of a job which files it could not read.

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
    """
    number, names = settings.get("retry", 0), sorted(set(files))
    if number or names:
        content = {"number": number + bool(names), "files": names}
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
        """Name the files that are to be tried again, those of some shards or of all."""
        wanted = None if shards is None else set(shards)
        found = (
            content["files"]
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
