import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.image import imread

from luneta.reporting import figures, report, tables
from luneta.reporting.cutouts import Pictures, chosen_examples, composite, random_cutouts
from luneta.reporting.predictions import against_truth, balanced_accuracy, read_out_of_fold
from luneta.reporting.style import save
from luneta.reporting.summary import summary

CAPTIONS = Path(__file__).parents[2] / "workflow" / "report"
SURVEY_FIGURES = {"objects", "cutouts"}
TASK_FIGURES = {
    *("labels", "training", "confusion", "roc", "precision_recall", "calibration"),
    *("magnitude_size", "examples"),
}
CLASSES = ["round", "in_between", "cigar", "edge_on", "spiral"]


@pytest.fixture(scope="session")
def reported(results):
    report.run(**results[1])
    return results


@pytest.fixture
def found(results):
    return read_out_of_fold(results[1]["out_of_fold"]["morphology"], CLASSES, "multiclass")


def test_every_planned_figure_is_drawn(reported):
    root, arguments = reported
    names = {f"{name}.png" for name in (*SURVEY_FIGURES, "truth", "comparison")}
    names |= {f"{task}_{f}.png" for task in arguments["settings"]["tasks"] for f in TASK_FIGURES}
    assert {path.name for path in (root / "figures").iterdir()} == names
    for path in (root / "figures").iterdir():
        picture = imread(path)
        assert picture.shape[1] < 2600, path.name
        assert picture.std() > 0.01, path.name


def test_every_planned_figure_has_a_caption():
    names = {*SURVEY_FIGURES, *TASK_FIGURES, "truth", "comparison", "rejects", "scores", "workflow"}
    assert {path.stem for path in CAPTIONS.glob("*.rst")} == names
    for path in CAPTIONS.glob("*.rst"):
        assert len(path.read_text().split()) > 25, path.name


def test_tables_say_what_was_rejected_and_scored(reported):
    root, _ = reported
    rejects = (root / "report" / "rejects.html").read_text()
    assert "22 rejected objects" in rejects
    assert "2 rejected files" in rejects
    assert rejects.count("<td>the position lies outside every tile</td>") == 1 + tables.FIRST
    scores = (root / "report" / "scores.html").read_text()
    assert "average precision" in scores
    assert "±" in scores


def test_names_are_escaped_in_tables(tmp_path):
    row = {"kind": "file", "name": "<script>", "tile": None, "band": None, "reason": "a<b"}
    tables.write_rejects(tmp_path / "r.html", pa.Table.from_pylist([row]))
    assert "<script>" not in (tmp_path / "r.html").read_text()


def test_figures_are_the_same_bytes_each_time(found, tmp_path):
    for name in ("a", "b"):
        save(figures.roc(found), tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_summary_tells_the_numbers(results):
    root, arguments = results
    text = summary(root)
    content = json.loads(arguments["metrics"]["lens"].read_text())
    assert "600 objects in the source list: 578 usable, 22 rejected; 2 files" in text
    assert f"lens: balanced accuracy {content['mean']['balanced_accuracy']:.3f} ±" in text
    assert "against the hidden truth: lens 0." in text
    assert text.splitlines()[-1] == f"catalog: {arguments['catalog']}; report: {root / 'report'}"
    command = [sys.executable, "-m", "luneta.reporting.summary", str(root)]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == text


def test_a_survey_without_tasks_has_a_report(results, tmp_path):
    _, arguments = results
    empty = {name: {} for name in ("metrics", "out_of_fold", "splits", "histories")}
    changes = {"tasks": {}, "predicted": [], "keep": {}, "comparison": [], "truth": False}
    places = {"figures": str(tmp_path / "figures"), "report": str(tmp_path / "report")}
    settings = {**arguments["settings"], **changes, **places}
    report.run(**{**arguments, **empty, "truth": [], "settings": settings})
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {"objects.png", "cutouts.png"}


def test_missing_columns_are_said_in_words(found):
    figure = figures.magnitude_size(found.right, {"magnitude": None, "size": None})
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words == ["The source list has no magnitude.", "The source list has no size."]
    nothing = {"magnitude": ("magnitude", "mag", np.full(len(found.labels), np.nan)), "size": None}
    assert figures.magnitude_size(found.right, nothing)
    assert random_cutouts([])
    assert figures.truth_matrices({})


@pytest.mark.parametrize(
    ("keep", "magnitude", "size"),
    [
        (["half_light_radius", "magnitude_r"], "magnitude_r", "half_light_radius"),
        (["petrosian_radius", "radius_50"], None, "radius_50"),
        ([], None, None),
    ],
)
def test_kept_columns_are_found_by_name(keep, magnitude, size):
    assert report.kept_column(keep, "magnitude") == magnitude
    assert report.kept_column(keep, "size") == size


def test_truth_counts_leave_out_the_labelled():
    catalog = pa.table({"object_id": list("abcd"), "t_class": ["x", "y", "y", None]})
    truth = pa.table({"object_id": list("abcd"), "kind": ["x", "x", "y", "y"]})
    result = against_truth(catalog, "t", ["x", "y"], truth, {"b"})
    assert result.every.tolist() == [[1, 1], [0, 1]]
    assert result.unlabelled.tolist() == [[1, 0], [0, 1]]
    assert balanced_accuracy(result.every) == 0.75
    assert against_truth(catalog, "t", ["p", "q"], truth, set()) is None


def test_a_fold_without_a_class_can_be_drawn(results, tmp_path):
    path = results[1]["out_of_fold"]["lens"]
    table = pq.read_table(path).to_pandas()
    table = table[~((table["fold"] == 0) & (table["label"] == "lens"))]
    table.to_parquet(tmp_path / "o.parquet")
    found = read_out_of_fold(tmp_path / "o.parquet", ["nolens", "lens"], "binary")
    assert figures.roc(found)
    assert figures.precision_recall(found)


def test_examples_are_sorted_by_the_label(found):
    best, worst, unclear = chosen_examples(found, 2)
    assert set(found.labels[np.concatenate([best, worst, unclear])]) == {2}
    assert found.probabilities[best, 2].min() > found.probabilities[worst, 2].max()
    assert found.entropy[unclear[0]] == found.entropy[found.labels == 2].max()


def test_composites():
    image = np.zeros((3, 8, 8), np.float32)
    image[2, 4, 4] = 100
    red = composite(image, ["g", "r", "i"], "flux")
    assert red[4, 4, 0] > red[4, 4, 2]
    assert composite(image[::-1], ["i", "r", "g"], "flux")[4, 4, 0] > 0.5
    image[:, 0, 0] = np.nan
    assert np.ptp(composite(image, ["g", "r", "i"], "flux")[0, 0]) == 0
    grey = composite(image[2:], ["r"], "flux")
    assert grey.shape == (8, 8, 3)
    assert np.isfinite(grey).all()
    assert composite(image[:2], ["g", "i"], "flux").shape == (8, 8, 3)
    display = np.full((3, 8, 8), 51.0, np.float32)
    np.testing.assert_allclose(composite(display, ["red", "green", "blue"], "display"), 0.2)


def test_random_pictures_come_from_all_shards(results):
    pictures = Pictures.open(results[1]["cutouts"])
    assert len(pictures.random(50)) == 50
    assert len(pictures.random(10_000)) == sum(len(s) for s in pictures.shards.values())
