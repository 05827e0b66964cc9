"""What the jobs of training are told: from which weights, and only what they read."""

import numpy as np
import pytest

from fits_files import tan_wcs, write_image
from luneta.config import Training
from luneta.config.tasks import NO_NETWORK_READS
from luneta.models import network as networks
from luneta.plan import make_plan
from luneta.plan.expected import Expected


@pytest.fixture
def survey(tmp_path, monkeypatch):
    """A config of two tiles of one band and a task, in the working directory."""
    monkeypatch.chdir(tmp_path)
    lines = "tile\tband\timage\n"
    for name, ra in (("a", 150.0), ("b", 151.0)):
        write_image(tmp_path / f"{name}.fits", np.zeros((60, 60), np.int16),
                    tan_wcs((60, 60), ra, 2.0))  # fmt: skip
        lines += f"{name}\tr\t{name}.fits[IMAGE]\n"
    (tmp_path / "tiles.tsv").write_text(lines)
    (tmp_path / "list.csv").write_text("object_id,ra,dec\n1,150.0,2.0\n2,151.0,2.0\n")
    rows = [f"{n},{'yes' if n % 2 else 'no'}" for n in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["object_id,label", *rows]) + "\n")
    task = {"kind": "binary", "classes": ["no", "yes"], "labels": ["labels.csv"]}
    return {
        "survey": "sky",
        "input": {
            "kind": "tiles",
            "tiles": "tiles.tsv",
            "sources": "list.csv",
            "bands": ["r"],
            "reference_band": "r",
        },
        "tasks": {"t": task, "u": task},
    }


def planned(survey, **training):
    return make_plan({**survey, "training": training})


@pytest.mark.parametrize(
    ("weights", "files"),
    [
        ("imagenet", []),
        ("none", []),
        ("hf_hub:mwalmsley/zoobot-encoder-convnext_pico", []),
        ("old.keras", ["old.keras"]),
        ("encoder.safetensors", ["encoder.safetensors"]),
    ],
)
def test_files_are_inputs_and_names_are_not(survey, tmp_path, weights, files):
    (tmp_path / weights.rpartition("/")[2]).touch()
    backbone = "MobileNetV2" if weights == "imagenet" else "ResNet18"
    assert planned(survey, weights=weights, backbone=backbone).weights("t") == files


def test_settings_of_the_catalog_are_those_that_decide_it(survey):
    plan = make_plan(survey)
    elsewhere = make_plan({**survey, "device": "cpu", "provenance": {"most_files": 7}})
    assert elsewhere.catalog() == plan.catalog()
    assert make_plan({**survey, "seed": 5}).catalog() != plan.catalog()


def test_outputs_are_those_of_the_tasks_that_are_planned(survey):
    expected = Expected(make_plan(survey))
    names = [
        *("metrics/t.json", "metrics/t_out_of_fold.parquet", "metrics/u_outliers.npz"),
        *("splits/u.parquet", "models/t/fold0.keras", "models/u/fold1_history.csv"),
    ]
    assert all(map(expected.is_intermediate, names))
    shown = ["figures/t_roc.png", "figures/objects.png", "models/t/model_card.md"]
    assert all(map(expected.is_output, [*names, *shown]))
    assert not any(map(expected.is_intermediate, shown))
    others = [
        *("metrics/t_old.json", "splits/v.parquet", "models/t/fold9.keras", "figures/mine_roc.png"),
        *("clusters/t_mine.parquet", "predictions/merged/all.parquet", "metrics/summary.json"),
    ]
    assert not any(map(expected.is_output, others))


def test_a_list_of_candidates_goes_when_it_is_no_longer_asked_for(survey, tmp_path):
    folder = tmp_path / "results/sky/catalog"
    folder.mkdir(parents=True)
    for task in ("t", "u", "gone"):
        (folder / f"{task}_candidates.parquet").touch()
    (folder / "rejects.parquet").touch()
    survey["tasks"]["t"] = {**survey["tasks"]["t"], "candidates": {}}
    gone = ["gone_candidates.parquet", "u_candidates.parquet"]
    assert make_plan(survey).clear() == [
        f"results/sky/catalog/{name} is removed: the config asks for no such list any more"
        for name in gone
    ]
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["rejects.parquet", "t_candidates.parquet"]


def test_the_courses_recipe_starts_from_no_file(survey):
    assert planned(survey, weights="pretrain", course_recipe=True).weights("t") == []


def test_tasks_alike_share_a_backbone_and_others_do_not(survey):
    plan = planned(survey, weights="pretrain", width=0.5, backbone="MobileNetV2")
    (path,) = plan.weights("t")
    assert path == f"results/sky/backbones/{plan.backbone('t')}.weights.h5"
    assert plan.backbone("t").startswith("MobileNetV2_0.5_")
    assert plan.weights("u") == [path]
    for changed in ({"preprocessing": {"stretch": "sqrt"}}, {"image_size": 48}):
        survey["tasks"]["u"] = {**survey["tasks"]["u"], "training": changed}
        other = planned(survey, weights="pretrain", width=0.5)
        assert other.backbone("t") == plan.backbone("t") != other.backbone("u")
    survey["tasks"]["u"] |= {"training": {"dropout": 0.4, "label_fraction": 0.1, "mixup": 0.2}}
    other = planned(survey, weights="pretrain", width=0.5)
    assert other.backbone("u") == plan.backbone("u")
    survey["pretraining"] = {"epochs": 9}
    assert planned(survey, weights="pretrain", width=0.5).backbone("t") != plan.backbone("t")


@pytest.mark.parametrize(
    ("given", "simulation", "scale"), [({}, None, 0.262), ({"pixel_scale": 0.1}, None, 0.1),
    ({"pixel_scale": 0.1}, {"pixel_scale": 0.5}, 0.5)],
)  # fmt: skip
def test_simulated_galaxies_are_as_large_as_the_surveys(survey, given, simulation, scale):
    survey["input"] |= given
    plan = planned(survey | {"simulation": simulation}, weights="pretrain")
    assert plan.pretrain(plan.backbone("t"))["pixel_scale"] == scale


def test_simulated_backbone_needs_no_cutouts_and_a_contrastive_one_no_simulation(survey):
    plan = planned(survey, weights="pretrain")
    name = plan.backbone("t")
    assert plan.pretrain_cutouts(name) == []
    settings = plan.pretrain(name)
    assert (settings["bands"], settings["cutout_size"]) == (["r"], 64)
    assert len(settings["classes"]) == 6
    survey["pretraining"] = {"method": "contrastive"}
    plan = planned(survey, weights="pretrain")
    name = plan.backbone("t")
    assert plan.pretrain_cutouts(name) == [f"results/sky/cutouts/{s}.arrow" for s in "ab"]
    assert set(plan.pretrain(name)) == {"pretraining", "training", "shards", "seed"}


def test_contrastive_pretraining_is_told_every_hold_out(survey):
    assert planned(survey, weights="pretrain").pretrain_splits("any") == []
    survey["pretraining"] = {"method": "contrastive"}
    survey["tasks"]["v"] = {**survey["tasks"]["u"], "training": {"backbone": "ResNet50"}}
    plan = planned(survey, weights="pretrain", backbone="MobileNetV2", holdout=0.2)
    splits = [f"results/sky/splits/{task}.parquet" for task in "tu"]
    assert plan.pretrain_splits(plan.backbone("t")) == splits
    assert plan.pretrain_splits(plan.backbone("v")) == ["results/sky/splits/v.parquet"]


def test_pretraining_shows_the_backbone_what_fine_tuning_does(survey, tmp_path):
    survey["input"]["bands"] = bands = ["g", "r", "i", "z"]
    rows = [f"{tile}\t{band}\t{tile}.fits[IMAGE]" for tile in "ab" for band in bands]
    (tmp_path / "tiles.tsv").write_text("\n".join(["tile\tband\timage", *rows, ""]))
    changes = {"backbone": "ResNet50", "stem": "zero", "rgb": ["z", "r", "g"]}
    plan = planned(survey, weights="pretrain", image_size=32, **changes)
    task = Training.model_validate(plan.finetune("t")["task"]["training"])
    before = Training.model_validate(plan.pretrain(plan.backbone("t"))["training"])
    images = np.random.default_rng(1).normal(size=(2, 4, 32, 32)).astype("float32")
    seen = [
        networks.build(training, bands, 32, "flux", 2, 1, "none")
        .get_layer("preprocessing")
        .predict(images, verbose=0)
        for training in (before, task)
    ]
    np.testing.assert_array_equal(*seen)


def test_what_others_read_trains_no_network_anew(survey):
    before = planned(survey).finetune("t")
    others = {"calibration": "vector", "group_radius": 2.0, "tensorboard": True}
    assert planned(survey, **others).finetune("t") == before
    told = set(before["task"]["training"])
    assert told == set(Training.model_fields) - NO_NETWORK_READS
    survey["device"] = "cpu"
    assert planned(survey).finetune("t") == before
    assert planned(survey, mixup=0.1).finetune("t") != before
