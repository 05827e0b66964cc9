import json
import subprocess
import sys
from pathlib import Path

import pytest

from luneta.config import Training
from luneta.reporting import challenge, networks, results

SCRIPT = Path(__file__).parents[2] / "scripts" / "results_tables.py"


def write_task(folder, task, metrics, labels=100, **training):
    sidecar = {
        "training": Training(**training).model_dump(mode="json"),
        "parameters": 23_591_810,
        "cutout_size": 101,
        "precision": "float32",
        "objects": {"training": labels},
    }
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    (folder / "models" / task).mkdir(parents=True)
    (folder / "metrics" / f"{task}.json").write_text(json.dumps(metrics))
    (folder / "models" / task / "fold0.json").write_text(json.dumps(sidecar))


def over_folds(accuracy, error, kind="multiclass", holdout=None):
    names = ("balanced_accuracy", "macro_f1", "roc_auc")
    mean, errors = dict.fromkeys(names, accuracy), dict.fromkeys(names, error)
    classes = ["nolens", "lens"] if kind == "binary" else ["a", "b", "c"]
    content = {"kind": kind, "classes": classes, "holdout": holdout}
    return content | {"mean": mean, "standard_error": errors}


HOLDOUT = {
    "count": 300,
    "scores": {"roc_auc": 0.91, "tpr0": 0.25, "tpr10": 0.5, "log_loss": 0.4},
    "intervals": {
        "roc_auc": [0.8, 0.99],
        "roc_auc_delong": [0.9, 0.92],
        "tpr0": [0.2, 0.3],
        "tpr10": [None, None],
        "log_loss": [0.39, 0.41],
    },
    "confusion": [[100, 20], [30, 150]],
}


@pytest.fixture
def lenses(tmp_path):
    folder = tmp_path / "lenses"
    metrics = over_folds(0.8, 0.012, "binary", HOLDOUT)
    write_task(folder, "course", metrics, backbone="ResNet50LensFinder", course_recipe=True)
    return folder


def labels_curve(folder):
    weights = "../weights/mobilenet.weights.h5"
    for task, score, labels, of in (
        ("pretrained_10", 0.7, 150, {"label_fraction": 0.1, "weights": weights}),
        ("pretrained_100", 0.9, 1500, {"weights": weights}),
        ("random_10", 0.4, 150, {"label_fraction": 0.1, "weights": "none"}),
        ("random_100", 0.8, 1500, {"weights": "none"}),
        ("alone", 0.6, 1500, {"weights": "none", "backbone": "LeNet5"}),
    ):
        write_task(folder, task, over_folds(score, 0.01), labels, **of)


def test_every_task_has_a_row(lenses):
    assert results.networks_table(results.read_results(lenses)) == (
        "| task | backbone | weights | parameters | balanced accuracy | macro F1 | ROC AUC |\n"
        "| --- | --- | --- | ---: | ---: | ---: | ---: |\n"
        "| `course` | ResNet50LensFinder (course recipe) | random | 23,591,810 | 0.800 ± 0.012 "
        "| 0.800 ± 0.012 | 0.800 ± 0.012 |"
    )


def test_hold_outs_of_binary_tasks_are_tabulated(lenses):
    write_task(lenses, "colours", over_folds(0.5, 0.1, "multiclass", HOLDOUT))
    assert results.holdout_table(results.read_results(lenses)) == (
        "| task | backbone | AUROC | TPR0 | TPR10 | log-loss | lenses | non-lenses |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| `course` | ResNet50LensFinder (course recipe) | 0.910 (0.900 to 0.920) "
        "| 0.250 (0.200 to 0.300) | 0.500 | 0.400 (0.390 to 0.410) | 180 | 120 |"
    )


def test_labels_are_tabulated_by_their_number(tmp_path):
    labels_curve(tmp_path / "labels")
    assert results.efficiency_table(results.read_results(tmp_path / "labels")) == (
        "| labels | fraction | pretrained: balanced accuracy | random: balanced accuracy "
        "| pretrained: macro F1 | random: macro F1 |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| 150 | 10 % | 0.700 ± 0.010 | 0.400 ± 0.010 | 0.700 ± 0.010 | 0.400 ± 0.010 |\n"
        "| 1,500 | 100 % | 0.900 ± 0.010 | 0.800 ± 0.010 | 0.900 ± 0.010 | 0.800 ± 0.010 |"
    )


def test_tables_that_have_nothing_to_show_are_left_out(tmp_path, lenses):
    write_task(tmp_path / "plain", "t", over_folds(0.5, 0.1))
    plain = results.text([tmp_path / "plain"])
    assert "### plain" in plain and "hold-out" not in plain and "efficiency" not in plain
    text = results.text([lenses])
    assert "TPR0 hangs on one object" in text and "TPR0 hangs" not in plain
    assert "The data differ" in text and "Label efficiency" not in text
    assert text.index("`course`") < text.index("| CMU-DeepLens-Resnet-ground3 | CNN | 0.98 |")


def test_other_questions_are_not_set_beside_the_challenge(tmp_path):
    metrics = over_folds(0.8, 0.1, "binary", HOLDOUT) | {"classes": ["alone", "merger"]}
    write_task(tmp_path / "mergers", "merger", metrics)
    text = results.text([tmp_path / "mergers"])
    assert "| positives | negatives |" in text and "challenge" not in text


def test_metrics_without_their_network_are_refused(lenses):
    write_task(lenses, "moved", over_folds(0.5, 0.1))
    (lenses / "models" / "moved" / "fold0.json").unlink()
    words = r"metrics/moved.json but no models/moved/fold0.json.* \(1 of 2 tasks\). Bring models/"
    with pytest.raises(ValueError, match=words):
        results.read_results(lenses)


def test_published_results_are_those_of_the_paper():
    assert {entry.name: entry.roc_auc for entry in challenge.GROUND} == {
        "CMU-DeepLens-Resnet-ground3": 0.98,
        "CMU-DeepLens-Resnet-Voting": 0.98,
        "LASTRO EPFL": 0.97,
        "CAS Swinburne Melb": 0.96,
        "AstrOmatic": 0.96,
        "Manchester SVM": 0.93,
        "Manchester2": 0.89,
        "ALL-star": 0.84,
        "CAST": 0.83,
        "YattaLensLite": 0.82,
    }
    best = max(challenge.GROUND, key=lambda entry: entry.tpr0)
    assert (best.name, best.tpr0, best.tpr10) == ("Manchester SVM", 0.22, 0.35)


def test_the_command_prints_the_tables(lenses, tmp_path):
    command = [sys.executable, str(SCRIPT)]
    printed = subprocess.run([*command, str(lenses)], capture_output=True, text=True, check=True)
    assert printed.stdout == results.text([lenses])
    failed = subprocess.run([*command, str(tmp_path / "none")], capture_output=True, text=True)
    assert failed.returncode == 2
    assert "holds no metrics/*.json. Give a folder results/SURVEY" in failed.stderr


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        ("none", "random"),
        ("imagenet", "ImageNet"),
        ("../shared/w/mobilenet.weights.h5", "mobilenet"),
        ("old/vgg.h5", "vgg"),
        ("results/demo/models/lens/fold0.keras", "fold0"),
        ("hf_hub:mwalmsley/zoobot-encoder-convnext_nano", "zoobot-encoder-convnext_nano"),
    ],
)
def test_weights_are_named(weights, name):
    assert networks.weights_name(weights) == name


def test_a_course_recipe_tells_what_it_trains_with():
    training = Training(backbone="ResNet50", course_recipe=True, head_epochs=3, image_size=64)
    sidecar = {"training": training.model_dump(mode="json"), "parameters": 1, "cutout_size": 101,
               "precision": "bfloat16", "objects": {"training": 5}}  # fmt: skip
    assert networks.described(sidecar) == networks.Network(
        "ResNet50 (course recipe)", "random", 1, 64, "bfloat16", (0, 8), 1.0, 5
    )
    training = Training(backbone="MobileNet", width=0.25, weights="imagenet")
    found = networks.described(sidecar | {"training": training.model_dump(mode="json")})
    assert (found.backbone, found.weights, found.image_size, found.epochs) == (
        "MobileNet (width 0.25)", "ImageNet", 101, (3, 8)
    )  # fmt: skip


def test_lines_that_a_word_cannot_tell_apart_have_full_names():
    def network(weights, labels):
        return networks.Network("VGG16", weights, 1, 64, "float32", (3, 8), labels / 100, labels)

    found = {f"{w}{n}": network(w, n) for w in ("ImageNet", "zoobot", "random") for n in (100, 10)}
    lines = networks.label_efficiency(found)
    assert lines["VGG16, zoobot"] == ["zoobot10", "zoobot100"]
    assert networks.short_names(lines, found) == ["VGG16, ImageNet", "VGG16, zoobot",
                                                  "VGG16, random"]  # fmt: skip
    del lines["VGG16, zoobot"]
    assert networks.short_names(lines, found) == ["pretrained", "random"]
