"""docs/catalog.md says what the code does, and its queries run."""

import re
import runpy
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from catalog_files import CLASSES, arguments, write_shard
from luneta.catalog import candidates, write
from luneta.catalog.read import partition_files
from luneta.config import Candidates

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/catalog.md").read_text()
DOCUMENT = runpy.run_path(str(ROOT / "scripts/document_catalog.py"))
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
SQL = re.findall(r"```sql\n(.*?)```", TEXT, re.DOTALL)
LENSES = ["nolens", "lens"]


def test_the_tables_are_those_of_the_code():
    assert DOCUMENT["page"](TEXT) == TEXT, "run make schema"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a small catalog under the name of the demo's."""
    root = tmp_path_factory.mktemp("docs")
    shards = [
        write_shard(root, name, [f"{name}_{i}" for i in range(20)], tiles=[name] * 20)
        for name in ("demo_0", "demo_1")
    ]
    for shard in shards:
        table = pq.read_table(shard["lens"])
        names = [
            name.replace(f"lens_{CLASSES[0]}_", "lens_nolens_").replace(
                f"lens_{CLASSES[1]}_", "lens_lens_"
            )
            for name in table.column_names
        ]
        pq.write_table(table.rename_columns(names), shard["lens"])
    given = arguments(root, shards)
    folder = root / "results/demo/catalog"
    given["outputs"] = {name: folder / path.name for name, path in given["outputs"].items()}
    given["settings"]["survey"] = "demo"
    given["settings"]["tasks"]["lens"]["classes"] = LENSES
    given["settings"]["catalog"]["rows_per_partition"] = 12
    write.run(**given)
    labels = pq.read_table(shards[0]["objects"], columns=["object_id"])
    labels = labels.append_column("label", [["lens"] * len(labels)])
    pq.write_table(labels, root / "labels.parquet")
    settings = {"task_name": "lens", "positive": "lens", "survey": "demo", "keep": {}}
    settings |= Candidates().model_dump(mode="json")
    list_of = folder / "lens_candidates.parquet"
    candidates.run(given["outputs"]["collection"], root / "labels.parquet", list_of, settings)
    return root


def test_there_are_ten_queries():
    numbers = re.findall(r"^\*\*(\d+)\. .*\((LSDB|DuckDB)\)", TEXT, re.MULTILINE)
    assert [int(number) for number, _ in numbers] == list(range(1, 11))


@pytest.mark.filterwarnings("ignore")
def test_the_python_queries_run(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    found = {}
    for code in PYTHON:
        exec(code, found)
    shown = capsys.readouterr().out
    assert "40 objects in" in shown
    assert len(found["around"]) >= 1
    assert len(found["matched"]) == len(found["others"])
    assert (root / "leaf.vot").exists()


@pytest.mark.parametrize("query", SQL, ids=lambda query: query.splitlines()[0][:30])
def test_the_sql_queries_run(root, monkeypatch, query):
    monkeypatch.chdir(root)
    rows = duckdb.sql(query).fetchall()
    assert bool(rows) != ("out_of_date" in query)


def test_rows_of_another_model_are_out_of_date(root, monkeypatch):
    monkeypatch.chdir(root)
    leaf = partition_files(root / "results/demo/catalog/collection.properties")[0]
    before = leaf.read_bytes()
    table = pq.read_table(leaf, partitioning=None)
    number = table.schema.get_field_index("lens_model_id")
    old = table.set_column(number, table.schema.field(number), [["old"] * len(table)])
    pq.write_table(old, leaf)
    (query,) = [query for query in SQL if "out_of_date" in query]
    assert [(row[0], row[2]) for row in duckdb.sql(query).fetchall()] == [("old", len(table))]
    leaf.write_bytes(before)
