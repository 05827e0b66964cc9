"""The same survey in an odd world ends with the same bytes."""

import os
import subprocess
import sys

import pytest

from tiny_survey import PlainSurvey, plain_config, sources_of

WORLDS = {
    "nowhere to write": {
        "HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere/cache",
        "XDG_CONFIG_HOME": "/proc/nowhere/config",
    },
    "odd variables": {
        "OMP_NUM_THREADS": "abc", "NUMBA_NUM_THREADS": "abc", "MPLBACKEND": "TkAgg",
        "PYTHONWARNINGS": "error", "TZ": "Asia/Kathmandu", "LC_ALL": "C", "LANG": "C",
        "PYTHONSTARTUP": "/no/such/file", "PYTHONHASHSEED": "3", "PYTHONIOENCODING": "ascii",
        "KERAS_BACKEND": "theano", "KERAS_MAX_EPOCHS": "many",
    },
}  # fmt: skip
PATTERNS = ["catalog/**/*.parquet", "catalog/*.properties", "cutouts/*", "quality/*", "figures/*"]


class World(PlainSurvey):
    """A survey that is run with variables of its own."""

    def run_in(self, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "--configfile", "config.yaml", "--cores", "2"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder / "scripts"), **environment},
            capture_output=True, text=True, check=False, preexec_fn=lambda: os.umask(0o077),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr


def made_in(folder, **environment) -> dict[str, bytes]:
    survey = World(folder)
    survey.write_tile(0)
    survey.write_sources(sources_of(0))
    survey.write_config(plain_config())
    survey.run_in(**environment)
    return {name: data for pattern in PATTERNS for name, data in survey.contents(pattern).items()}


@pytest.mark.slow
def test_the_bytes_are_the_same(tmp_path):
    plain = made_in(tmp_path / "plain")
    assert len(plain) > 10
    for number, (name, environment) in enumerate(WORLDS.items()):
        assert made_in(tmp_path / str(number), **environment) == plain, name
