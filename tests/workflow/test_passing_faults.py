"""A server is away in one run and there in the next: nothing is lost, nothing is done twice."""

import pytest

from tiny_survey import PlainSurvey, plain_config
from web_server import refuse

pytestmark = pytest.mark.slow
TILES = (0, 1)


@pytest.fixture
def band():
    """The band of the image that lies on the server; r is the reference band."""
    return "g"


@pytest.fixture
def survey(tmp_path, server, band):
    """Two tiles; one image of the second one lies on the server."""
    made = PlainSurvey(tmp_path / "survey")
    rows = []
    for tile in TILES:
        made.write_tile(tile)
        rows += [(f"s{tile}_{n}", 150 + tile * 0.012 + n * 0.0005, 0.0) for n in range(3)]
    made.write_sources(rows)
    image = made.folder / f"tiles/t1_{band}.fits"
    server.answers[f"/t1_{band}.fits"] = image.read_bytes()
    image.unlink()
    lines = ["tile\tband\timage"]
    for tile in TILES:
        for each in "gr":
            lines.append(f"t{tile}\t{each}\ttiles/t{tile}_{each}.fits[IMAGE]")
    table = "\n".join(lines).replace(f"tiles/t1_{band}.fits", f"{server.url}/t1_{band}.fits") + "\n"
    (made.folder / "tiles.tsv").write_text(table)
    config = plain_config()
    config["input"] |= {"images": None, "masks": None, "tiles": "tiles.tsv"}
    config["input"]["remote"] = {"retries": 0, "wait": 0.0, "timeout": 5.0}
    made.write_config(config)
    return made


def catalog(survey):
    return survey.contents("catalog/**/*.parquet") | survey.contents("catalog/*.properties")


@pytest.mark.parametrize("band", ["g", "r"])
def test_a_server_that_was_away_costs_nothing_in_the_end(survey, server, band, tmp_path):
    undisturbed = survey.copied_to(tmp_path / "undisturbed")
    undisturbed.run()
    content = server.answers[f"/t1_{band}.fits"]
    server.answers[f"/t1_{band}.fits"] = refuse(503)

    log = survey.run()
    url = f"{server.url}/t1_{band}.fits"
    assert f"1 file could not be read in this run; the next run tries again (first: {url})" in log
    quality = survey.results / "quality/t1_files.json"
    assert '"flag": "unavailable"' in quality.read_text()
    assert catalog(survey) != catalog(undisturbed)

    jobs, said = survey.plan()
    assert jobs["cutouts"] == 1
    assert ("ingest" in jobs) == (band == "r")
    assert said == [f"1 file could not be read in the last run, and now tried again (first: {url})"]
    assert survey.planned() == jobs  # a dry run leaves everything as it was

    survey.run()  # the server is still away: tried once, and to be tried again
    assert band == "r" or len(server.requests) == 3  # planning asks for the reference band too
    assert survey.planned()["cutouts"] == 1

    server.answers[f"/t1_{band}.fits"] = content
    log = survey.run()
    assert "tries again" not in log
    assert catalog(survey) == catalog(undisturbed)
    assert survey.plan() == ({}, [])


def test_a_file_that_is_gone_for_good_is_not_tried_again(survey, server, band):
    server.answers[f"/t1_{band}.fits"] = refuse(410)
    survey.run()
    assert '"flag": "missing_file"' in (survey.results / "quality/t1_files.json").read_text()
    assert survey.plan() == ({}, [])
    assert not (survey.results / "index/retries").exists()


def test_the_policy_fail_stops_the_run_and_the_next_one_goes_on(survey, server, band):
    config = (survey.folder / "config.yaml").read_text()
    (survey.folder / "config.yaml").write_text(config + "quality: {unavailable: fail}\n")
    content = server.answers.pop(f"/t1_{band}.fits")
    server.answers[f"/t1_{band}.fits"] = refuse(503)
    done = survey.snakemake()
    assert done.returncode == 1
    assert "The config says quality.unavailable: fail" in done.stderr
    server.answers[f"/t1_{band}.fits"] = content
    survey.run()
    assert survey.plan() == ({}, [])
