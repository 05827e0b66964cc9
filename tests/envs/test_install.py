"""The set-up runs when a pinned file has changed, and only then."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "envs" / "install.py"


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """install.py in an empty repository; calling it gives the files that pip was asked for."""
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "envs").mkdir()
    for name in ("requirements-cpu.txt", "requirements-gpu.txt", "requirements-test.txt"):
        (tmp_path / "envs" / name).write_text(name)
    (tmp_path / "pyproject.toml").write_text("")
    venv = tmp_path / ".venv"
    for name, path in {
        "ROOT": tmp_path,
        "VENV": venv,
        "PYTHON": venv / "bin" / "python",
        "STAMP": venv / "luneta-setup.json",
        "UNFINISHED": venv / "luneta-setup-unfinished",
    }.items():
        monkeypatch.setattr(module, name, path)
    return module


def run(module, monkeypatch, *arguments, fail=()):
    """Run the set-up with pip and venv replaced; list what they were asked for."""
    asked = []

    def pretend(command, **_):
        what = "venv" if "venv" in command else Path(command[-1]).name
        if "-c" in command:
            return subprocess.CompletedProcess(command, 0)
        if what == "venv" or command[-1].endswith(".venv"):
            asked.append("venv")
            module.PYTHON.parent.mkdir(parents=True)
            module.PYTHON.touch()
            return subprocess.CompletedProcess(command, 0)
        asked.append(what if what.startswith("requirements") else "luneta")
        return subprocess.CompletedProcess(command, int(asked[-1] in fail))

    monkeypatch.setattr(module.subprocess, "run", pretend)
    monkeypatch.setattr(sys, "argv", ["install.py", *arguments])
    module.main()
    return asked


def test_second_run_does_nothing(setup, monkeypatch):
    assert run(setup, monkeypatch) == ["venv", "requirements-cpu.txt", "luneta"]
    assert run(setup, monkeypatch) == []
    assert run(setup, monkeypatch, "--tests") == ["requirements-test.txt"]
    assert run(setup, monkeypatch) == []


def test_content_counts_and_time_does_not(setup, monkeypatch, tmp_path):
    run(setup, monkeypatch)
    pinned = tmp_path / "envs" / "requirements-cpu.txt"
    pinned.touch()
    assert run(setup, monkeypatch) == []
    pinned.write_text("changed")
    assert run(setup, monkeypatch) == ["requirements-cpu.txt"]


def test_failed_setup_starts_over(setup, monkeypatch):
    with pytest.raises(SystemExit, match=r"stopped at requirements-cpu\.txt"):
        run(setup, monkeypatch, fail=["requirements-cpu.txt"])
    assert run(setup, monkeypatch) == ["venv", "requirements-cpu.txt", "luneta"]


def test_other_tensorflow_starts_over(setup, monkeypatch):
    run(setup, monkeypatch)
    assert run(setup, monkeypatch, "--gpu") == ["venv", "requirements-gpu.txt", "luneta"]


@pytest.mark.parametrize("version", [(3, 10), (3, 14)])
def test_unsuitable_python_is_told_so(setup, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match=r"luneta needs Python 3\.11 to 3\.13; .* make PYTHON="):
        setup.check_version()
