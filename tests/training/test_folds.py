import json

import pyarrow.parquet as pq
import pytest

from luneta.config import ConfigError
from luneta.training import folds


@pytest.fixture
def split(tmp_path, survey, task_settings):
    """A function that splits the survey by the text of a label table."""

    def run(labels, shards=("a", "b"), **task):
        settings = {"task": {**task_settings(), **task}, "shards": list(shards), "seed": 1}
        (tmp_path / "labels.csv").write_text(labels)
        quality = [survey / f"{name}.parquet" for name in shards]
        folds.run([tmp_path / "labels.csv"], quality, tmp_path / "split.parquet", settings)
        return pq.read_table(tmp_path / "split.parquet")

    return run


def test_rows_point_at_the_cutout(split, survey):
    table = split((survey / "labels.csv").read_text())
    assert table.column_names == ["object_id", "shard", "row", "label", "fold"]
    assert table.num_rows == sum(i % 5 != 0 for i in range(96))
    for entry in table.to_pylist():
        first, last = (0, 48) if entry["shard"] == "a" else (48, 96)
        usable = [f"galaxy{i}" for i in range(first, last) if i % 5]
        assert usable[entry["row"]] == entry["object_id"]
    members = {(entry["label"], entry["fold"]) for entry in table.to_pylist()}
    assert members == {("bar", 0), ("bar", 1), ("spot", 0), ("spot", 1)}
    assert json.loads(table.schema.metadata[b"counts"])["not_usable"] == 20


def test_new_labels_move_no_object(split, survey):
    text = (survey / "labels.csv").read_text()
    few = split("\n".join(text.split("\n")[:49]), shards=("a",))
    many = split(text)
    before, after = (
        dict(zip(t["object_id"].to_pylist(), t["fold"].to_pylist(), strict=True))
        for t in (few, many)
    )
    assert len(after) > len(before) > 30
    assert {name: after[name] for name in before} == before


def test_fold_is_even_and_fixed():
    counts = [0, 0, 0]
    for i in range(3000):
        counts[folds.fold_of(f"object{i}", 3, 1)] += 1
    assert max(counts) - min(counts) < 150
    # literal values: changing the rule would move every survey's objects
    assert [folds.fold_of(name, 5, 1) for name in ("a", "b", "c", "J1234+5678")] == [4, 4, 4, 2]


def test_left_out_labels_are_counted(split, survey):
    text = (survey / "labels.csv").read_text()
    text += "galaxy1,bar\ngalaxy2,spot\nelsewhere,bar\ngalaxy3,unsure\ngalaxy4,\ngalaxy7,round\n"
    table = split(text, ignore=["unsure"], merge={"spot": ["round"]})
    counts = json.loads(table.schema.metadata[b"counts"])
    assert counts["conflicting"] == 2  # galaxy1 is a spot, galaxy2 a bar
    assert (counts["absent"], counts["ignored"], counts["without_label"]) == (1, 1, 1)
    names = table["object_id"].to_pylist()
    assert "galaxy1" not in names and "galaxy7" in names
    assert counts["used"] == len(names) == len(set(names))


def test_unknown_label_is_explained(split, survey):
    with pytest.raises(ConfigError, match=r"labels\.csv: label 'blob'.*'bar', 'spot'.*ignore"):
        split("object_id,label\ngalaxy1,blob\n")


def test_missing_column_is_explained(split, survey):
    with pytest.raises(ConfigError, match="label_column = 'label'.*has.*'kind'"):
        split("object_id,kind\ngalaxy1,bar\n")


def test_class_smaller_than_folds(split, survey):
    rows = "".join(f"galaxy{i},bar\n" for i in range(0, 96, 2))
    with pytest.raises(ConfigError, match="class 'spot' has 1 .*training.folds = 2"):
        split("object_id,label\n" + rows + "galaxy1,spot\n")


def test_names_keep_leading_zeros(tmp_path, task_settings):
    import pyarrow as pa

    names = [f"00{i}" for i in range(40)]
    table = pa.table({"object_id": names, "usable": [True] * 40})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = "".join(f"{n},{'bar' if int(n) % 2 else 'spot'}\n" for n in names)
    (tmp_path / "labels.csv").write_text("object_id,label\n" + rows)
    settings = {"task": task_settings(), "shards": ["a"], "seed": 1}
    quality, out = [tmp_path / "a.parquet"], tmp_path / "split.parquet"
    folds.run([tmp_path / "labels.csv"], quality, out, settings)
    assert pq.read_table(out)["object_id"].to_pylist() == names
