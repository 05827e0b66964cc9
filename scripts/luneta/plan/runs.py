"""The record of a run: what it was made of, and digests of what it made.

`results/<survey>/runs/<run_id>.json` is written when the workflow has succeeded, for the whole of
the results as they then are, and holds no time of day. `luneta.plan.reproduce` reads it.
"""

from __future__ import annotations

import hashlib
import logging
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luneta.catalog.leaves import MANIFEST
from luneta.catalog.provenance import (
    LOCKS,
    REPOSITORY,
    code_changes,
    environment_digest,
    packages,
    run_facts,
)
from luneta.config import Provenance
from luneta.digests import file_digest
from luneta.files import DAMAGED, atomic_path, parse_json, read_memory, write_json
from luneta.plan.recording import taken_over
from luneta.plan.survey import SurveyPlan
from luneta.survey.images import split_extension
from luneta.survey.remote import is_remote
from luneta.urls import left_out, recorded_config

log = logging.getLogger(__name__)

READERS = 8
ROWS_AT_ONCE = 65_536
MEMORY = "digests.json"
MOST_CHANGES = 10_000_000  # bytes of a patch that is kept


# What the inputs are


def _values(section: Any) -> Iterator[str]:
    """Give all texts of a config."""
    if isinstance(section, Mapping):
        section = list(section.values())
    if isinstance(section, list | tuple):
        for value in section:
            yield from _values(value)
    elif isinstance(section, str):
        yield section


def named_files(plan: SurveyPlan) -> list[str]:
    """Files that the config names: tables, lists, labels, weights; none that the workflow makes."""
    config = plan.config.model_dump(mode="json")
    folders = [path for shard in plan.shards for path in plan.source_files(shard)]
    folders += plan.list_files()
    named = [text for text in {*_values(config), *folders} if not is_remote(text)]
    return sorted(p for p in named if _is_given(plan, p) and (p in folders or _size(p) is not None))


def _size(path: str) -> int | None:
    """Bytes of a file; none where there is none, or where no file can bear the name."""
    try:
        info = Path(path).stat()
    except (OSError, ValueError):
        return None
    return info.st_size if stat.S_ISREG(info.st_mode) else None


def _is_given(plan: SurveyPlan, path: str) -> bool:
    return plan.results not in Path(path).parents


def image_files(plan: SurveyPlan) -> list[str]:
    """Local images, masks and weight maps that the survey is delivered as."""
    found = {path for path in plan.versions if _is_given(plan, path)}
    for path in () if plan.is_tiles else plan.slices.values():
        kinds = ("image_", "mask_", "weight_")
        names = [name for name in pq.read_schema(path).names if name.startswith(kinds)]
        for column in pq.read_table(path, columns=names).columns:
            texts = [text for text in pc.unique(column).to_pylist() if not is_remote(text)]
            found |= {str(split_extension(text)[0]) for text in texts}
    return sorted(found - set(named_files(plan)))


# Digests


def path_digest(path: Path) -> str:
    """Sha256 of a file; of a folder, over the names and digests of its files."""
    if not path.is_dir():
        return file_digest(path)
    files = sorted(one for one in path.rglob("*") if one.is_file())
    parts = [f"{one.relative_to(path).as_posix()} {file_digest(one)}\n" for one in files]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def rows_digest(path: Path) -> str:
    """Sha256 of the rows of a Parquet file, without `run_id`: by which run is no matter here.

    Names and types of the columns and the row groups count, metadata and compression do not.
    """
    total = hashlib.sha256()
    with pq.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if not name.endswith("run_id")]
        for name in names:
            total.update(f"{name} {file.schema_arrow.field(name).type}\n".encode())
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=names):
            # Nulls and values apart: what lies in the memory of a null is anything.
            columns = [part for one in batch.columns for part in (_valid(one), _filled(one))]
            parts = pa.record_batch(columns, names=list(map(str, range(len(columns)))))
            total.update(parts.serialize())
    return total.hexdigest()


def _valid(column: pa.Array) -> pa.Array:
    return column.is_valid().cast(pa.uint8())


def _filled(column: pa.Array) -> pa.Array:
    """Put zero, or nothing, in the place of nulls; booleans as bytes, not as bits."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _filled(column.dictionary_decode())
    if pa.types.is_boolean(kind):
        return _filled(column.cast(pa.uint8()))
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return pc.fill_null(column, pa.scalar(0, pa.int8()).cast(kind))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pc.fill_null(column, "")
    return column


def sidecar_digest(path: Path) -> str:
    """Digest of a network's weights, of the sidecar beside it."""
    try:
        return parse_json(path.read_bytes())["model_id"]
    except (KeyError, TypeError):
        raise ValueError("it is not the sidecar of a network") from None


class Digests:
    """Digests of many files, each read again only when its size or time has changed.

    Parameters
    ----------
    memory : path
        JSON file of what is known from earlier runs.
    """

    def __init__(self, memory: Path):
        self._memory = memory
        self._known = read_memory(memory) or {}
        self._now: dict[str, list] = {}

    def of(self, paths: Iterable[str], digest: Callable[[Path], str]) -> dict[str, dict]:
        """Give `bytes` and `sha256` of each file; `missing` or `unreadable` where it is so."""
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(lambda path: self._one(path, digest), paths := list(paths))
            return dict(zip(paths, found, strict=True))

    def _one(self, path: str, digest: Callable[[Path], str]) -> dict:
        file = Path(path)
        try:
            info = file.stat()
            if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
                return {"unreadable": "neither a file nor a folder"}  # a pipe would never end
            mark = [info.st_size, info.st_mtime_ns]
            known = self._known.get(path)
            if known is None or known[:2] != mark or file.is_dir():
                known = [*mark, digest(file)]
        except FileNotFoundError:
            return {"missing": True}
        except (OSError, ValueError, pa.ArrowException) as error:
            return {"unreadable": str(error)}
        self._now[path] = known
        return {"bytes": known[0], "sha256": known[2]}

    def remember(self) -> None:
        """Write down what is known now."""
        if self._now != self._known:
            write_json(self._memory, self._now, indent=None)


# The record


def inputs(plan: SurveyPlan, digests: Digests) -> dict:
    """Digests of all that the run was given, and what is left out of them and why."""
    named, images = named_files(plan), image_files(plan)
    left_out = _too_much(images, plan.config.provenance)
    found = digests.of(named if left_out else [*named, *images], path_digest)
    return {"files": found, "left_out": left_out}


def _too_much(images: list[str], most: Provenance) -> str | None:
    """Say why images are not digested, if they are not."""
    if len(images) > most.most_files:
        return f"{len(images):,} images are not digested: provenance.most_files = {most.most_files}"
    size = sum(_size(path) or 0 for path in images) / 1e9
    if size > most.most_gigabytes:
        return (
            f"{len(images):,} images of {size:,.1f} GB are not digested: "
            f"provenance.most_gigabytes = {most.most_gigabytes:g}"
        )
    return None


def outputs(results: Path, tasks: Iterable[str], digests: Digests) -> dict[str, str]:
    """Digests of what a run has made, by path under its results.

    Of a network that of its weights, of a Parquet file of the catalog that of its rows. Properties
    and `partitions.json` hold digests of whole files, which tell in which run rows were predicted.
    """
    catalog = [p for p in (results / "catalog").rglob("*") if p.is_file() and _is_result(p)]
    kinds = {
        sidecar_digest: [p for t in tasks for p in results.glob(f"models/{t}/fold*.json")],
        file_digest: [results / f"metrics/{task}.json" for task in tasks]
        + [path for path in catalog if path.suffix != ".parquet"],
        rows_digest: [path for path in catalog if path.suffix == ".parquet"],
    }
    found: dict[str, dict] = {}
    for digest, paths in kinds.items():
        found |= digests.of(map(str, paths), digest)
    return {
        Path(path).relative_to(results).as_posix(): one["sha256"]
        for path, one in sorted(found.items())
        if "sha256" in one
    }


def _is_result(path: Path) -> bool:
    is_ours = path.name[0] not in "._" and not path.name.endswith(DAMAGED)
    return is_ours and not path.name.endswith(("properties", MANIFEST))


def record(plan: SurveyPlan) -> Path:
    """Write `runs/{run_id}.json`, and `runs/{run_id}.diff` if the code was changed; give its path.

    A run of the same code, config and environment on more data has the same name, and its record
    takes the place of the earlier one, as its catalog does. Passwords, signatures of URLs and
    literal secrets of options are left out; `not_recorded` names the keys that held them.
    """
    config = plan.config.model_dump(mode="json")
    recorded = recorded_config(config)
    facts = run_facts(config)
    path = plan.results / "runs" / f"{facts['luneta.run_id']}.json"
    digests = Digests(plan.index / MEMORY)
    content = {
        "facts": facts,
        "config": recorded,
        "not_recorded": left_out(config, recorded),
        "environment": {"lock": lock_name(), "packages": packages()},
        "changes": _changes(facts, path.with_suffix(".diff")),
        "inputs": inputs(plan, digests),
        "outputs": outputs(plan.results, plan.tasks, digests),
        "taken_over": taken_over(plan),
    }
    digests.remember()
    write_json(path, content)
    return path


def is_recorded(results: Path, name: str) -> bool:
    """Whether the record of a run is there, and the changes of its code beside it."""
    path = results / "runs" / f"{name}.json"
    content = read_memory(path)
    if content is None:
        return False
    changes = content["changes"]
    return not changes or not changes["file"] or path.with_name(changes["file"]).exists()


def lock_name() -> str | None:
    """Name of the file of pinned requirements that is installed; None if it is none of ours."""
    for name in LOCKS:
        lock = REPOSITORY / "envs" / name
        if lock.is_file() and file_digest(lock) == environment_digest():
            return name
    return None


def _changes(facts: Mapping[str, str], path: Path) -> dict | None:
    """Keep the changes of the code since the commit beside the record."""
    if facts["luneta.git_dirty"] != "true":
        return None
    patch = code_changes()
    found = {"sha256": hashlib.sha256(patch).hexdigest(), "bytes": len(patch), "file": None}
    if len(patch) > MOST_CHANGES:
        return found
    with atomic_path(path) as temporary:
        temporary.write_bytes(patch)
    return {**found, "file": path.name}
