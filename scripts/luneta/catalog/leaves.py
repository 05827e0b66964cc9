"""Writing the files of a catalog that changed, and no others.

A *leaf* is a Parquet file of the catalog: a partition, the margin of one, or a part of the index.
The manifest holds, for each leaf, a digest of all that decides its content, and size and digest
of the file. A leaf is written again if what decides it has changed, or if the file is not as it
was written; and where the new file has the same bytes, the old one stays.

Rows come by shard and are wanted by leaf, so each shard puts its rows down once, a batch for each
leaf, in a file of a temporary folder; then each leaf takes its batches of all shards. Neither is
ever in memory with another of its kind, save for the threads.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from luneta.digests import file_digest
from luneta.files import (
    DAMAGED,
    TEMPORARY,
    DamagedFile,
    atomic_path,
    make_folder,
    read_json,
    temporary_name,
)

MANIFEST = "partitions.json"
SPILL = ".spill"


@dataclass(frozen=True)
class Leaf:
    """A Parquet file of the catalog.

    Attributes
    ----------
    path : str
        Relative to the folder of the catalog.
    made_of : str
        Digest of all that decides what it holds.
    """

    path: str
    made_of: str


def _about(path: Path) -> dict:
    """Size and digest of a file, as the manifest has them."""
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def small_files(folder: Path, catalogs: Sequence[str]) -> dict[str, dict]:
    """Tell size and digest, by path, of the files of catalogs that are no leaves."""
    paths = [path for name in catalogs for path in sorted((folder / name).rglob("*"))]
    small = [path for path in paths if path.is_file() and _is_small(path.name)]
    return {path.relative_to(folder).as_posix(): _about(path) for path in small}


def _is_small(name: str) -> bool:
    return not name.endswith((".parquet", DAMAGED)) and not name.startswith(".")


def _manifest(folder: Path | str) -> dict:
    """Read the manifest; nothing if it is lost or damaged."""
    try:
        found = read_json(Path(folder) / MANIFEST)
    except (OSError, DamagedFile):
        return {}
    return found if isinstance(found, dict) else {}


def read_manifest(folder: Path | str, part: str = "leaves") -> dict | list:
    """Read a part of the manifest, that of the leaves by path; nothing if it is lost or damaged."""
    return _manifest(folder).get(part, {})


def is_whole(path: Path, known: Mapping) -> bool:
    """Whether a file is as it was written, by size and digest."""
    try:
        return path.stat().st_size == known["bytes"] and file_digest(path) == known["sha256"]
    except OSError:
        return False


def lost_files(folder: Path | str) -> list[str]:
    """Name the files of a finished catalog that are missing, or of another size than written.

    Those of other content have been set aside by `luneta.outputs`.
    """
    folder = Path(folder)
    manifest = _manifest(folder)
    known = {**manifest.get("leaves", {}), **manifest.get("small", {})}
    if not known:
        return [MANIFEST]
    return [name for name, about in known.items() if _is_lost(folder / name, about)]


def _is_lost(path: Path, about: Mapping) -> bool:
    if about.get("rows") == 0:
        return path.exists()
    return not path.exists() or path.stat().st_size != about["bytes"]


class Spill:
    """Rows of all shards, by the leaf that wants them, in files of a temporary folder.

    Parameters
    ----------
    folder : path
        Of the catalog. The temporary folder in it is for this user alone; `clear` removes it.
    """

    def __init__(self, folder: Path):
        for old in (folder / SPILL, *folder.glob(f".*@{SPILL}")):  # of a job that was killed
            shutil.rmtree(old, ignore_errors=True)
        self._folder = folder / temporary_name(SPILL)
        self._places: dict[str, list[tuple[str, Path, int]]] = defaultdict(list)
        make_folder(folder)
        self._folder.mkdir(0o700)

    def put(self, shard: str, kind: str, parts: Iterable[tuple[str, pa.Table]]) -> list:
        """Write the rows of a shard; give what `note` takes. May run in any thread.

        Parameters
        ----------
        shard : str
            Its name.
        kind : str
            Of the leaves; all tables of a kind have the same columns.
        parts : iterable of (str, pyarrow.Table)
            Path of a leaf and the rows it gets.
        """
        path, places, writer = self._folder / kind / f"{shard}.arrow", [], None
        path.parent.mkdir(parents=True, exist_ok=True)
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        try:
            for number, (leaf, rows) in enumerate(parts):
                if writer is None:
                    writer = pa.ipc.new_file(path, rows.schema, options=options)
                writer.write_batch(rows.combine_chunks().to_batches()[0])
                places.append((leaf, shard, path, number))
        finally:
            if writer is not None:
                writer.close()
        return places

    def note(self, places: list) -> None:
        """Remember where the rows of a shard are."""
        for leaf, *place in places:
            self._places[leaf].append(tuple(place))

    def take(self, leaf: str) -> pa.Table | None:
        """Give the rows of a leaf, shards in the order of their names; none if there are none."""
        tables = list(self.each(leaf))
        return pa.concat_tables(tables) if tables else None

    def each(self, leaf: str) -> Iterator[pa.Table]:
        """Give the rows of a leaf, shard after shard."""
        for _, path, number in sorted(self._places.get(leaf, [])):
            with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
                yield pa.Table.from_batches([reader.get_batch(number)])

    def clear(self) -> None:
        """Remove all."""
        shutil.rmtree(self._folder, ignore_errors=True)


def sorted_by(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Sort rows by columns; equal ones stay in their order."""
    return table.sort_by([(name, "ascending") for name in names])


def split_rows(number: np.ndarray) -> Iterable[tuple[int, np.ndarray]]:
    """Group rows by the number of their leaf: number and rows (int64), in order of the numbers."""
    order = np.argsort(number, kind="stable")
    values, start = np.unique(number[order], return_index=True)
    return zip(values.tolist(), np.split(order, start[1:]), strict=True) if len(values) else ()


def write_leaf(folder: Path, leaf: Leaf, table: pa.Table, options: Mapping) -> dict:
    """Write a leaf, unless the file that is there has the same bytes.

    Parameters
    ----------
    folder : path
        Of the catalog.
    leaf : Leaf
        What is written.
    table : pyarrow.Table
        Its rows.
    options : mapping
        Of `pyarrow.parquet.write_table`.

    Returns
    -------
    dict
        For the manifest.
    """
    with atomic_path(folder / leaf.path, keep_equal=True) as temporary:
        pq.write_table(table, temporary, **options)
        return {"made_of": leaf.made_of, **_about(temporary), "rows": len(table)}


def remove_others(folder: Path, catalogs: Sequence[str], leaves: Iterable[str]) -> list[str]:
    """Remove the Parquet files of the catalogs in a folder that are no leaves (any more).

    Parameters
    ----------
    folder : path
        Of the collection.
    catalogs : sequence of str
        Names of the folders in it that may hold leaves.
    leaves : iterable of str
        Paths of those that stay.
    """
    wanted, removed = set(leaves), []
    for name in catalogs:
        for path in sorted((folder / name / "dataset").rglob("*.parquet")):
            if str(path.relative_to(folder)) not in wanted:
                path.unlink()
                removed.append(str(path.relative_to(folder)))
        for path in sorted((folder / name / "dataset").rglob(".*")):  # of a run that was killed
            if re.fullmatch(TEMPORARY, path.name) or path.name.endswith(".new"):
                path.unlink()
        for path in sorted((folder / name).rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
    return removed


def remove_catalogs(folder: Path, catalogs: Sequence[str]) -> None:
    """Remove catalogs that an earlier run made and the config no longer asks for."""
    for name in read_manifest(folder, "catalogs"):
        if name not in catalogs:
            shutil.rmtree(folder / name, ignore_errors=True)


def replace_if_changed(path: Path, content: bytes) -> None:
    """Write a file whole, unless it holds the same already."""
    with atomic_path(path, keep_equal=True) as temporary:
        temporary.write_bytes(content)
