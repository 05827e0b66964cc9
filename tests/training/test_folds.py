import json
import logging
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from luneta.config import ConfigError, Question, Training
from luneta.training import folds
from luneta.training.data import read_split, training_part

FOLD_OF_KEY = {"0": 0, "1": 1, "holdout": -1}


@pytest.fixture
def split(tmp_path, survey, task_settings):
    """A function that splits the survey by the text of a label table."""

    def run(labels, shards=("a", "b"), objects=(), training=None, **task):
        task = {**task_settings(**(training or {})), **task}
        given = {"task": task, "shards": list(shards), "seed": 1}
        (tmp_path / "labels.csv").write_text(labels)
        quality = [survey / f"{name}.parquet" for name in shards]
        folds.run([tmp_path / "labels.csv"], quality, tmp_path / "split.parquet", given, objects)
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


def test_folds_are_stratified_as_far_as_chance_goes():
    """20,000 names of two classes, 1 in 20: counts of each class and fold by a chi-square test."""
    names = [f"J{i:05d}" for i in range(20_000)]
    rare = np.arange(20_000) % 20 == 0
    fold = folds.deal(names, Training(weights="none", folds=5, holdout=0.2), 1)
    share = np.array([0.2] + 5 * [0.16])
    counts = np.array([[(fold[c] == k).sum() for k in range(-1, 5)] for c in (rare, ~rare)])
    assert counts.tolist() == [
        [211, 154, 164, 155, 171, 145],
        [3717, 3126, 2983, 3033, 3052, 3089],
    ]
    for row in counts:
        expected = row.sum() * share
        statistic = ((row - expected) ** 2 / expected).sum()
        assert 0.01 < chi2.sf(statistic, df=5) < 0.99


def test_holdout_is_fixed_and_a_larger_one_holds_a_smaller():
    names = [f"object{i}" for i in range(5000)]
    held = {f: {n for n in names if folds.in_holdout(n, f, 1)} for f in (0.0, 0.1, 0.3)}
    assert held[0.0] == set() and held[0.1] < held[0.3]
    assert abs(len(held[0.1]) - 500) < 4 * np.sqrt(450)
    kept = [n for n in names if n not in held[0.3]]
    with_holdout = folds.deal(kept, Training(weights="none", folds=4, holdout=0.3), 1)
    assert with_holdout.tolist() == [folds.fold_of(n, 4, 1) for n in kept]


def test_holdout_is_in_no_training_part(split, survey, tmp_path):
    table = split((survey / "labels.csv").read_text(), training={"holdout": 0.3})
    place = dict(zip(table["object_id"].to_pylist(), table["fold"].to_pylist(), strict=True))
    held = {name for name, fold in place.items() if fold == -1}
    assert held == {name for name in place if folds.in_holdout(name, 0.3, 1)}
    assert 10 < len(held) < 40
    objects = read_split(tmp_path / "split.parquet", ["bar", "spot"])
    parts = [set(training_part(objects, fold).ids) for fold in (0, 1)]
    assert parts[0] == {name for name, fold in place.items() if fold == 1}
    assert parts[1] == {name for name, fold in place.items() if fold == 0}
    assert parts[0] and parts[1] and not held & (parts[0] | parts[1])


def test_counts_of_each_class_and_fold_are_told(split, survey):
    table = split((survey / "labels.csv").read_text(), training={"holdout": 0.3})
    told = json.loads(table.schema.metadata[b"members"])
    assert list(told["bar"]) == ["0", "1", "holdout"]
    entries = [(e["label"], e["fold"]) for e in table.to_pylist()]
    assert told == {
        name: {key: entries.count((name, fold)) for key, fold in FOLD_OF_KEY.items()}
        for name in ("bar", "spot")
    }


def test_holdout_that_lacks_a_class(split, survey):
    with pytest.raises(ConfigError, match=r"none in the hold-out: raise training.holdout = 0.001"):
        split((survey / "labels.csv").read_text(), training={"holdout": 0.001})


def test_fold_that_lacks_a_class(split, survey):
    bars = "".join(f"galaxy{i},bar\n" for i in range(0, 96, 2))
    alike = [i for i in range(96) if i % 5 and folds.fold_of(f"galaxy{i}", 2, 1) == 0 and i % 2]
    spots = "".join(f"galaxy{i},spot\n" for i in alike[:3])
    with pytest.raises(ConfigError, match="'spot' with 3 objects has none in fold 1 of 2: lower"):
        split("object_id,label\n" + bars + spots)


def test_same_folds_in_another_process():
    code = (
        "from luneta.config import Training; from luneta.training import folds; "
        "print(folds.deal(['a', 'b', 'galaxy é', '007'], "
        "Training(weights='none', folds=5, holdout=0.3), 7).tolist())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "random")
    }
    assert len(runs) == 1
    here = folds.deal(
        ["a", "b", "galaxy é", "007"], Training(weights="none", folds=5, holdout=0.3), 7
    )
    assert runs == {f"{here.tolist()}\n"}


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


NAMES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=40, unique=True)


@settings(max_examples=60, deadline=None)
@given(names=NAMES, seed=st.integers(0, 9), holdout=st.sampled_from([0.0, 0.3]), data=st.data())
def test_adding_names_moves_nobody(names, seed, holdout, data):
    dealt = Training(weights="none", folds=3, holdout=holdout)
    old = data.draw(st.lists(st.sampled_from(names), unique=True))
    everything = dict(zip(names, folds.deal(names, dealt, seed).tolist(), strict=True))
    assert folds.deal(old, dealt, seed).tolist() == [everything[name] for name in old]


@st.composite
def skies(draw):
    """Objects near one another around a pole, and across right ascension 0: (object,) each."""
    count = draw(st.integers(1, 25))
    steps = st.lists(st.integers(-6, 6), min_size=count, max_size=count)
    ra, dec = (np.array(draw(steps)) / 3600 for _ in range(2))
    lost = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    return np.where(lost, np.nan, ra % 360), dec + draw(st.sampled_from([0.0, 41.5]))


@settings(max_examples=100, deadline=None)
@given(sky=skies(), radius=st.sampled_from([0.5, 1.2, 2.5]))
def test_friends_of_friends_against_every_pair(sky, radius):
    """The groups are those which astropy's separations give when chains are followed by hand."""
    ra, dec = sky
    near = np.zeros((len(ra), len(ra)), bool)
    good = np.isfinite(ra)
    places = SkyCoord(ra[good], dec[good], unit="deg")
    near[np.ix_(good, good)] = places[:, None].separation(places[None, :]).arcsec <= radius
    reached = near | np.eye(len(ra), dtype=bool)
    for _ in range(len(ra)):
        reached = reached | (reached.astype(int) @ reached.astype(int) > 0)
    group = folds.friends_of_friends(ra, dec, radius)
    assert ((group[:, None] == group[None, :]) == reached).all()


@settings(max_examples=100, deadline=None)
@given(
    names=NAMES,
    seed=st.integers(0, 9),
    holdout=st.sampled_from([0.0, 0.3]),
    data=st.data(),
)
def test_groups_never_straddle_in_any_order(names, seed, holdout, data):
    dealt = Training(weights="none", folds=3, holdout=holdout)
    numbers = st.lists(st.integers(0, 4), min_size=len(names), max_size=len(names))
    group = np.array(data.draw(numbers))
    fold = folds.deal(names, dealt, seed)
    kept = folds.in_fold_of_anchor(names, fold, group, seed)
    for number in np.unique(group):
        here = group == number
        assert len(set(fold[here & kept])) == 1  # one fold; no group is lost whole
    alone = np.array([(group == number).sum() == 1 for number in group])
    assert kept[alone].all()
    # The order of the rows decides nothing.
    order = np.array(data.draw(st.permutations(range(len(names)))))
    shuffled = folds.in_fold_of_anchor([names[i] for i in order], fold[order], group[order], seed)
    assert (shuffled == kept[order]).all()


def write_positions(path, names, ra, dec):
    columns = {"object_id": pa.array(names), "ra": pa.array(ra), "dec": pa.array(dec)}
    pq.write_table(pa.table(columns), path)


@pytest.fixture
def pairs(tmp_path):
    """Lists of positions: galaxies 2i and 2i + 1 lie 2 arcsec apart, pairs a degree apart."""
    for shard, part in {"a": range(48), "b": range(48, 96)}.items():
        ra = [float(i // 2) for i in part]
        dec = [i % 2 * 2 / 3600 for i in part]
        write_positions(
            tmp_path / f"{shard}_objects.parquet", [f"galaxy{i}" for i in part], ra, dec
        )
    return [tmp_path / "a_objects.parquet", tmp_path / "b_objects.parquet"]


def test_near_duplicates_are_in_one_fold(split, survey, pairs, caplog):
    text = (survey / "labels.csv").read_text()
    with caplog.at_level(logging.WARNING):
        table = split(text, objects=pairs, training={"group_radius": 3.0})
    fold = {entry["object_id"]: entry["fold"] for entry in table.to_pylist()}
    assert all(fold[name] == folds.fold_of(name, 2, 1) for name in fold)
    usable = [i for i in range(96) if i % 5]
    both = [i for i in range(0, 96, 2) if i in usable and i + 1 in usable]
    apart = {
        i
        for i in both
        if folds.fold_of(f"galaxy{i}", 2, 1) != folds.fold_of(f"galaxy{i + 1}", 2, 1)
    }
    assert 10 < len(apart) < 28
    for i in both:
        assert (f"galaxy{i}" in fold) + (f"galaxy{i + 1}" in fold) == (1 if i in apart else 2)
    counts = json.loads(table.schema.metadata[b"counts"])
    assert counts["near_duplicate"] == len(apart)
    assert counts["used"] == len(usable) - len(apart) == table.num_rows
    # each pair is a bar and a spot
    assert counts["near_duplicate_conflicting"] == 2 * len(both)
    assert f"{2 * len(both)} objects have a near-duplicate of another class" in caplog.text


def test_a_smaller_radius_leaves_all_in(split, survey, pairs):
    text = (survey / "labels.csv").read_text()
    table = split(text, objects=pairs, training={"group_radius": 1.9})
    counts = json.loads(table.schema.metadata[b"counts"])
    assert (counts["near_duplicate"], counts["near_duplicate_conflicting"]) == (0, 0)
    assert table.num_rows == sum(i % 5 != 0 for i in range(96))


def test_near_duplicates_without_positions(split, survey, tmp_path):
    names, nowhere = [f"galaxy{i}" for i in range(96)], [None] * 96
    path = tmp_path / "nowhere.parquet"
    write_positions(path, names, pa.array(nowhere, pa.float64()), pa.array(nowhere, pa.float64()))
    with pytest.raises(ConfigError, match="group_radius = 3: none of .* has a position; name the"):
        split((survey / "labels.csv").read_text(), objects=[path], training={"group_radius": 3.0})


def grouped(rows):
    """A label table with the column `field`, from a function of the galaxy's number."""
    kinds = ("bar", "spot")
    lines = [f"galaxy{i},{kinds[i % 2]},{rows(i)}" for i in range(96)]
    return "\n".join(["object_id,label,field", *lines, ""])


def test_groups_of_a_column_share_a_fold(split):
    table = split(
        grouped(lambda i: "" if i < 20 else f"field{i // 4}"),
        training={"group_column": "field", "holdout": 0.2},
    )
    dealt = Training(weights="none", folds=2, holdout=0.2)
    for entry in table.to_pylist():
        number = int(entry["object_id"].removeprefix("galaxy"))
        key = entry["object_id"] if number < 20 else f"field{number // 4}"
        assert entry["fold"] == folds.deal([key], dealt, 1)[0]
    assert set(table["fold"].to_pylist()) == {-1, 0, 1}


def test_an_object_in_two_groups(split):
    text = grouped(lambda i: i // 4) + "galaxy9,spot,3\n"
    with pytest.raises(ConfigError, match="'galaxy9' is in two groups: .*'field' is '2' .* '3' in"):
        split(text, training={"group_column": "field"})


def test_missing_group_column(split, survey):
    with pytest.raises(ConfigError, match=r"training.group_column = 'field': .*has no such column"):
        split((survey / "labels.csv").read_text(), training={"group_column": "field"})


def test_contradicting_labels_are_named(split, survey, caplog):
    text = (survey / "labels.csv").read_text() + "galaxy1,bar\ngalaxy2,spot\n"
    with caplog.at_level(logging.WARNING):
        table = split(text)
    assert (
        "2 objects are labelled with two classes and left out: 'galaxy1', 'galaxy2'" in caplog.text
    )
    assert json.loads(table.schema.metadata[b"conflicting"]) == ["galaxy1", "galaxy2"]


def test_labels_of_which_none_has_a_cutout(split):
    rows = "".join(f"{i}.0,{('bar', 'spot')[i % 2]}\n" for i in range(9))
    expected = (
        r"id_column = 'object_id': 9 of 9 labelled objects have no cutout; the label tables name "
        r"'0.0', '1.0', '2.0', '3.0', '4.0', ..., the survey 'galaxy0', 'galaxy1', .*spell the"
    )
    with pytest.raises(ConfigError, match=expected):
        split("object_id,label\n" + rows)


def test_labels_without_any_shard(split):
    with pytest.raises(ConfigError, match="1 of 1 labelled objects.*the survey none of them"):
        split("object_id,label\ngalaxy1,bar\n", shards=())


def test_labels_spelt_otherwise(split, survey):
    rows = [f"{'GALAXY' if i > 9 else 'galaxy'}{i},{('bar', 'spot')[i % 2]}" for i in range(96)]
    expected = "86 of 96 labelled objects have no cutout.*86 differ in zeros, capitals"
    with pytest.raises(ConfigError, match=expected):
        split("\n".join(["object_id,label", *rows]))


def test_labels_of_a_larger_survey_are_no_error(split, survey, caplog):
    elsewhere = "".join(f"star{i},bar\n" for i in range(300))
    with caplog.at_level(logging.WARNING):
        table = split((survey / "labels.csv").read_text() + elsewhere)
    assert json.loads(table.schema.metadata[b"counts"])["absent"] == 300
    assert "300 of 396 labelled objects have no cutout" in caplog.text


def rejected_quality(path, usable, reasons):
    """A quality file of objects o0, o1 ... of which the last are rejected for these reasons."""
    names = [f"o{i}" for i in range(usable + len(reasons))]
    table = pa.table(
        {
            "object_id": names,
            "usable": [True] * usable + [False] * len(reasons),
            "reject_reason": pa.array([None] * usable + list(reasons), pa.string()),
        }
    )
    pq.write_table(table, path)
    return names


def test_where_labelled_objects_are_rejected_the_message_says_why(tmp_path, task_settings):
    far = [f"tile t has the same object_id {i}.5 arcsec away" for i in range(4)]
    reasons = [*far, *["the position lies outside every tile"] * 20, "x.fits is truncated"]
    names = rejected_quality(tmp_path / "a.parquet", 1, reasons)
    rows = [f"{name},{'bar' if i else 'spot'}" for i, name in enumerate(names)]  # o0 is usable
    (tmp_path / "labels.csv").write_text("\n".join(["object_id,label", *rows, ""]))
    settings = {"task": task_settings(), "shards": ["a"], "seed": 1}
    with pytest.raises(ConfigError) as refused:
        folds.run(
            [tmp_path / "labels.csv"],
            [tmp_path / "a.parquet"],
            tmp_path / "split.parquet",
            settings,
        )
    assert str(refused.value) == (
        "class 'bar' has 0 usable labelled objects in the folds, fewer than training.folds = 2, as "
        "25 of its labelled objects cannot be used (20: the position lies outside every tile; 4: "
        "tile t has the same object_id 0.5 arcsec away; 1: x.fits is truncated). Correct what "
        "rejects them; quality/*.parquet in the results has the reason of each"
    )


def test_where_all_labelled_objects_are_rejected_the_message_says_so(tmp_path, task_settings):
    names = rejected_quality(tmp_path / "a.parquet", 0, ["t.fits does not exist"] * 9 + ["far"])
    rows = [f"{name},{('bar', 'spot')[i % 2]}" for i, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("\n".join(["object_id,label", *rows, ""]))
    settings = {"task": task_settings(), "shards": ["a"], "seed": 1}
    quality, split = [tmp_path / "a.parquet"], tmp_path / "split.parquet"
    with pytest.raises(ConfigError) as refused:
        folds.run([tmp_path / "labels.csv"], quality, split, settings)
    assert str(refused.value) == (
        "none of 10 labelled objects can be used (9: t.fits does not exist; 1: far). Correct what "
        "rejects them; quality/*.parquet in the results has the reason of each"
    )


def test_a_class_that_would_be_too_small_without_its_rejects_needs_labels(tmp_path, task_settings):
    names = rejected_quality(tmp_path / "a.parquet", 40, [])
    rows = [f"{name},{'spot' if i else 'bar'}" for i, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("\n".join(["object_id,label", *rows, ""]))
    settings = {"task": task_settings(), "shards": ["a"], "seed": 1}
    with pytest.raises(ConfigError, match="class 'bar' has 1 usable .*: lower folds, add labels"):
        folds.run(
            [tmp_path / "labels.csv"],
            [tmp_path / "a.parquet"],
            tmp_path / "split.parquet",
            settings,
        )
