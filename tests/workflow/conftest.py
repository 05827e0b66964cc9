import pytest

from tiny_survey import LABELLED, Survey, tiny_config


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Survey:
    """A tiny survey, run through the whole workflow once."""
    survey = Survey(tmp_path_factory.mktemp("finished"))
    survey.write(tiny_config(), LABELLED)
    survey.log = survey.run()
    return survey


@pytest.fixture
def survey(finished, tmp_path) -> Survey:
    """A copy of the finished survey, to change at will."""
    return finished.copied_to(tmp_path / "copy")
