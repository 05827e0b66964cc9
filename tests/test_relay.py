"""What a run has found is taken over by its jobs, and by nobody else."""

import numpy as np
import pytest

from fits_files import tan_wcs, write_image
from luneta.config import ConfigError
from luneta.plan import make_plan
from luneta.plan.relay import tell_jobs
from luneta.runs import RUN


@pytest.fixture
def survey(tmp_path, monkeypatch):
    """A config of two tiles in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(RUN, raising=False)
    for name, ra in (("a", 150.0), ("b", 151.0)):
        image = np.zeros((60, 60), np.int16)
        write_image(tmp_path / f"{name}_r.fits", image, tan_wcs((60, 60), ra, 2.0))
    (tmp_path / "list.csv").write_text("object_id,ra,dec\n1,150.0,2.0\n2,151.0,2.0\n")
    return {
        "survey": "sky",
        "input": {
            "kind": "tiles",
            "images": "{tile}_{band}.fits[IMAGE]",
            "sources": "list.csv",
            "bands": ["r"],
            "reference_band": "r",
        },
    }


def settings(plan):
    """All that Snakemake asks of the plan of a shard."""
    shards = plan.shards
    by_shard = (plan.ingest, plan.cutouts, plan.images, plan.grids, plan.sources, plan.source_files)
    return shards, [ask(shard) for ask in by_shard for shard in shards], plan.catalog()


def claimed(survey):
    """A plan whose run has begun on a cluster."""
    plan = make_plan(survey, is_run=True)
    plan.run.claim()
    tell_jobs(plan)
    return plan


def test_jobs_plan_what_their_run_has_planned(survey, tmp_path):
    """Also when a file has been delivered again, and another one taken away, in the meantime."""
    plan = claimed(survey)
    before = settings(plan)
    assert settings(make_plan(survey)) == before
    image = np.ones((60, 60), np.int16)
    write_image(tmp_path / "a_r.fits", image, tan_wcs((60, 60), 150.0, 2.0))
    (tmp_path / "b_r.fits").unlink()
    assert settings(make_plan(survey)) == before


def test_a_process_that_is_no_job_looks_for_itself(survey, tmp_path, monkeypatch):
    before = settings(claimed(survey))
    (tmp_path / "b_r.fits").unlink()
    monkeypatch.delenv(RUN)
    assert make_plan(survey).shards == ["a", "unplaced"]
    monkeypatch.setenv(RUN, "another run")
    assert settings(make_plan(survey)) != before


def test_another_config_is_planned_anew(survey):
    claimed(survey)
    survey["input"]["bands"] = ["r", "g"]
    with pytest.raises(ConfigError, match=r"input\.bands = 'g': no tile .* has this band"):
        make_plan(survey)


def test_a_damaged_note_is_not_taken(survey, tmp_path):
    before = settings(claimed(survey))
    path = tmp_path / "results/sky/index/plan.json"
    path.write_bytes(path.read_bytes().replace(b'"tiles"', b'"tales"'))
    assert settings(make_plan(survey)) == before
    assert not path.exists()
