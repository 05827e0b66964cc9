"""The outputs of finished jobs: a manifest of them, and whether each is still as it was written.

The manifest, `index/outputs.json`, holds size, times and a digest of the content of each output.
A run writes it when it ends. The next run compares sizes and times before it plans, and reads the
content of those that differ. The time of the last change of a file's inode (`ctime`) is one of
them, as it moves too when the content changes and the modification time is set back.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from luneta.files import HOST, TEMPORARY, DamagedFile, parse_json, read_json, set_aside, write_json
from luneta.runs import LOCK, UNCLAIMED
from luneta.seals import BrokenSeal, check, seal_of

RECORD = "index/outputs.json"
LEAVES = "catalog/partitions.json"
DAMAGED = ".damaged"
TEMPORARY_NAME = re.compile(TEMPORARY)
READ_WHOLE = 4 * 10**9  # bytes, a few seconds
READERS = min(8, os.cpu_count() or 1)

FIGURES = (
    "anomalies", "calibration", "candidates", "confusion", "examples", "gradients", "groups",
    "labels", "magnitude_size", "map", "precision_recall", "roc", "training",
)  # fmt: skip
NAME = r"[^/.][^/]*"
# What luneta makes, by folder. All else in a results folder is its users' own.
OUTPUTS = {
    "raw": rf"{NAME}(\.fits|_labels\.csv|_truth\.parquet)",
    "objects": rf"{NAME}\.parquet",
    "quality": rf"{NAME}(\.parquet|_files\.json)",
    "cutouts": rf"{NAME}\.arrow",
    "splits": rf"{NAME}\.parquet",
    "backbones": rf"{NAME}(\.weights\.h5|\.csv)",
    "models": rf"{NAME}/(fold\d+(\.keras|\.json|_history\.csv|_gradients\.csv)"
    r"|model_card\.md|failures\.png)",
    "metrics": rf"{NAME}\.(json|parquet|npz)",
    "predictions": rf"{NAME}/{NAME}\.parquet",
    "embeddings": rf"{NAME}/{NAME}\.parquet",
    "clusters": rf"{NAME}\.parquet",
    "catalog": r"collection\.properties|partitions\.json"
    rf"|(rejects|overlaps|without_position|{NAME}_candidates)\.parquet",
    "figures": r"(objects|cutouts|flagged|truth|comparison|label_efficiency"
    rf"|{NAME}_({'|'.join(FIGURES)}))\.png",
    "report": r"(rejects|scores)\.html",
    "runs": r"[0-9a-f]{16}\.(json|diff)",
    "index": rf"{NAME}\.(parquet|arrow)",
}
REWRITTEN_BY_PLANNING = r"index/.*|runs/.*\.json"  # each bears a checksum of its own
MADE_AGAIN = "This run makes it again."
NOT_MADE_AGAIN = "Only a run with the code and the config of then could make it again."

Stamp = list[int]


@dataclass
class Manifest:
    """What a run has noted of the outputs.

    Attributes
    ----------
    run : str
        Token of the run, as in the lock of the results folder.
    stamps : dict
        Size in bytes, modification time and change time in nanoseconds, by path under the results.
    digests : dict
        Digest of the content by path, see `content_digest`; empty where the file must be checked
        by a checksum of its own.
    """

    run: str = ""
    stamps: dict[str, Stamp] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Manifest:
        """Read the manifest of a results folder; an empty one if it is lost or damaged."""
        try:
            content = read_json(root / RECORD)
            files = content["files"]
        except (FileNotFoundError, DamagedFile, KeyError, TypeError):
            return cls()
        stamps = {name: entry[:3] for name, entry in files.items()}
        digests = {name: entry[3] for name, entry in files.items()}
        return cls(content["run"], stamps, digests)

    def write(self, root: Path) -> None:
        """Write the manifest of a results folder."""
        files = {name: [*stamp, self.digests[name]] for name, stamp in self.stamps.items()}
        write_json(root / RECORD, {"run": self.run, "files": files}, indent=None)


def recover(results: Path | str, is_simulated: bool = True) -> list[str]:
    """Clear up before a run, so that it makes what is missing or damaged.

    Temporary files that dead processes of this machine left are removed. Outputs that differ from
    the manifest are set aside. If the last run was killed before it wrote the manifest, outputs
    that have changed since are checked by the checksums that they bear themselves. Of changed
    files beyond 4 GB, size and ends alone are looked at. Times in the future are corrected.

    Parameters
    ----------
    results : path
        `results/<survey>`, in which no other run is at work.
    is_simulated : bool
        The images in `raw` are outputs too.

    Returns
    -------
    list of str
        A message for each damaged file, and one for times in the future.
    """
    root = Path(results)
    _remove_temporaries(root)
    manifest = Manifest.read(root)
    run = _last_run(root)
    stamps = _stamps(root, is_simulated)
    if notes := _date_anew(root, stamps):
        stamps = _stamps(root, is_simulated)
    changed = {name: stamp for name, stamp in stamps.items() if manifest.stamps.get(name) != stamp}
    is_noted = manifest.run == run and not (root / UNCLAIMED).exists()
    messages = _check_all(root, changed, manifest if is_noted else Manifest(run))
    if changed or not is_noted:
        _with_damaged(_noted(root, manifest, stamps, run), stamps, messages).write(root)
        (root / UNCLAIMED).unlink(missing_ok=True)
    return [*notes, *messages.values()]


def _date_anew(root: Path, stamps: Mapping[str, Stamp]) -> list[str]:
    """Date outputs of the future at the present, in which they are after a clock was set back.

    Snakemake refuses what is made from files of the future.
    """
    now = time.time_ns()
    ahead = [name for name, (_, modified, _) in stamps.items() if modified > now]
    for name in ahead:
        with suppress(OSError):  # of a disk that cannot be written to, the run itself will tell
            os.utime(root / name, ns=(now, now))
    if not ahead:
        return []
    files = "1 file" if len(ahead) == 1 else f"{len(ahead):,} files"
    return [
        f"Note: {files} in {root} had a time in the future, such as {ahead[0]}: a clock was wrong, "
        "or is. The present time is given to them"
    ]


def missing(results: Path | str) -> list[str]:
    """Outputs that were finished, and are not there any more.

    Snakemake makes again what is missing only for the sake of a job that has to be done. So these
    must be asked for.

    Returns
    -------
    list of str
        Paths, `results` included.
    """
    root = Path(results)
    names = Manifest.read(root).stamps
    return sorted(str(root / name) for name in names if not (root / name).exists())


def note(
    results: Path | str,
    is_simulated: bool = True,
    is_wanted: Callable[[Path], bool] = lambda path: True,
) -> None:
    """Write the manifest at the end of a run.

    Parameters
    ----------
    results : path
        `results/<survey>`.
    is_simulated : bool
        The images in `raw` are outputs too.
    is_wanted : callable
        Whether an output that is missing is still to be made.
    """
    root = Path(results)
    manifest = _noted(root, Manifest.read(root), _stamps(root, is_simulated), _last_run(root))
    lost = [name for name in manifest.stamps if not (root / name).exists()]
    for name in lost:
        if not is_wanted(root / name):
            del manifest.stamps[name]
    manifest.write(root)
    (root / UNCLAIMED).unlink(missing_ok=True)


def verify(results: Path | str) -> list[str]:
    """Read all outputs whole, and name those that are not as the manifest says.

    Returns
    -------
    list of str
        A line for each such file. None is moved.
    """
    root = Path(results)
    manifest = Manifest.read(root)
    names = sorted(manifest.stamps)
    with ThreadPoolExecutor(READERS) as pool:
        reasons = pool.map(lambda name: _reason(root / name, manifest.digests[name]), names)
        pairs = list(zip(names, reasons, strict=True))
    return [f"{root / name}: {reason}" for name, reason in pairs if reason]


# The content of a file


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


def _reason(path: Path, digest: str, is_whole: bool = True) -> str | None:
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
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
        raise BrokenSeal(f"it is cut short or altered ({error})") from None
    if broken is not None:
        raise BrokenSeal(f"the checksum of its part {broken} is wrong")


def _check_json(path: Path) -> None:
    try:
        parse_json(path.read_bytes())
    except ValueError as error:
        raise BrokenSeal(str(error)) from None


def _check_all(root: Path, changed: Mapping[str, Stamp], manifest: Manifest) -> dict[str, str]:
    """Check changed files, several at once, and set the damaged ones aside: a message for each."""
    digests = {**manifest.digests, **_leaf_digests(root)}
    budget = READ_WHOLE
    is_whole = {}
    for name, stamp in changed.items():
        is_whole[name] = budget > 0
        budget -= stamp[0]

    def checked(name: str) -> str | None:
        size = manifest.stamps.get(name, changed[name])[0]
        if size != changed[name][0] and digests.get(name):
            return f"it has {changed[name][0]:,} bytes, the run wrote {size:,}"
        digest = digests.get(name, "")
        is_sealed = digest.startswith("seal:") or not digest
        if not is_whole[name] and not is_sealed:
            return None
        return _reason(root / name, digest, is_whole[name])

    with ThreadPoolExecutor(READERS) as pool:
        reasons = dict(zip(changed, pool.map(checked, changed), strict=True))
    return {name: _set_aside(root, name, reason) for name, reason in reasons.items() if reason}


def _set_aside(root: Path, name: str, reason: str) -> str:
    remedy = NOT_MADE_AGAIN if name.startswith("runs/") else MADE_AGAIN
    return str(set_aside(root / name, reason, remedy))


# What is there


def _last_run(root: Path) -> str:
    """Token of the last run that claimed the results, from their lock."""
    try:
        lines = (root / LOCK).read_text(errors="replace").split("\n")
    except OSError:
        return ""
    return lines[1] if len(lines) > 1 else ""


def _stamps(root: Path, is_simulated: bool) -> dict[str, Stamp]:
    """Size and times of each output, by path under the results."""
    leaves = _leaf_digests(root)
    stamps = {}
    for folder, pattern in OUTPUTS.items():
        if folder == "raw" and not is_simulated:
            continue
        for entry in _entries(root / folder):
            name = os.path.relpath(entry.path, root)
            is_output = name in leaves or re.fullmatch(pattern, name.partition("/")[2])
            if is_output and entry.is_file(follow_symlinks=False):
                status = entry.stat()
                stamps[name] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return stamps


def _leaf_digests(root: Path) -> dict[str, str]:
    """Digests of the files of the catalog, as its own manifest has them."""
    try:
        content = read_json(root / LEAVES)
        files = {**content["leaves"], **content["small"]}
    except (OSError, DamagedFile, KeyError, TypeError):
        return {}
    there = {name: about for name, about in files.items() if about.get("rows") != 0}
    return {f"catalog/{name}": f"sha256:{about['sha256']}" for name, about in there.items()}


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
    for folder in OUTPUTS:
        for entry in _entries(root / folder):
            match = TEMPORARY_NAME.fullmatch(entry.name)
            if match and match["host"] == HOST and not is_alive(int(match["process"])):
                is_folder = entry.is_dir(follow_symlinks=False)
                with suppress(OSError):
                    shutil.rmtree(entry.path) if is_folder else Path(entry.path).unlink()


def remove_set_aside(results: Path | str) -> None:
    """Remove damaged files that were made again."""
    for folder in OUTPUTS:
        for entry in _entries(Path(results) / folder):
            if entry.name.endswith(DAMAGED) and Path(entry.path.removesuffix(DAMAGED)).exists():
                Path(entry.path).unlink()


def is_alive(process: int) -> bool:
    """Tell whether a process of this machine is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


# Writing the manifest


def _noted(root: Path, manifest: Manifest, stamps: Mapping[str, Stamp], run: str) -> Manifest:
    """The manifest of outputs as they are now, and of those that are missing."""
    there = {name: stamp for name, stamp in stamps.items() if (root / name).exists()}
    known = {
        name: manifest.digests[name]
        for name, stamp in there.items()
        if manifest.stamps.get(name) == stamp and manifest.digests[name]
    }
    known |= {name: digest for name, digest in _leaf_digests(root).items() if name in there}
    known |= {name: "" for name in there if re.fullmatch(REWRITTEN_BY_PLANNING, name)}
    unknown = [name for name in there if name not in known]
    with ThreadPoolExecutor(READERS) as pool:
        digests = list(pool.map(lambda name: _digest_or_none(root / name), unknown))
    known |= {name: digest for name, digest in zip(unknown, digests, strict=True) if digest}
    there = {name: stamp for name, stamp in there.items() if name in known}
    lost = {name: stamp for name, stamp in manifest.stamps.items() if name not in there}
    known |= {name: manifest.digests[name] for name in lost}
    return Manifest(run, {**lost, **there}, known)


def _digest_or_none(path: Path) -> str | None:
    """Digest of a file; None of a damaged one, which the next run checks."""
    try:
        return content_digest(path)
    except (OSError, BrokenSeal):
        return None


def _with_damaged(
    manifest: Manifest, stamps: Mapping[str, Stamp], damaged: Iterable[str]
) -> Manifest:
    """Enter damaged files that no run has noted, so that they are asked for."""
    new = [name for name in damaged if name not in manifest.stamps]
    entered = {name: stamps[name] for name in new}
    digests = dict.fromkeys(new, "")
    return Manifest(manifest.run, manifest.stamps | entered, manifest.digests | digests)
