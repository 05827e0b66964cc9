"""The figure of a list of candidates, and where its pictures are found."""

import numpy as np
import pandas as pd
import pytest

from luneta.cutouts.shard import write_shard
from luneta.reporting.candidates import SHOWN, candidates, read_candidates
from luneta.reporting.cutouts import Pictures


@pytest.fixture
def pictures(tmp_path):
    """Two shards; object b is in both."""
    paths = {}
    for shard, names in {"north": ["a", "b"], "south": ["b", "c", "d"]}.items():
        paths[shard] = tmp_path / f"{shard}.arrow"
        images = np.random.default_rng(1).normal(size=(len(names), 3, 8, 8)).astype(np.float32)
        flags = np.zeros(len(names), np.int32)
        write_shard(paths[shard], np.array(names, object), flags, images, ["g", "r", "i"], "flux")
    return Pictures(paths)


def listed(count, **columns):
    """A list whose probabilities fall from 0.9 to 0.5."""
    probability = np.linspace(0.9, 0.5, count)
    rows = pd.DataFrame(
        {
            "rank": np.arange(1, count + 1),
            "object_id": [f"object{n}" for n in range(count)],
            "tile": "north",
            "probability": probability,
            "probability_low": probability - 0.1,
            "probability_high": probability + 0.1,
            "expected_purity": pd.Series(probability).expanding().mean(),
            "outlier": False,
            "known_name": None,
        }
    )
    return rows.assign(**columns)


def texts(axes):
    return [(text.get_text(), text.get_color()) for text in axes.texts]


def test_objects_are_found_in_the_shard_that_is_named_first(pictures):
    assert pictures.find({"b": "south", "d": "north", "a": None, "nobody": "south"}) == {
        "b": ("south", 0), "d": ("south", 2), "a": ("north", 0),
    }  # fmt: skip
    assert pictures.find({"b": "elsewhere"}) == {"b": ("north", 1)}
    assert pictures.find({}) == {}


def test_known_ones_and_outliers_stand_out(pictures):
    rows = listed(3, object_id=["a", "b", "c"], outlier=[False, False, True],
                  known_name=[None, "SL2S J1", None])  # fmt: skip
    upper, lower = candidates(rows, pictures).axes
    assert texts(lower) == [
        ("1. 0.900\na", "black"), ("2. 0.700\nSL2S J1", "#0072B2"), ("3. 0.500\nc", "#D55E00"),
    ]  # fmt: skip
    assert len(lower.images) == 3
    assert upper.get_title(loc="left") == "3 candidates, of which 2 are expected to be true"
    purity = next(line for line in upper.lines if "purity" in line.get_label())
    np.testing.assert_allclose(purity.get_xydata(), [[1, 0.9], [2, 0.8], [3, 0.7]])


def test_of_a_long_list_the_best_are_shown(pictures):
    upper, lower = candidates(listed(SHOWN + 60), pictures).axes
    assert len(lower.texts) == SHOWN
    assert upper.get_xlim() == (1, SHOWN + 60)
    assert not lower.images  # the cutouts of these names are not there


def test_an_empty_list_says_so(pictures):
    (axes,) = candidates(listed(0), pictures).axes
    assert [text for text, _ in texts(axes)] == ["No object is probable enough to be listed."]


def test_a_written_list_is_read(results):
    root, arguments = results
    rows = read_candidates(arguments["candidates"]["lens"])
    assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
    assert rows["probability"].is_monotonic_decreasing and (rows["probability"] >= 0.5).all()
    assert set(rows["tile"]) == {"north", "south"}
