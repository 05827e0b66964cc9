"""The pinned requirements and the conda environments agree."""

import re
import runpy
from pathlib import Path

import pytest
import yaml

ENVS = Path(__file__).parents[2] / "envs"
CONDA = runpy.run_path(str(ENVS / "make_conda.py"))
PINNED = {
    "cpu": "requirements.in",
    "gpu": "requirements-gpu.in",
    "test": "requirements-test.in",
}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(variant):
    """Versions with their markers by canonical name."""
    found = {}
    for name, version, marker in CONDA["pins"](ENVS / f"requirements-{variant}.txt"):
        found.setdefault(canonical(name), set()).add(version + marker)
    return found


@pytest.mark.parametrize("variant", PINNED)
def test_every_direct_requirement_is_pinned(variant):
    direct = CONDA["direct"](ENVS / PINNED[variant])
    assert len(direct) >= 7
    assert {canonical(name) for name in direct} <= set(pins(variant))


@pytest.mark.parametrize("variant", PINNED)
def test_every_requirement_is_a_pin_with_a_hash(variant):
    text = (ENVS / f"requirements-{variant}.txt").read_text()
    logical = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text, flags=re.M)).splitlines()
    assert all(re.match(r"[\w.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line) for line in logical)
    assert len(logical) == sum(map(len, pins(variant).values()))


@pytest.mark.parametrize("variant", PINNED)
def test_no_address_or_machine_path(variant):
    text = (ENVS / f"requirements-{variant}.txt").read_text()
    assert not re.findall(r"https?:|file:|//|--index|--extra-index|--find-links|(?<!\w)/\w", text)


@pytest.mark.parametrize("variant", ["gpu", "test"])
def test_versions_are_those_of_cpu(variant):
    cpu, other = pins("cpu"), pins(variant)
    shared = set(cpu) & set(other) - {"tensorflow"}
    versions = {
        name: ({pin.split(" ;")[0] for pin in cpu[name]}, {p.split(" ;")[0] for p in other[name]})
        for name in shared
    }
    assert {name: both for name, both in versions.items() if not both[1] <= both[0]} == {}


def test_both_tensorflows_are_of_one_version():
    cpu, gpu = pins("cpu"), pins("gpu")
    found = cpu["tensorflow"] | cpu["tensorflow-cpu"] | gpu["tensorflow"]
    assert len({pin.split(" ;")[0] for pin in found}) == 1


def test_gpu_differs_from_cpu_in_tensorflow_only():
    cpu = {*CONDA["direct"](ENVS / "requirements.in")} - {"tensorflow-cpu"}
    gpu = CONDA["direct"](ENVS / "requirements-gpu.in")
    assert cpu == set(gpu)
    assert gpu["tensorflow"] == "[and-cuda]"


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_conda_file_has_the_pinned_versions(variant):
    text = (ENVS / f"luneta-{variant}.yaml").read_text()
    assert text == CONDA["environment"](variant), "run `make requirements`"
    given = yaml.safe_load(text)
    assert given["channels"] == ["conda-forge", "nodefaults"]
    listed = {}
    for line in given["dependencies"][-1]["pip"]:
        name, version = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?(==.*)", line).groups()
        listed.setdefault(canonical(name), set()).add(version)
    direct = {canonical(name) for name in CONDA["direct"](ENVS / PINNED[variant])}
    assert listed == {name: pin for name, pin in pins(variant).items() if name in direct}
