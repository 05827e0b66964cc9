"""The outputs of finished jobs: a manifest of them, and whether each is still as it was written.

The manifest, `index/outputs.json`, holds size, times and a digest of the content of each output.
A run writes it when it ends. The next run compares sizes and times before it plans, and reads the
content of those that differ. The time of the last change of a file's inode (`ctime`) is one of
them, as it moves too when the content changes and the modification time is set back.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from luneta.files import DAMAGED, HOST, TEMPORARY, parse_json, set_aside, write_json
from luneta.runs import LOCK, UNCLAIMED
from luneta.seals import BrokenSeal, check, seal_of
from luneta.wording import counted

RECORD = "index/outputs.json"
LEAVES = "catalog/partitions.json"
FOLDERS = (
    "raw", "objects", "quality", "cutouts", "splits", "backbones", "models", "metrics",
    "predictions", "embeddings", "clusters", "catalog", "figures", "report", "runs", "index",
)  # fmt: skip
REWRITTEN_BY_PLANNING = re.compile(r"index/.*|runs/.*\.json")  # each bears a checksum of its own
EDITED = ".edited"
READ_WHOLE = 4 * 10**9  # bytes, a few seconds
READERS = min(8, os.cpu_count() or 1)
TEMPORARY_NAME = re.compile(TEMPORARY)
MADE_AGAIN = "This run makes it again, if the config still asks for it, and then removes that file."
NOT_MADE_AGAIN = "Only a run with the code and the config of then could make it again."

State = list[int]
IsOutput = Callable[[str], bool]


@dataclass
class Manifest:
    """What a run has noted of the outputs.

    Attributes
    ----------
    run : str
        Token of the run, as in the lock of the results folder.
    states : dict
        Size in bytes, modification time and change time in nanoseconds, by path under the results.
    digests : dict
        Digest of the content by path, see `content_digest`; empty where the file must be checked
        by a checksum of its own.
    """

    run: str = ""
    states: dict[str, State] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        """Parse a manifest; one of an earlier luneta, without digests, is as none.

        Raises
        ------
        ValueError
            If it is not as luneta wrote it.
        """
        content = parse_json(raw)
        if isinstance(content, dict) and "files" not in content:
            return cls()
        try:
            files = content["files"]
            states = {name: [int(number) for number in entry[:3]] for name, entry in files.items()}
            digests = {name: str(entry[3]) for name, entry in files.items()}
            return cls(str(content["run"]), states, digests)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"it is not a manifest ({error!r})") from None

    def write(self, root: Path) -> None:
        """Write the manifest of a results folder."""
        files = {name: [*state, self.digests[name]] for name, state in self.states.items()}
        write_json(root / RECORD, {"run": self.run, "files": files}, indent=None)


class Outputs:
    """The outputs in a results folder, as they are when a run begins.

    Parameters
    ----------
    results : path
        `results/<survey>`, in which no other run is at work.

    Attributes
    ----------
    messages : list of str
        A message for each damaged file, and what else the user should know.
    """

    def __init__(self, results: Path | str):
        self._root = Path(results)
        self.messages: list[str] = []
        _remove_temporaries(self._root)
        self._manifest = self._read_manifest()
        self._there: dict[str, State] = {}
        self._check_noted()

    def _read_manifest(self) -> Manifest:
        path = self._root / RECORD
        try:
            return Manifest.parse(path.read_bytes())
        except FileNotFoundError:
            return Manifest()
        except ValueError as error:
            self.messages.append(str(set_aside(path, str(error), "All outputs are noted anew.")))
            return Manifest()

    def _check_noted(self) -> None:
        """Check what the manifest names, before planning reads any of it."""
        self._there = _states(self._root)
        run = _last_run(self._root)
        unclaimed = self._root / UNCLAIMED
        if self._manifest.run != run or unclaimed.exists():
            self._manifest = self._of_unfinished_run(run)
        self._date_anew(name for name in self._manifest.states if name in self._there)
        noted = {name: self._there[name] for name in self._manifest.states if name in self._there}
        changed = {name: new for name, new in noted.items() if self._manifest.states[name] != new}
        if changed:
            self._settle(changed)
        if changed or unclaimed.exists():
            self._manifest.write(self._root)
            unclaimed.unlink(missing_ok=True)

    def _of_unfinished_run(self, run: str) -> Manifest:
        """The manifest after a run that wrote none.

        A file that a job may have written since must be checked by a checksum of its own.
        """
        digests = dict(self._manifest.digests)
        for name, state in self._manifest.states.items():
            if self._there.get(name, state)[:2] != state[:2]:
                digests[name] = ""
        return Manifest(run, self._manifest.states, digests)

    def check_others(self, is_output: IsOutput) -> None:
        """Check what no manifest names, by checksums of its own.

        So are the outputs of a run that was killed before it wrote one.

        Parameters
        ----------
        is_output : callable
            Whether a path under the results is of an output. Other files are their users' own.
        """
        noted = self._manifest.states
        others = [name for name in self._there if name not in noted and is_output(name)]
        self._date_anew(others)
        if others:
            self._settle({name: self._there[name] for name in others})
            self._manifest.write(self._root)

    def _date_anew(self, names: Iterable[str]) -> None:
        """Date outputs of the future at the present, in which they are after a clock was set back.

        Snakemake refuses what is made from files of the future.
        """
        now = time.time_ns()
        ahead = [name for name in names if self._there[name][1] > now]
        for name in ahead:
            path = self._root / name
            with suppress(OSError):  # of a disk that cannot be written to, the run itself will tell
                os.utime(path, ns=(now, now))
                self._there[name] = _state(path.stat())
        if ahead:
            self.messages.append(
                f"Note: {counted(len(ahead), 'file')} in {self._root} had a time in the future, "
                f"such as {ahead[0]}: a clock was wrong, or is. The present time is given to them"
            )

    def _settle(self, changed: Mapping[str, State]) -> None:
        """Check files, set the damaged ones aside, and enter the others as they are now."""
        leaves = _leaf_digests(self._root)
        digests = {
            name: self._manifest.digests.get(name) or leaves.get(name, "") for name in changed
        }
        unread = _beyond(READ_WHOLE, changed)

        def checked(name: str) -> str | None:
            return self._reason(name, changed[name], digests[name], name in unread)

        with ThreadPoolExecutor(READERS) as pool:
            reasons = dict(zip(changed, pool.map(checked, changed), strict=True))
        for name, reason in reasons.items():
            self._enter(name, changed[name], digests[name], reason, name in unread)
        if unread:
            self.messages.append(_told_unread([changed[name][0] for name in unread]))

    def _reason(self, name: str, state: State, digest: str, is_unread: bool) -> str | None:
        """Say what is wrong with a file, if anything is."""
        noted = self._manifest.states.get(name, state)[0]
        if digest and noted != state[0]:
            return f"it has {state[0]:,} bytes, the run wrote {noted:,}"
        has_own_checksum = digest.startswith("seal:") or not digest
        if is_unread and not has_own_checksum:
            return None
        return reason_of(self._root / name, digest, is_whole=not is_unread)

    def _enter(
        self, name: str, state: State, digest: str, reason: str | None, is_unread: bool
    ) -> None:
        """Enter a file in the manifest, or set it aside."""
        path = self._root / name
        if reason is None:
            self._manifest.states[name] = state
            is_known = digest or is_unread or REWRITTEN_BY_PLANNING.fullmatch(name)
            self._manifest.digests[name] = digest if is_known else _digest_or_nothing(path)
            return
        if reason.startswith(UNREADABLE):
            self.messages.append(f"{path} {reason}")
            return
        is_larger = state[0] > self._manifest.states.get(name, state)[0]
        self.messages.append(keep_edited(path) if is_larger else _set_aside(path, name, reason))
        self._manifest.states.setdefault(name, state)
        self._manifest.digests.setdefault(name, "")

    def missing(self) -> list[str]:
        """Paths under the results of outputs that were finished, and are not there any more.

        Snakemake makes again what is missing only for the sake of a job that has to be done. So
        these must be asked for.
        """
        return sorted(name for name in self._manifest.states if not (self._root / name).exists())


def note(results: Path | str, is_output: IsOutput, is_wanted: IsOutput = lambda name: True) -> None:
    """Write the manifest at the end of a run.

    Parameters
    ----------
    results : path
        `results/<survey>`.
    is_output : callable
        Whether a path under the results is of an output. Other files are their users' own.
    is_wanted : callable
        Whether an output that is missing is still to be made.
    """
    root = Path(results)
    old = _manifest_or_none(root) or Manifest()
    states = {name: state for name, state in _states(root).items() if is_output(name)}
    lost = [name for name in old.states if not (root / name).exists() and is_wanted(name)]
    known = {
        name: old.digests[name]
        for name, state in states.items()
        if old.states.get(name) == state and old.digests[name]
    }
    known |= {name: digest for name, digest in _leaf_digests(root).items() if name in states}
    unknown = [n for n in states if n not in known and not REWRITTEN_BY_PLANNING.fullmatch(n)]
    with ThreadPoolExecutor(READERS) as pool:
        digests = pool.map(lambda name: _digest_or_nothing(root / name), unknown)
        known |= dict(zip(unknown, digests, strict=True))
    states |= {name: old.states[name] for name in lost}
    known |= {name: old.digests[name] for name in lost}
    Manifest(_last_run(root), states, {name: known.get(name, "") for name in states}).write(root)
    (root / UNCLAIMED).unlink(missing_ok=True)


def remove_set_aside(results: Path | str, is_output: IsOutput) -> None:
    """Remove damaged outputs that were made again."""
    root = Path(results)
    for folder in FOLDERS:
        for entry in _entries(root / folder):
            whole = Path(entry.path.removesuffix(DAMAGED))
            is_set_aside = entry.name.endswith(DAMAGED) and whole.exists()
            if is_set_aside and is_output(os.path.relpath(whole, root)):
                Path(entry.path).unlink()


def noted_digests(results: Path | str) -> dict[str, str]:
    """Digests of all outputs by path under the results, of the manifest; none without one."""
    return (_manifest_or_none(Path(results)) or Manifest()).digests


def verify(results: Path | str) -> list[str]:
    """Read all outputs whole, and name those that are not as the manifest says.

    Returns
    -------
    list of str
        A line for each such file. None is moved.
    """
    root = Path(results)
    manifest = _manifest_or_none(root)
    if manifest is None or not manifest.states:
        return [f"{root / RECORD}: it is missing or damaged, so that not all files can be checked"]
    names = sorted(manifest.states)
    with ThreadPoolExecutor(READERS) as pool:
        reasons = pool.map(lambda name: reason_of(root / name, manifest.digests[name]), names)
        pairs = list(zip(names, reasons, strict=True))
    return [f"{root / name}: {reason}" for name, reason in pairs if reason]


def _manifest_or_none(root: Path) -> Manifest | None:
    try:
        return Manifest.parse((root / RECORD).read_bytes())
    except (OSError, ValueError):
        return None


# The content of a file

UNREADABLE = "cannot be read"
# What zipfile raises over an archive that is not as it was written
BROKEN_ZIP = (
    zipfile.BadZipFile, EOFError, RuntimeError, ValueError, zlib.error, struct.error,
)  # fmt: skip


def content_digest(path: Path) -> str:
    """Digest of a file's content: of a sealed file the checksum in its seal, else BLAKE2b.

    Raises
    ------
    BrokenSeal
        If the end of a Parquet or Arrow file is not as it was written.
    """
    if path.suffix in (".parquet", ".arrow") and (checksum := seal_of(path)) is not None:
        return f"seal:{checksum:08x}"
    return f"blake2b:{_hash(path, hashlib.blake2b(digest_size=16))}"


def _hash(path: Path, total: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _digest_or_nothing(path: Path) -> str:
    """Digest of a file; nothing of one that cannot be read, so that its own checksum decides."""
    try:
        return content_digest(path)
    except (OSError, BrokenSeal):
        return ""


def reason_of(path: Path, digest: str, is_whole: bool = True) -> str | None:
    """Say what is wrong with a file, by its digest or else by the checksum that it bears."""
    try:
        if digest.startswith("sha256:"):
            is_same = f"sha256:{_hash(path, hashlib.sha256())}" == digest
        else:
            _check_own(path, is_whole)
            is_same = digest in ("", content_digest(path))
    except FileNotFoundError:
        return "it is missing"
    except BrokenSeal as error:
        return str(error)
    except OSError as error:
        return f"{UNREADABLE}: {error.strerror or error}"
    return None if is_same else "its content is not what the run wrote"


def _check_own(path: Path, is_whole: bool) -> None:
    """Check a file by the checksums of its format, if it has any.

    Raises
    ------
    BrokenSeal
        If one is wrong.
    """
    if path.suffix in (".parquet", ".arrow"):
        check(path, is_whole)
    elif path.suffix in (".keras", ".npz"):
        _check_zip(path, is_whole)
    elif path.suffix == ".json":
        _check_json(path)


def _check_zip(path: Path, is_whole: bool) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip() if is_whole else None
    except (
        zipfile.BadZipFile,
        EOFError,
        RuntimeError,
        ValueError,
        zlib.error,
        struct.error,
    ) as error:
        raise BrokenSeal(f"it is cut short or altered ({error})") from None
    except OSError as error:
        if error.errno != errno.EINVAL:  # a place in the archive before its beginning
            raise
        raise BrokenSeal("it is cut short or altered (it names a place outside itself)") from None
    if broken is not None:
        raise BrokenSeal(f"the checksum of its part {broken} is wrong")


def _check_json(path: Path) -> None:
    try:
        parse_json(path.read_bytes())
    except ValueError as error:
        raise BrokenSeal(str(error)) from None


def _beyond(budget: int, states: Mapping[str, State]) -> set[str]:
    """Names of the files that are too much to be read now, the largest ones."""
    beyond = set()
    for name in sorted(states, key=lambda name: states[name][0]):
        budget -= states[name][0]
        if budget < 0:
            beyond.add(name)
    return beyond


def _told_unread(sizes: list[int]) -> str:
    return (
        f"{counted(len(sizes), 'file')} of {sum(sizes) / 1e9:,.1f} GB changed, and only their "
        "size and ends were looked at: `make verify RUN=...` reads them whole"
    )


def _set_aside(path: Path, name: str, reason: str) -> str:
    remedy = NOT_MADE_AGAIN if name.startswith("runs/") else MADE_AGAIN
    return str(set_aside(path, reason, remedy))


def keep_edited(path: Path) -> str:
    """Keep a file that has grown since it was written, which no damage does: somebody edited it."""
    kept = path.with_name(path.name + EDITED)
    number = 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}{EDITED}{number}")
    path.replace(kept)
    return f"{path} was changed after the run had written it. It is kept as {kept.name}"


# What is there


def _last_run(root: Path) -> str:
    """Token of the last run that claimed the results, from their lock."""
    try:
        lines = (root / LOCK).read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return lines[1] if len(lines) > 1 else ""


def _states(root: Path) -> dict[str, State]:
    """Size and times of each file, by path under the results."""
    states = {}
    for folder in FOLDERS:
        for entry in _entries(root / folder):
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    states[os.path.relpath(entry.path, root)] = _state(entry.stat())
    states.pop(RECORD, None)
    return states


def _state(status: os.stat_result) -> State:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _leaf_digests(root: Path) -> dict[str, str]:
    """Digests of the files of the catalog, as its own manifest has them."""
    try:
        content = parse_json((root / LEAVES).read_bytes())
        files = {**content["leaves"], **content["small"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    there = {name: about for name, about in files.items() if about.get("rows") != 0}
    return {f"catalog/{name}": f"sha256:{about['sha256']}" for name, about in there.items()}


def leaf_names(results: Path | str) -> set[str]:
    """Paths under the results of the files that the catalog's own manifest names."""
    return set(_leaf_digests(Path(results)))


def _entries(folder: Path) -> Iterator[os.DirEntry]:
    """All but folders below a folder, and temporary folders; links are not followed."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and not TEMPORARY_NAME.fullmatch(entry.name):
            yield from _entries(Path(entry.path))
        else:
            yield entry


def _remove_temporaries(root: Path) -> None:
    """Remove what processes of this machine that are gone were writing."""
    for folder in FOLDERS:
        for entry in _entries(root / folder):
            match = TEMPORARY_NAME.fullmatch(entry.name)
            if match and match["host"] == HOST and not is_alive(int(match["process"])):
                remove = shutil.rmtree if entry.is_dir(follow_symlinks=False) else os.unlink
                with suppress(OSError):
                    remove(entry.path)


def is_alive(process: int) -> bool:
    """Tell whether a process of this machine is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
