"""Digests of what a run has made."""

import hashlib
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_files import arguments, write_shard
from luneta.catalog.write import run
from luneta.config import Provenance
from luneta.plan.runs import Digests, _too_much, outputs, path_digest, rows_digest

COLUMNS = {
    "object_id": pa.array([f"g{n}" for n in range(7)]),
    "flux": pa.array([1.5, None, 0.0, -2.0, float("nan"), 3.0, 4.0], pa.float32()),
    "flags": pa.array([0, 1, None, 3, 4, 5, 6], pa.int32()),
    "star": pa.array([True, False, None, True, True, False, False]),
    "label": pa.array(["a", None, "", "b", "a", "a", "b"]).dictionary_encode(),
    "lens_run_id": pa.array(["first"] * 7),
    "box": pa.array([[1, 2], None, [], [3], [4], [5], [6]], pa.list_(pa.int16())),
}


def write(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)
    return rows_digest(path)


def test_rows_have_one_digest_however_they_are_written(tmp_path):
    digest = write(tmp_path / "a.parquet", COLUMNS)
    assert write(tmp_path / "b.parquet", COLUMNS, compression="zstd") == digest
    later = {**COLUMNS, "lens_run_id": pa.array(["second"] * 7)}
    assert write(tmp_path / "c.parquet", later) == digest
    # what lies in the memory of a null is no matter
    values = pa.array([1.5, 9.0, 0.0, -2.0, float("nan"), 3.0, 4.0], pa.float32())
    validity = pa.array([True, False, True, True, True, True, True])
    hidden = pa.Array.from_buffers(pa.float32(), 7, [validity.buffers()[1], values.buffers()[1]])
    assert write(tmp_path / "d.parquet", {**COLUMNS, "flux": hidden}) == digest
    table = pa.table(COLUMNS).replace_schema_metadata({"luneta.run_id": "second"})
    pq.write_table(table, tmp_path / "e.parquet")
    assert rows_digest(tmp_path / "e.parquet") == digest


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("flux", pa.array([1.5, 0.0, 0.0, -2.0, float("nan"), 3.0, 4.0], pa.float32())),
        ("flux", COLUMNS["flux"].cast(pa.float64())),
        ("flags", pa.array([0, 1, None, 3, 4, 5, 7], pa.int32())),
        ("star", pa.array([True, False, False, True, True, False, False])),
        ("object_id", pa.array([f"g{n}" for n in (1, 0, 2, 3, 4, 5, 6)])),
        ("label", pa.array(["a", "", "", "b", "a", "a", "b"]).dictionary_encode()),
        ("box", pa.array([[1, 2], [], [], [3], [4], [5], [6]], pa.list_(pa.int16()))),
    ],
)
def test_other_rows_have_another_digest(tmp_path, name, values):
    digest = write(tmp_path / "a.parquet", COLUMNS)
    assert write(tmp_path / "b.parquet", {**COLUMNS, name: values}) != digest
    renamed = {("other" if key == name else key): column for key, column in COLUMNS.items()}
    assert write(tmp_path / "c.parquet", renamed) != digest


def test_files_are_read_again_only_when_they_have_changed(tmp_path):
    one, folder = tmp_path / "one", tmp_path / "folder"
    one.write_bytes(b"first")
    folder.mkdir()
    (folder / "part").write_bytes(b"x")
    asked = []

    def digest(path):
        asked.append(path.name)
        return path_digest(path)

    def all_of():
        digests = Digests(tmp_path / "memory.json")
        found = digests.of([str(one), str(folder), str(tmp_path / "none")], digest)
        digests.remember()
        return found

    found = all_of()
    assert found[str(one)] == {"bytes": 5, "sha256": hashlib.sha256(b"first").hexdigest()}
    assert found[str(tmp_path / "none")] == {"missing": True}
    assert sorted(asked) == ["folder", "one"]
    assert all_of() == found
    assert sorted(asked) == ["folder", "folder", "one"]  # a folder's own time tells nothing
    (folder / "part").write_bytes(b"y")
    one.write_bytes(b"other")
    again = all_of()
    assert again[str(one)]["sha256"] == hashlib.sha256(b"other").hexdigest()
    assert again[str(folder)]["sha256"] != found[str(folder)]["sha256"]


def catalog_of_run(folder, name):
    folder.mkdir()
    shard = write_shard(folder, "north", ["a", "b"])
    for task in ("lens", "morphology"):
        table = pq.read_table(shard[task])
        number = table.schema.get_field_index(f"{task}_run_id")
        named = table.set_column(number, f"{task}_run_id", pa.array([name] * 2))
        pq.write_table(named, shard[task])
    run(**arguments(folder, [shard]))
    return outputs(folder, [], Digests(folder / "none.json"))


def test_in_which_run_rows_were_predicted_is_no_difference(tmp_path):
    found = catalog_of_run(tmp_path / "one", "0" * 16)
    assert found == catalog_of_run(tmp_path / "other", "1" * 16)
    assert "catalog/test/partition_info.csv" in found
    assert len([name for name in found if "/dataset/" in name]) >= 2


def test_names_that_no_file_can_have_are_no_error(tmp_path):
    images = ["n" * 300, "nul\0"]
    assert _too_much(images, Provenance()) is None
    found = Digests(tmp_path / "memory.json").of(images, path_digest)
    assert "name too long" in found[images[0]]["unreadable"]
    assert "null" in found[images[1]]["unreadable"]


def test_a_pipe_or_a_device_among_the_inputs_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    paths = [str(tmp_path / name) for name in ("pipe", "zero")]
    found = Digests(tmp_path / "memory.json").of(paths, path_digest)
    assert found == dict.fromkeys(paths, {"unreadable": "neither a file nor a folder"})
