"""Which jobs could not read a file, or one as it was planned, so that the next run does them again.

A job that met a passing fault (see `luneta.faults`), or a file that changed while the run was at
work (see `luneta.survey.fingerprints.Deliveries`), leaves `index/retries/{rule}/{shard}.json` with
the number of the next try and the files. The number is among the settings of the job when the next
run plans, so that Snakemake does it again, once a run, and no other job. It stays when a try has
succeeded, since a changed number would be one more reason to do the job again. As long as a server
or disk does not answer at all, the number stays too: the job, and all that follows it, would be
done again for nothing in every run.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from luneta.faults import passing_fault
from luneta.files import DamagedFile, read_json, write_json
from luneta.urls import is_remote
from luneta.wording import counted

FOLDER = "retries"
MOST_PROBED = 24  # files
PROBE_SECONDS = 3.0
PORTS = {"http": 80, "https": 443}
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
    probes : bool
        Ask servers and disks whether they answer again; else they are taken to do so.
    """

    def __init__(self, index: Path | str, probes: bool = False):
        self._found = {
            (rule, path.stem): content
            for rule in RULES
            for path in sorted((Path(index) / FOLDER / rule).glob("*.json"))
            if (content := _read(path)) is not None
        }
        self._silent = set(silent(self._names("files", None))) if probes else set()

    def settings(self, rule: str, shard: str) -> dict[str, int]:
        """Return what a job's settings hold of earlier tries; nothing if there were none."""
        content = self._found.get((rule, shard), {})
        number = content.get("number", 0) - self._is_vain(content)
        return {"retry": number} if number > 0 else {}

    def _is_vain(self, content: Mapping) -> bool:
        """Whether another try would meet the same fault."""
        files = content.get("files", [])
        return bool(files) and self._silent.issuperset(files) and not content.get("changed")

    def silent(self, shards: Iterable[str] | None = None) -> list[str]:
        """Name the files whose server or disk does still not answer."""
        return [name for name in self._names("files", shards) if name in self._silent]

    def files(self, shards: Iterable[str] | None = None) -> list[str]:
        """Name the files that could not be read and are tried again, of some shards or of all."""
        return [name for name in self._names("files", shards) if name not in self._silent]

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


def silent(names: list[str]) -> list[str]:
    """Find the files, among the first ones, whose server or disk does not answer at all."""
    probed = names[:MOST_PROBED]
    if not probed:
        return []
    with ThreadPoolExecutor(MOST_PROBED) as pool:
        answers = pool.map(_answers, probed)
        return [name for name, answer in zip(probed, answers, strict=True) if not answer]


def _answers(name: str) -> bool:
    """Whether a server takes a connection, or a disk gives the first bytes of a file."""
    if is_remote(name):
        address = urlsplit(name)
        return address.scheme not in PORTS or _takes_connections(address)
    try:
        with Path(name).open("rb", buffering=0) as file:
            file.read(1)
    except OSError as error:
        return passing_fault(error) is None
    return True


def _takes_connections(address: SplitResult) -> bool:
    try:
        port = address.port or PORTS[address.scheme]
        socket.create_connection((address.hostname, port), PROBE_SECONDS).close()
    except OSError:
        return False
    except ValueError:  # not a host that can be looked up; the job says why
        return True
    return True


def still_silent(files: list[str]) -> list[str]:
    """Say in a line which files are not tried again yet; in none if there are none."""
    if not files:
        return []
    return [
        f"{counted(len(files), 'file')} could not be read, and the server or disk does still not "
        f"answer: tried again by the first run in which it does (first: {files[0]})"
    ]


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
