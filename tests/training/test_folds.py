import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luneta.config import ConfigError, Question
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
    names = [f"00{i}" for i in range(40)]
    table = pa.table({"object_id": names, "usable": [True] * 40})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = "".join(f"{n},{'bar' if int(n) % 2 else 'spot'}\n" for n in names)
    (tmp_path / "labels.csv").write_text("object_id,label\n" + rows)
    settings = {"task": task_settings(), "shards": ["a"], "seed": 1}
    quality, out = [tmp_path / "a.parquet"], tmp_path / "split.parquet"
    folds.run([tmp_path / "labels.csv"], quality, out, settings)
    assert pq.read_table(out)["object_id"].to_pylist() == names


def test_whole_numbers_that_a_table_keeps_as_floats(tmp_path, task_settings):
    rows = {"object_id": [7.0, 2.0**59, None], "label": [1.0, 0.0, 1.0]}
    pq.write_table(pa.table(rows), tmp_path / "labels.parquet")
    task = {**task_settings(), "classes": ["0", "1"], "kind": "binary"}
    found = folds.read_labels([tmp_path / "labels.parquet"], Question(**task))
    assert found.classes == {"7": "1", "576460752303423488": "0"}
    assert found.counts["without_label"] == 1


def quality_table(**columns):
    names = ("object_id", "usable", "masked_fraction", "edge_distance")
    return pa.table({name: columns[name] for name in names if name in columns})


def test_of_two_placements_the_best_is_trained_on(tmp_path):
    first = quality_table(
        object_id=["x", "y", "z", "w"],
        usable=[True, True, False, True],
        masked_fraction=[0.2, 0.0, 0.0, 0.0],
        edge_distance=[50.0, 9.0, 80.0, 5.0],
    )
    second = quality_table(
        object_id=["v", "x", "y", "z"],
        usable=[False, True, True, True],
        masked_fraction=[0.0, 0.1, 0.0, 0.5],
        edge_distance=[9.0, 4.0, 8.0, 1.0],
    )
    for shard, table in (("a", first), ("b", second)):
        pq.write_table(table, tmp_path / f"{shard}.parquet")
    rows = folds.read_rows([tmp_path / "a.parquet", tmp_path / "b.parquet"], ["a", "b"])
    assert rows == {"x": ("b", 0), "y": ("a", 1), "z": ("b", 2), "w": ("a", 2), "v": ("b", -1)}


def test_an_object_in_two_shards_is_in_the_split_once(tmp_path, task_settings):
    names = [f"galaxy{i}" for i in range(60)]
    distances = {"a": [10.0 + i % 2 for i in range(60)], "b": [10.5] * 60}
    for shard, edge in distances.items():
        table = quality_table(
            object_id=names, usable=[True] * 60, masked_fraction=[0.0] * 60, edge_distance=edge
        )
        pq.write_table(table, tmp_path / f"{shard}.parquet")
    labels = [f"{name},{('bar', 'spot')[i // 2 % 2]}" for i, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("\n".join(["object_id,label", *labels]))
    settings = {"task": task_settings(), "shards": ["a", "b"], "seed": 1}
    quality = [tmp_path / f"{shard}.parquet" for shard in "ab"]
    folds.run([tmp_path / "labels.csv"], quality, tmp_path / "split.parquet", settings)
    split = pq.read_table(tmp_path / "split.parquet").to_pandas()
    assert sorted(split["object_id"]) == sorted(names)
    assert set(split["shard"][split["object_id"].isin(names[::2])]) == {"b"}
    assert set(split["shard"][split["object_id"].isin(names[1::2])]) == {"a"}
    expected = [folds.fold_of(name, 2, 1) for name in split["object_id"]]
    assert split["fold"].tolist() == expected
