import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from luneta.metrics.delong import delong_interval
from luneta.reporting import comparison, curves, learning
from luneta.reporting.networks import Network
from luneta.reporting.predictions import OutOfFold
from luneta.reporting.scores import grids, write_scores


def binary(labels, scores, folds):
    scores = np.array(scores, float)
    both = np.stack([1 - scores, scores], 1)
    ids = np.array([f"o{i}" for i in range(len(scores))], object)
    return OutOfFold(ids, np.array(labels), np.array(folds), both, both, ["no", "yes"], "binary")


def names(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_points_before_the_first_and_the_tenth_false_positive():
    # Falling scores: 2 positives, a negative, a positive, 8 negatives, a positive, 2 negatives, one
    labels = [1, 1, 0, 1, *[0] * 8, 1, 0, 0, 1]
    found = binary(labels, np.linspace(0.95, 0.05, len(labels)), [0] * len(labels))
    points = curves.first_false_positives(found)
    assert points == {"TPR0": (0.0, 2 / 5), "TPR10": (9 / 11, 4 / 5)}
    told = names(curves.roc(found))
    assert "TPR0, all folds together: 0.400" in told
    assert "TPR10, all folds together: 0.800" in told
    only = binary([1, 1], [0.2, 0.4], [0, 1])
    assert curves.first_false_positives(only) == {}


def test_areas_are_summed_up_over_folds():
    # Fold areas 1, 0.5 and 0: mean 0.5, standard deviation 0.5; quantiles linear between folds
    labels, scores = [0, 1, 0, 1, 0, 1], [0.1, 0.9, 0.5, 0.5, 0.9, 0.1]
    found = binary(labels, scores, [0, 0, 1, 1, 2, 2])
    assert curves.areas(found, 1).tolist() == [1.0, 0.5, 0.0]
    assert curves.told_areas(found, 1) == "0.500 ± 0.500; 0.500 (0.159 to 0.841)"
    area = delong_interval(labels, scores)
    together = f"{area.value:.3f} ({area.low:.3f} to {area.high:.3f})"
    told = f"yes: 0.500 ± 0.500; 0.500 (0.159 to 0.841); {together}"
    assert names(curves.roc(found))[0] == told
    assert together.startswith("0.500 (")


def test_the_loss_of_training_has_no_unit():
    epochs = {"phase": ["head", "fine_tune"], "loss": [2.0, 1.0], "val_loss": [3.0, 2.5]}
    epochs |= {"accuracy": [0.5, 0.6], "val_accuracy": [0.4, 0.5]}
    figure = learning.training([pd.DataFrame(epochs)])
    assert titles(figure) == ["Loss", "Accuracy"]
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines[:2]] == [[2, 1], [3, 2.5]]


def test_median_and_mean_have_panels_of_their_own():
    labels, scores = [0, 1, 0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8, 0.9, 0.1]
    found = binary(labels, scores, [0, 0, 1, 1, 2, 2])
    mean, median, logarithmic = curves.roc(found).axes
    # At the threshold 0.8 the folds' completenesses are 1, 1, 0
    assert 2 / 3 in mean.lines[0].get_ydata() and 2 / 3 not in median.lines[0].get_ydata()
    assert set(median.lines[0].get_ydata()) == {0.0, 1.0}
    assert logarithmic.get_xscale() == "log" and mean.get_xscale() == "linear"
    left, right = curves.precision_recall(found).axes
    assert not np.array_equal(left.lines[0].get_xdata(), right.lines[0].get_xdata())


def noted(**norms):
    rows = [
        (epoch, "fine_tune", block, "layer", norm)
        for block, values in norms.items()
        for epoch, norm in enumerate(values, start=1)
    ]
    return pd.DataFrame(rows, columns=["epoch", "phase", "block", "layer", "norm"])


def test_gradients_are_averaged_over_the_layers_of_a_block():
    table = pd.concat([noted(head=[4.0], block10=[1.0], block2=[0.0]), noted(block10=[3.0])])
    found = learning.norms_by_block(table)
    assert found.columns.tolist() == ["block2", "block10", "head"]
    assert found.loc[1, "block10"] == 2.0
    assert np.isnan(found.loc[1, "block2"])


def test_gradients_have_a_line_for_each_block_from_dark_to_light():
    figure = learning.gradients(noted(head=[1.0, 2.0], block1=[0.1, 0.2], block2=[0.3, np.inf]))
    axes = figure.axes[0]
    first, second, head = axes.lines
    assert first.get_ydata().tolist() == [0.1, 0.2]
    assert np.array_equal(second.get_ydata(), [0.3, np.nan], equal_nan=True)
    assert head.get_ydata().tolist() == [1.0, 2.0] and head.get_label() == "head"
    lightness = [sum(mpl.colors.to_rgb(line.get_color())) for line in (first, second)]
    assert lightness[0] < lightness[1]
    assert axes.get_yscale() == "log" and "Fold 0" in axes.get_title(loc="left")
    nothing = learning.gradients(noted(head=[0.0]))
    assert nothing.axes[0].texts[0].get_text().startswith("No gradient was noted")


def metrics(kind, value, holdout=None):
    scores = ("balanced_accuracy", "macro_f1", "roc_auc")
    scores += ("tpr0", "tpr10") if kind == "binary" else ()
    folds = [dict.fromkeys(scores, value - 0.1), dict.fromkeys(scores, value + 0.1)]
    classes = ["no", "lens"] if kind == "binary" else ["a", "b"]
    shown = classes[1:] if kind == "binary" else classes
    held = {
        "count": 1500,
        "scores": dict.fromkeys(scores, holdout) | {"ece": 0.03125},
        "intervals": dict.fromkeys(scores, [0.25, 0.75]),
        "class_auc": dict.fromkeys(shown, [0.875, None, None]),
    }
    return {
        "classes": classes,
        "count": 4321,
        "scores": dict.fromkeys(scores, value),
        "intervals": dict.fromkeys(scores, [value - 0.0625, value + 0.125]),
        "class_auc": dict.fromkeys(shown, [value, value - 0.25, value + 0.25]),
        "kind": kind,
        "folds": folds,
        "mean": dict.fromkeys(scores, value),
        "standard_error": dict.fromkeys(scores, 0.1),
        "holdout": None if holdout is None else held,
        "calibration": {"method": "isotonic", "parameters": {}},
        "ece_before": 0.125,
        "ece_after": 0.0625,
        "model_id": "0123456789abcdef0123",
    }


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_binary_tasks_are_compared_on_their_hold_out():
    found = {"a": metrics("binary", 0.5, 0.375), "b": metrics("binary", 0.6, 0.5)}
    figure = comparison.comparison(found)
    assert titles(figure) == [
        "ROC AUC, over folds", "ROC AUC, hold-out", "TPR0, hold-out", "TPR10, hold-out"
    ]  # fmt: skip
    texts = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    assert texts[0] == ["0.500 ± 0.100", "0.600 ± 0.100"]
    assert texts[2] == ["0.375", "0.500"]
    assert comparison.on_holdout(found["a"], "tpr0") == (0.375, 0.125, 0.375, [])
    found["b"]["holdout"] = None
    assert titles(comparison.comparison(found))[1:] == ["TPR0, over folds", "TPR10, over folds"]


def test_many_tasks_are_compared_legibly():
    figure = comparison.comparison({f"task_{i}": metrics("multiclass", 0.9) for i in range(10)})
    assert len(titles(figure)) == 3
    figure.canvas.draw()
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == 10
        assert all(upper.y0 > lower.y1 for upper, lower in zip(boxes, boxes[1:], strict=False))
        assert max(axes.get_xticks()) <= 1


def test_labels_against_scores():
    networks = {
        f"{weights}_{labels}": Network("VGG16", weights, 1, 64, "float32", (3, 8), share, labels)
        for weights in ("random", "ImageNet")
        for share, labels in ((1.0, 1000), (0.1, 100))
    }
    networks["alone"] = Network("LeNet5", "random", 1, 64, "float32", (0, 8), 1.0, 1000)
    values = {"random_100": 0.3, "random_1000": 0.6, "ImageNet_100": 0.7, "ImageNet_1000": 0.8}
    found = {task: metrics("multiclass", values.get(task, 0.5)) for task in networks}
    found["random_100"]["mean"]["macro_f1"] = None
    figure = comparison.efficiency(found, networks)
    lines = [bar.lines[0].get_xydata().tolist() for bar in figure.axes[0].containers]
    assert lines == [[[100, 0.3], [1000, 0.6]], [[100, 0.7], [1000, 0.8]]]
    assert names(figure) == ["VGG16, random", "VGG16, ImageNet"]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["100", "1,000"]
    undefined = np.array(figure.axes[1].containers[0].lines[0].get_ydata(), float)
    assert np.array_equal(undefined, [np.nan, 0.6], equal_nan=True)


@pytest.mark.parametrize(
    ("tasks", "scores", "shape"),
    [(6, 17, [(17, 7)]), (7, 17, [(7, 10), (7, 9)]), (7, 10, [(7, 11)])],
)
def test_many_tasks_stand_one_below_the_other(tasks, scores, shape):
    contents = {f"task_{i}": {"n": i} for i in range(tasks)}
    score_names = [f"s_{i}" for i in range(scores)]
    found = grids(contents, score_names, lambda content, name: f"{content['n']} {name}")
    assert [(len(grid.rows), len(grid.header)) for grid in found] == shape
    for grid in found:
        assert all(len(row) == len(grid.header) for row in grid.rows)
    first = found[0]
    if first.turned:
        assert first.header[:2] == ["task", "s 0"] and first.rows[2][:2] == ["task 2", "2 s_0"]
    else:
        assert first.header[:2] == ["score", "task 0"] and first.rows[2][:2] == ["s 2", "0 s_2"]


def test_page_of_scores(tmp_path):
    found = {"lens": metrics("binary", 0.5, 0.375), "plain": metrics("multiclass", 0.6)}
    networks = {
        task: Network("VGG16", "<b>", 138_357_544, 101, "bfloat16", (3, 8), 0.05, 1234)
        for task in found
    }
    write_scores(tmp_path / "s.html", found, networks)
    text = " ".join((tmp_path / "s.html").read_text().split())
    assert '<td>TPR0</td> <td class="number">0.500 ± 0.100</td><td class="number">–</td>' in text
    assert "highest completeness before a single false positive" in text
    together = text.split("All objects of the folds together")[1].split("<h2>")[0]
    assert '<td>TPR0</td> <td class="number">0.500 (0.438 to 0.625)</td>' in together
    assert "4,321" in together and "TPR0 hangs on one object" in together
    held = text.split("On the hold-out")[1].split("<h2>")[0]
    assert '<td>ECE</td> <td class="number">0.031</td>' in held
    each = text.split("Each class against the rest")[1].split("<h2>")[0]
    assert each.count("<tr>") == 4  # the head, lens, a and b
    assert '0.500 (0.250 to 0.750)</td> <td class="number">0.875</td>' in each
    assert '0.600 (0.350 to 0.850)</td> <td class="number">–</td>' in each
    published = text.split("Lens challenge")[1].split("<h2>")[0]
    assert "The data differ" in published and published.count("<tr>") == 11
    assert '<td>Manchester SVM</td><td>Gabor filters, SVM</td> <td class="number">0.93</td>' in (
        published
    )
    assert '<td>objects</td> <td class="number">1,500</td>' in held
    assert "0.375 (0.250 to 0.750)" in held and "plain" not in held
    row = text.split("<h2>Networks")[1].split("<td>lens</td>")[1].split("</tr>")[0]
    for cell in ("VGG16", "&lt;b&gt;", "138,357,544", "101", "bfloat16", "3 + 8", "0.05", "1,234",
                 "isotonic"):  # fmt: skip
        assert f">{cell}</td>" in row
    assert "0.1250" in text and "0.0625" in text and "0123456789abcdef<" in text
    found["lens"]["classes"] = ["no", "merger"]
    write_scores(tmp_path / "s.html", found, networks)
    assert "Lens challenge" not in (tmp_path / "s.html").read_text()
    del found["lens"]
    write_scores(tmp_path / "s.html", found, {"plain": networks["plain"]})
    text = (tmp_path / "s.html").read_text()
    assert "hold-out" not in text and "TPR0" not in text
    write_scores(tmp_path / "s.html", {}, {})
    assert "The config asks for no task." in (tmp_path / "s.html").read_text()
