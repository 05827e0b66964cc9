"""Characters that Snakemake, globs and shells treat specially may stand in any path."""

import re
import shutil

import pytest
import yaml

from luneta.plan.links import plain_name
from tiny_survey import PlainSurvey, plain_config, sources_of

ODD = ["{x}", "{}", "{", "a}b", "{{y}}", "<results>", "<", "*", "?", "[1]", "a b", "~", "$HOME",
       "it's", '"q"', "#1", "é☃", "{tile,a+}", "a&b;c", "%s", "\\"]  # fmt: skip
FOLDER = "it's {x} <results> [1] a* ? ~ $HOME #1 é & %s"


def test_braces_and_angles_are_hidden_behind_links(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ODD:
        (tmp_path / f"{name}.csv").write_text(name)
        shown = plain_name(f"{name}.csv", tmp_path / "links")
        assert not set("{}<>") & set(shown)
        assert (tmp_path / shown).read_text() == name
        assert (shown == f"{name}.csv") == (not set("{}<>") & set(name))
        assert shown.endswith(".csv")
        before = (tmp_path / shown).lstat().st_mtime_ns
        assert plain_name(f"{name}.csv", tmp_path / "links") == shown
        assert (tmp_path / shown).lstat().st_mtime_ns == before
    first = {plain_name("a/{x}.csv", tmp_path / "links"), plain_name("b/{x}.csv", tmp_path / "l")}
    assert len({name.rpartition("/")[2] for name in first}) == 2


def write_odd(survey: PlainSurvey, name: str) -> dict:
    """Write tiles, a list, labels, weights and known candidates into a folder of an odd name."""
    survey.write_tile(0)
    survey.write_sources(sources_of(0))
    folder = survey.folder / name
    shutil.move(survey.folder / "tiles", folder / "tiles")
    shutil.move(survey.folder / "sources.csv", folder / f"{name}.csv")
    labels = [f"t0-{n},{'yes' if n % 2 else 'no'}" for n in range(5)]
    (folder / f"{name} labels.csv").write_text("\n".join(["object_id,label", *labels]) + "\n")
    (folder / f"{name}.weights.h5").touch()
    (folder / f"{name} known.csv").write_text("name,ra,dec\nx,150.0,0.0\n")
    (folder / f"{name} grades.csv").write_text("object_id,grade\nt0-0,A\n")
    lines = ["tile\tband\timage\tmask"]
    for band in "gr":
        path = f"{name}/tiles/t0_{band}"
        lines.append(f"t0\t{band}\t{path}.fits[IMAGE]\t{path}_mask.fits[IMAGE]")
    (survey.folder / "tiles.tsv").write_text("\n".join(lines) + "\n")
    config = plain_config()
    for key in ("images", "masks"):
        del config["input"][key]
    config["input"] |= {"tiles": "tiles.tsv", "sources": f"{name}/{name}.csv"}
    config["tasks"] = {
        "t": {
            "kind": "binary", "classes": ["no", "yes"], "labels": [f"{name}/{name} labels.csv"],
            "candidates": {"known": f"{name}/{name} known.csv",
                           "grades": f"{name}/{name} grades.csv"},
            "training": {
                "folds": 2, "backbone": "MobileNetV2", "image_size": 32,
                "weights": f"{name}/{name}.weights.h5",
            },
        }
    }  # fmt: skip
    (survey.folder / "config.yaml").write_text(yaml.safe_dump(config))
    return config


def test_every_path_of_the_config_may_hold_them(tmp_path):
    survey = PlainSurvey(tmp_path)
    (tmp_path / FOLDER).mkdir()
    write_odd(survey, FOLDER)
    jobs, _ = survey.plan()
    assert jobs == {"ingest": 1, "cutouts": 1, "split": 1, "finetune": 2, "evaluate": 1,
                    "infer": 1, "card": 1, "catalog": 1, "candidates": 1, "report": 1}  # fmt: skip


@pytest.mark.slow
def test_jobs_read_files_of_such_names(tmp_path):
    survey = PlainSurvey(tmp_path)
    (tmp_path / FOLDER).mkdir()
    write_odd(survey, FOLDER)
    done = survey.snakemake("--until", "split")
    text = done.stdout + done.stderr
    assert (survey.results / "cutouts/t0.arrow").exists(), text[-3000:]
    assert "Traceback" not in text
    assert "labels: {" in (survey.results / "logs/split/t.log").read_text()
    again = survey.snakemake("--until", "cutouts", "--dry-run")
    assert re.search(r"total +0\n", again.stdout)


@pytest.mark.slow
def test_the_whole_survey_may_lie_in_a_folder_of_such_a_name(tmp_path):
    survey = PlainSurvey(tmp_path / FOLDER.replace("{x}", "").replace("<results>", ""))
    survey.write_tile(0)
    survey.write_sources(sources_of(0))
    survey.write_config(plain_config())
    survey.run()
    assert (survey.results / "catalog/collection.properties").exists()
    assert survey.plan() == ({}, [])


def test_a_checkout_in_a_folder_with_braces_is_refused_in_one_line(tmp_path):
    survey = PlainSurvey(tmp_path / "a {x}")
    survey.write_config(plain_config())
    done = survey.snakemake("--dry-run")
    text = done.stdout + done.stderr
    assert done.returncode == 1
    assert f"luneta lies in {tmp_path / 'a {x}'}, and Snakemake takes braces" in text
    assert "Traceback" not in text
