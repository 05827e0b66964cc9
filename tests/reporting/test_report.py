import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from matplotlib.image import imread

from catalog_files import rows_of
from luneta.catalog.rows import REJECTS
from luneta.cutouts.shard import write_shard
from luneta.metrics.counts import balanced_accuracy
from luneta.reporting import curves, figures, report, tables
from luneta.reporting.cutouts import (
    Picture,
    Pictures,
    chosen_examples,
    composite,
    flagged_cutouts,
    montage,
    shortened,
)
from luneta.reporting.predictions import against_truth, note_on_labels, read_out_of_fold
from luneta.reporting.reckoning import FIRST, Group, Reckoning, reckon
from luneta.reporting.style import save
from luneta.reporting.summary import summary
from luneta.survey.flags import Flag

WORKFLOW = Path(__file__).parents[2] / "workflow"
SURVEY_FIGURES = {"objects", "cutouts", "flagged"}
CLASSES = ["round", "in_between", "cigar", "edge_on", "spiral"]


@pytest.fixture(scope="session")
def reported(results):
    report.run(**results[1])
    return results


@pytest.fixture
def found(results):
    return read_out_of_fold(results[1]["out_of_fold"]["morphology"], CLASSES, "multiclass")


def planned(settings):
    """The files that the rule promises, read from its text."""
    text = (WORKFLOW / "rules" / "report.smk").read_text()
    outputs = text.split("    output:\n")[1].split("    log:\n")[0]
    lists = {"tasks": list(settings["tasks"])} | {n: settings[n] for n in ("clustered", "listed")}
    alone = re.findall(r'^ +"<results>/(\S+)",$', outputs, re.MULTILINE)
    optional = re.findall(r"PLAN\.(\w+)_figure\(\)", outputs)
    of_tasks = re.findall(r'"<results>/(\S+)", task=PLAN\.(\w+)\)', outputs)
    assert len(alone) + len(optional) + len(of_tasks) == outputs.count("report(")
    names = {*alone, *(f"figures/{name}.png" for name in optional)}
    return names | {pattern.format(task=task) for pattern, of in of_tasks for task in lists[of]}


def test_every_planned_figure_is_drawn(reported):
    root, arguments = reported
    drawn = [*(root / "figures").iterdir(), *(root / "report").iterdir()]
    assert {str(path.relative_to(root)) for path in drawn} == planned(arguments["settings"])
    for path in (root / "figures").iterdir():
        picture = imread(path)
        assert picture.shape[1] < 2600, path.name
        assert picture.std() > 0.01, path.name


def test_every_planned_figure_has_a_caption():
    rules = [*WORKFLOW.glob("rules/*.smk"), WORKFLOW / "Snakefile"]
    names = re.findall(r'report/(\w+)\.rst"', " ".join(path.read_text() for path in rules))
    captions = WORKFLOW / "report"
    assert sorted(path.stem for path in captions.glob("*.rst")) == sorted(names)
    for path in captions.glob("*.rst"):
        assert len(path.read_text().split()) > 25, path.name


def test_tables_say_what_was_rejected_and_scored(reported):
    root, _ = reported
    rejects = (root / "report" / "rejects.html").read_text()
    assert "22 objects rejected, 578 objects usable" in " ".join(rejects.split())
    assert "2 files could not be used" in rejects
    assert "the position lies outside every tile" in rejects
    assert rejects.count('<td class="reason">the position') == FIRST
    assert '<td class="reason">2.0 arcsec off the source list' in rejects.split("with doubts")[1]
    scores = (root / "report" / "scores.html").read_text()
    assert "average precision" in scores
    assert "±" in scores
    together = scores.split("All objects of the folds together")[1].split("<h2>")[0]
    assert re.search(r"<td>ECE</td>\s*(<td class=.number.>0\.\d{3}</td>){3}", together)


def write_rejects(path, rows):
    pq.write_table(pa.Table.from_pylist(rows, schema=REJECTS), path)


def test_rejects_are_counted_by_flag_in_every_batch(results, tmp_path):
    objects = [
        {"kind": "object", "name": f"o{i}", "flag": "no_data|too_masked" if i % 3 else "outside"}
        for i in range(70_000)
    ]
    files = [{"kind": "file", "name": f, "flag": f} for f in ("no_wcs", "wcs_offset", "no_wcs")]
    write_rejects(tmp_path / "rejects.parquet", [*objects, *files, {"kind": "file", "name": "x"}])
    found = reckon(results[1]["catalog"], tmp_path / "rejects.parquet", results[1]["overlaps"])
    assert found.rejected == 70_000
    assert {name: group.count for name, group in found.objects.items()} == {
        "outside": 23_334, "no_data": 46_666, "too_masked": 46_666,
    }  # fmt: skip
    first = [row["name"] for row in found.objects["outside"].rows]
    assert first == [f"o{3 * i}" for i in range(10)]
    assert {n: g.count for n, g in found.unusable_files.items()} == {"no_wcs": 2, "no flag": 1}
    assert {n: g.count for n, g in found.doubtful_files.items()} == {"wcs_offset": 1}
    catalog = rows_of(results[1]["catalog"])
    usable = catalog[catalog["reject_reason"].isna()]
    assert found.usable_flags["edge"] == (usable["flags"] & 1 > 0).sum()


def test_names_are_escaped_in_tables(tmp_path):
    row = {"name": "<script>alert(1)</script>", "tile": "<b>", "band": None, "reason": "a<b"}
    found = Reckoning(objects={"outside": Group(1, [row])}, rejected=1)
    tables.write_rejects(tmp_path / "r.html", found)
    text = (tmp_path / "r.html").read_text()
    assert "<script>" not in text and "<b>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "1 object rejected, 0 objects usable" in " ".join(text.split())


def test_nothing_rejected_is_said(tmp_path):
    tables.write_rejects(tmp_path / "r.html", Reckoning(usable=3))
    text = (tmp_path / "r.html").read_text()
    assert "No object was rejected." in text and "All files could be used." in text


def test_figures_are_the_same_bytes_each_time(found, tmp_path):
    for name in ("a", "b"):
        save(curves.roc(found), tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_summary_tells_the_numbers(results):
    root, arguments = results
    text = summary(root)
    content = json.loads(arguments["metrics"]["lens"].read_text())
    assert "578 usable, 22 rejected; 2 files could not be used, 2 used with doubts (see" in text
    beyond = sum(
        (table["dec"] > 90).sum() for table in map(pd.read_parquet, root.glob("objects/*"))
    )
    assert beyond > 10  # north of the pole
    assert f"; {beyond} objects without position (without_position.parquet)\n" in text
    assert f"lens: balanced accuracy {content['mean']['balanced_accuracy']:.3f} ±" in text
    assert f"{content['ece_before']:.3f} before calibration" in text
    assert "against the hidden truth: lens 0." in text
    assert "lens: 7 objects left out, labelled with two classes: a1, b2, c3, ..." in text
    assert text.splitlines()[-1] == f"catalog: {root / 'catalog'}; report: {root / 'report'}"
    command = [sys.executable, "-m", "luneta.reporting.summary", str(root)]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == text


def test_the_holdout_is_no_fold(results, tmp_path):
    path = results[1]["out_of_fold"]["morphology"]
    table = pq.read_table(path)
    held = table.slice(0, 9).set_column(2, "fold", pa.array([-1] * 9, table["fold"].type))
    pq.write_table(pa.concat_tables([table, held]), tmp_path / "out_of_fold.parquet")
    with_holdout = read_out_of_fold(tmp_path / "out_of_fold.parquet", CLASSES, "multiclass")
    assert len(list(with_holdout.folds())) == 3
    assert with_holdout.object_id.tolist() == table["object_id"].to_pylist()


def test_labels_figure_says_what_was_held_and_left_out(results):
    split = pq.read_table(results[1]["splits"]["lens"])
    note = (
        "4 of the labelled held out as test\n"
        "left out: 2 without label, 31 ignored, 7 of two classes, 1,200 without cutout"
    )
    assert note_on_labels(split) == note
    plain = split.filter(pc.field("fold") >= 0).replace_schema_metadata(None)
    assert note_on_labels(plain) == ""
    counts = np.array([3, 5])
    drawn = figures.labels(["nolens", "lens"], counts, None, note)
    assert drawn.axes[0].get_title(loc="left") == note


def test_summary_of_a_run_that_stopped_before_the_catalog(results, tmp_path):
    root, _ = results
    folder = tmp_path / "demo"
    for part in ("metrics", "splits"):
        shutil.copytree(root / part, folder / part)
    text = summary(folder)
    assert "lens: balanced accuracy" in text
    assert (
        "collection.properties is not written yet: run again without --until"
        in text.splitlines()[-1]
    )


def test_a_survey_without_tasks_has_a_report(results, tmp_path):
    _, arguments = results
    by_task = (
        *("metrics", "out_of_fold", "splits", "sidecars", "histories", "gradients"),
        *("clusters", "candidates"),
    )
    empty = {name: {} for name in by_task}
    changes = {"tasks": {}, "predicted": [], "keep": {}}
    changes |= {"comparison": [], "label_efficiency": []}
    places = {"figures": str(tmp_path / "figures"), "report": str(tmp_path / "report")}
    settings = {**arguments["settings"], **changes, **places}
    report.run(**{**arguments, **empty, "truth": [], "settings": settings})
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {
        f"{name}.png" for name in SURVEY_FIGURES
    }


def test_missing_columns_are_said_in_words(found):
    figure = figures.magnitude_size(found.right, {"magnitude": None, "size": None})
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words == ["The source list has no magnitude.", "The source list has no size."]
    nothing = {"magnitude": ("magnitude", "mag", np.full(len(found.labels), np.nan)), "size": None}
    figure = figures.magnitude_size(found.right, nothing)
    assert figure.axes[0].texts[0].get_text() == "Only 0 labelled objects have magnitude."
    truth = figures.truth_matrices({})
    assert truth.axes[0].texts[0].get_text() == "The hidden truth answers none of the tasks."


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
    areas = curves.areas(found, 1)
    assert np.isnan(areas).tolist() == [True, False, False]
    mean = curves.roc(found).axes[0].lines[0]
    assert mean.get_label().startswith(f"lens: {areas[1:].mean():.3f} ±")
    assert mean.get_xydata()[-1].tolist() == [1, 1]
    precision = curves.precision_recall(found).axes[0].lines[0].get_ydata()
    assert np.isfinite(precision[1:]).all()


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
    pictures = Pictures(results[1]["cutouts"])
    names = {picture.object_id for picture in pictures.random(50)}
    assert len(names) == 50
    assert {name.split("_")[0] for name in names} == {"north", "south"}
    assert len(pictures.random(10_000)) == len(pictures.all()) == 578
    assert pictures.few(578) and not pictures.few(577)


def test_flagged_pictures_bear_the_flag(results):
    pictures = Pictures(results[1]["cutouts"])
    rows = rows_of(results[1]["catalog"]).set_index("object_id")["flags"]
    found = pictures.flagged(8)
    assert [flag.name for flag in found] == ["EDGE", "MASKED"]
    for flag, shown in found.items():
        assert len({picture.object_id for picture in shown}) == 8
        assert all(rows[picture.object_id] & flag for picture in shown)
    assert all(rows[picture.object_id] == 1 for picture in found[Flag.EDGE])


@pytest.mark.parametrize(("pixels", "down"), [("flux", 3 / 8), ("display", 5 / 8)])
def test_ticks_point_at_the_objects_pixel(tmp_path, pixels, down):
    image = np.zeros((1, 1, 4, 4), np.float32)
    image[0, 0, 2, 2] = 200
    ids = np.array(["a$b$"], object)
    write_shard(tmp_path / "s.arrow", ids, np.zeros(1, np.int32), image, ["r"], pixels)
    (picture,) = Pictures({"s": tmp_path / "s.arrow"}).all()
    assert picture.centre == (5 / 8, down)
    brightest = np.unravel_index(picture.pixels[..., 0].argmax(), (4, 4))
    assert (brightest[1] + 0.5) / 4 == picture.centre[0]
    assert (brightest[0] + 0.5) / 4 == picture.centre[1]


@pytest.mark.parametrize("number", [0, 1, 5, 45, 50, 51, 96])
def test_few_cutouts_are_large_and_named(number, tmp_path):
    grey = np.full((8, 8, 3), 0.5)
    shown = [Picture(grey, f"a${i}$_long_name_{i:040d}", (0.5, 0.5)) for i in range(number)]
    figure = montage(shown)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(texts) == (1 if number == 0 else number if number <= 50 else 0)
    assert figure.get_size_inches()[0] < 15
    save(figure, tmp_path / "m.png")
    flagged = flagged_cutouts({Flag.EDGE: shown[:1]} if shown else {})
    texts = [text.get_text() for text in flagged.axes[0].texts]
    if shown:
        assert texts == ["edge", shortened(shown[0].object_id, 20)]
    else:
        assert texts == ["No usable object bears a flag."]


def test_long_names_lose_their_middle():
    assert shortened("J0123", 8) == "J0123"
    assert shortened("abcdefghij", 7) == "abc…hij"
    assert shortened("a\nb", 8) == "a·b"
