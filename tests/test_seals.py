"""No change of our own Parquet, Arrow and JSON files goes unseen."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luneta.files import DamagedFile, read_json, write_json
from luneta.parquet import open_parquet, parquet_schema, parquet_writer, read_parquet, write_parquet
from luneta.seals import BLOCK, BrokenSeal, Seal, check, seal

TABLE = pa.table(
    {
        "object_id": [f"o{n}" for n in range(40)],
        "x": np.random.default_rng(1).normal(size=40),
        "n": pa.array([None, 1] * 20),
    }
).replace_schema_metadata({"bands": "gri"})


def flips(raw: bytes):
    """Every bit of some bytes flipped, one at a time."""
    for position in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[position] ^= 1 << bit
            yield bytes(changed)


def is_found(raw: bytes) -> bool:
    try:
        found = Seal(lambda a, b: raw[a:b], len(raw))
        found.check()
    except BrokenSeal:
        return True
    return not found.is_there


@pytest.fixture
def written(tmp_path) -> Path:
    write_parquet(TABLE, tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def arrow_file(path: Path) -> Path:
    with pa.ipc.new_file(path, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=16)
    return path


def test_every_flipped_bit_of_a_parquet_file_is_found(written, tmp_path):
    """Or what is read is the same: where the seal's own mark is hit, the file reads as unsealed."""
    missed = [raw for raw in flips(written.read_bytes()) if not is_found(raw)]
    assert missed == []
    unsealed = []
    for raw in flips(written.read_bytes()):
        try:
            if not Seal(lambda a, b, raw=raw: raw[a:b], len(raw)).is_there:
                unsealed.append(raw)
        except BrokenSeal:
            pass
    assert len(unsealed) == 64  # the bits of the mark
    for raw in unsealed[::16]:
        (tmp_path / "u.parquet").write_bytes(raw)
        assert read_parquet(tmp_path / "u.parquet").equals(TABLE, check_metadata=True)


def test_every_flipped_bit_of_an_arrow_file_is_found(tmp_path):
    path = arrow_file(tmp_path / "t.arrow")
    seal(path)
    assert all(is_found(raw) for raw in flips(path.read_bytes()))


@pytest.mark.parametrize("make", [arrow_file, lambda path: write_parquet(TABLE, path) or path])
def test_every_length_cut_short_is_found(tmp_path, make):
    path = make(tmp_path / "t")
    if make is arrow_file:
        seal(path)
    raw = path.read_bytes()
    for length in range(len(raw)):
        with pytest.raises(BrokenSeal):
            Seal(lambda a, b, cut=raw[:length]: cut[a:b], length)


def test_garbled_stretches_are_found(written):
    raw, random_ = written.read_bytes(), random.Random(3)
    for _ in range(300):
        start = random_.randrange(len(raw))
        length = random_.randrange(1, 64)
        garbled = (
            raw[:start]
            + random_.randbytes(len(raw[start : start + length]))
            + raw[start + length :]
        )
        assert garbled == raw or is_found(garbled)


def test_other_readers_read_sealed_files(written):
    import duckdb
    import polars

    assert pq.read_table(written).equals(TABLE, check_metadata=True)
    assert polars.read_parquet(written)["x"].to_list() == TABLE["x"].to_pylist()
    rows = duckdb.sql(f"select object_id, n from '{written}'").fetchall()
    assert rows == list(zip(TABLE["object_id"].to_pylist(), TABLE["n"].to_pylist(), strict=True))


def test_a_sealed_arrow_file_reads_as_before(tmp_path):
    path = arrow_file(tmp_path / "t.arrow")
    seal(path, [1, 2])
    assert pa.ipc.open_file(pa.memory_map(str(path))).read_all().equals(TABLE)
    assert check(path)


def test_a_block_is_checked_only_when_asked_for(tmp_path):
    values = pa.table({"x": np.arange(BLOCK // 2)})  # four blocks
    with pa.ipc.new_file(tmp_path / "t.arrow", values.schema) as writer:
        writer.write_table(values)
    seal(tmp_path / "t.arrow", [BLOCK, 2 * BLOCK])
    raw = bytearray((tmp_path / "t.arrow").read_bytes())
    raw[3 * BLOCK + 5] ^= 1
    found = Seal(lambda a, b: bytes(raw[a:b]), len(raw))
    assert found.batch(1) == (BLOCK, 2 * BLOCK)
    found.check(0, 3 * BLOCK)
    with pytest.raises(BrokenSeal, match=f"bytes from {3 * BLOCK} is wrong"):
        found.check(3 * BLOCK, 3 * BLOCK + 1)


def test_a_damaged_file_is_set_aside_with_one_message(written):
    raw = bytearray(written.read_bytes())
    raw[100] ^= 4
    written.write_bytes(raw)
    with pytest.raises(DamagedFile) as error:
        read_parquet(written)
    assert str(error.value) == (
        f"{written} is damaged: the checksum of its bytes from 0 is wrong. It is set aside as "
        "t.parquet.damaged, which may be deleted. Run the same command again: the file is made "
        "again."
    )
    assert not written.exists()
    assert written.with_name("t.parquet.damaged").read_bytes() == raw


@pytest.mark.parametrize("read", [open_parquet, read_parquet, parquet_schema])
def test_every_reader_checks(written, read):
    written.write_bytes(written.read_bytes()[:-50])
    with pytest.raises(DamagedFile, match="its end is missing or altered"):
        read(written)


def test_a_file_that_changes_is_checked_again(written):
    read_parquet(written)
    raw = bytearray(written.read_bytes())
    raw[50] ^= 1
    written.write_bytes(raw)
    with pytest.raises(DamagedFile):
        read_parquet(written)


def test_a_file_from_elsewhere_is_read_as_it_is(tmp_path):
    pq.write_table(TABLE, tmp_path / "t.parquet")
    assert read_parquet(tmp_path / "t.parquet", ["n"]).equals(TABLE.select(["n"]))


def test_equal_tables_give_equal_bytes(written, tmp_path):
    with parquet_writer(tmp_path / "again.parquet", TABLE.schema) as writer:
        writer.write_table(TABLE)
    assert (tmp_path / "again.parquet").read_bytes() == written.read_bytes()


CONTENTS = [{"b": [1.5, None], "a": {"c": "é"}}, {}, [{"tile": "t1"}], []]


@pytest.mark.parametrize("indent", [2, None])
@pytest.mark.parametrize("content", CONTENTS)
def test_json_is_read_as_written(tmp_path, content, indent):
    path = tmp_path / "t.json"
    write_json(path, content, indent)
    assert read_json(path) == content
    seen = json.loads(path.read_text())
    assert re.fullmatch("crc32:[0-9a-f]{8}", seen.pop("checksum"))
    assert seen == (content if isinstance(content, dict) else {"content": content})


def test_json_from_elsewhere_is_read_as_it_is(tmp_path):
    (tmp_path / "t.json").write_text('{"a": "b"}')
    assert read_json(tmp_path / "t.json") == {"a": "b"}


@pytest.mark.parametrize("content", CONTENTS[:1] + CONTENTS[2:3])
def test_every_flipped_bit_of_json_is_found(tmp_path, content):
    path = tmp_path / "t.json"
    write_json(path, content, None)
    raw = path.read_bytes()
    for changed in [*flips(raw), *(raw[:length] for length in range(len(raw)))]:
        path.write_bytes(changed)
        with pytest.raises(DamagedFile, match="is damaged"):
            read_json(path)
