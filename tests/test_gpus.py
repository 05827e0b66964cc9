"""Concurrent jobs each have a GPU of their own; the fake list stands for those of a machine."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from luneta import flocks, gpus

PATIENCE = 60  # seconds, on a machine that is busy
JOB = """
import logging, sys
from pathlib import Path
from luneta import gpus
logging.basicConfig(stream=sys.stdout, format="%(message)s", level="INFO")
gpus.WAIT = 0.05
environment = {"LUNETA_GPUS": sys.argv[1]}
gpus.claim(int(sys.argv[2]), "auto", environment, Path(sys.argv[3]))
print("has", environment["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.readline()
"""


class Job:
    """A process that takes GPUs, says which, and holds them until it is told to end."""

    def __init__(self, folder: Path, wanted: int = 1, there: str = "a,b"):
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOB, there, str(wanted), str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def has(self) -> str:
        """What it has in the end."""
        lines = iter(self.process.stdout.readline, "")
        return next(line for line in lines if line.startswith("has ")).split()[1]

    def waits(self) -> bool:
        return self.process.stdout.readline().startswith("Waiting for ")

    def end(self):
        self.process.communicate("\n", timeout=PATIENCE)


@pytest.fixture
def start(tmp_path):
    jobs = []

    def start_job(*arguments, **options):
        jobs.append(Job(tmp_path, *arguments, **options))
        return jobs[-1]

    yield start_job
    for job in jobs:
        job.process.kill()
        job.process.wait()


def take(environment, wanted=None, device="auto", locks=None):
    given = gpus.claim(wanted, device, environment, locks)
    return given, environment["CUDA_VISIBLE_DEVICES"]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose nvidia-smi lists two cards, with TensorFlow for CUDA."""
    listed = "0, GPU-1111-aa, NVIDIA A100-SXM4-40GB\n1, GPU-2222-bb, NVIDIA T4, small\n"
    script = tmp_path / "bin/nvidia-smi"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\nprintf '{listed}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent))
    monkeypatch.setattr(gpus, "_without_cuda", lambda environment: False)
    held = list(gpus._held)
    yield script
    for descriptor in set(gpus._held) - set(held):
        os.close(descriptor)
    gpus._held[:] = held


def test_two_jobs_have_two_devices_and_a_third_waits(start):
    first, second = start(), start()
    assert {first.has(), second.has()} == {"a", "b"}
    third = start()
    assert third.waits()
    first.end()
    assert third.has() in {"a", "b"}


def test_a_killed_job_leaves_its_device_to_the_next(start):
    first, second = start(), start()
    freed, kept = first.has(), second.has()
    third = start()
    assert third.waits()
    os.kill(first.process.pid, signal.SIGKILL)
    assert third.has() == freed != kept


def test_many_jobs_at_once_never_share(start):
    jobs = [start(there="a,b,c,d,e") for _ in range(5)]
    assert sorted(job.has() for job in jobs) == ["a", "b", "c", "d", "e"]


def test_a_job_takes_all_it_needs_or_nothing(start):
    one = start()
    one.has()
    both = start(2)
    assert both.waits()
    other = start()
    assert other.has() in {"a", "b"}
    one.end()
    other.end()
    assert both.has() == "a,b"


def test_the_log_names_index_model_and_uuid(machine, tmp_path, caplog):
    caplog.set_level("INFO")
    assert take({}, 1, locks=tmp_path / "locks") == ("gpu", "GPU-1111-aa")
    assert take({}, 1, locks=tmp_path / "locks") == ("gpu", "GPU-2222-bb")
    assert "Taken: GPU 0: NVIDIA A100-SXM4-40GB, GPU-1111-aa, on " in caplog.messages[0]
    assert "Taken: GPU 1: NVIDIA T4, small, GPU-2222-bb, on " in caplog.messages[1]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("1", ["GPU-2222-bb"]), ("1,0", ["GPU-2222-bb", "GPU-1111-aa"]), ("GPU-22", ["GPU-2222-bb"]),
     ("", []), ("-1", []), ("NoDevFiles", []), ("0,7,1", ["GPU-1111-aa"]),
     ("MIG-5", ["MIG-5"]), ("0-1", ["GPU-1111-aa", "GPU-2222-bb"])],
)  # fmt: skip
def test_visible_devices_narrow_what_is_there(machine, visible, expected):
    found = gpus.devices({"CUDA_VISIBLE_DEVICES": visible})
    assert [gpu.name for gpu in found] == expected


def test_under_slurm_the_given_device_is_taken(machine, tmp_path, caplog):
    caplog.set_level("INFO")
    job = {"SLURM_JOB_ID": "17", "CUDA_VISIBLE_DEVICES": "1", "SLURMD_NODENAME": "n4"}
    assert take(job, 1, locks=tmp_path / "locks") == ("gpu", "GPU-2222-bb")
    assert "given by Slurm to job 17 on node n4" in caplog.text
    step = {"SLURM_JOB_ID": "18", "SLURM_STEP_GPUS": "1"}
    assert take(step, 1, locks=tmp_path / "locks") == ("gpu", "GPU-2222-bb")


def test_two_jobs_within_one_allocation_of_slurm_share_it_out(machine, tmp_path):
    allocation = {"SLURM_JOB_ID": "17", "CUDA_VISIBLE_DEVICES": "0,1"}
    taken = [take(dict(allocation), 1, locks=tmp_path / "locks")[1] for _ in range(2)]
    assert taken == ["GPU-1111-aa", "GPU-2222-bb"]


def test_what_slurm_has_not_given_is_not_touched(machine, tmp_path):
    assert take({"SLURM_JOB_ID": "17"}, locks=tmp_path / "locks") == ("cpu", "")
    with pytest.raises(gpus.DeviceError, match="Slurm has given job 17 no GPU: set `gpu`"):
        take({"SLURM_JOB_ID": "17"}, 1, locks=tmp_path / "locks")


def test_a_gpu_asked_for_and_not_there_is_an_error(machine, tmp_path):
    with pytest.raises(gpus.DeviceError, match="asks for 3 GPU.*there is GPU 0: NVIDIA A100"):
        take({}, 3, locks=tmp_path / "locks")
    with pytest.raises(gpus.DeviceError, match=r"^device: gpu, but there is no GPU.*is ''\)"):
        take({"CUDA_VISIBLE_DEVICES": ""}, device="gpu", locks=tmp_path / "locks")


def test_cpu_leaves_gpus_to_others(machine, tmp_path):
    assert take({}, 1, "cpu", tmp_path / "locks") == ("cpu", "")
    assert take({}, 0, "auto", tmp_path / "locks") == ("cpu", "")
    assert not (tmp_path / "locks").exists()


def test_without_a_driver_the_backend_is_asked(machine, tmp_path):
    machine.unlink()
    assert gpus.devices({}) is None
    assert gpus.claim(None, "auto", {}, tmp_path / "locks") == "auto"
    assert gpus.claim(1, "auto", {}, tmp_path / "locks") == "gpu"


def test_a_driver_that_fails_has_no_gpu(machine, tmp_path, caplog):
    machine.write_text("#!/bin/sh\necho NVIDIA-SMI has failed; exit 9\n")
    assert take({}, locks=tmp_path / "locks") == ("cpu", "")
    assert "nvidia-smi finds no GPU: NVIDIA-SMI has failed" in caplog.text


def test_tensorflow_without_cuda_says_how_to_mend_it(machine, tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "_without_cuda", lambda environment: True)
    assert take({}, locks=tmp_path / "locks") == ("cpu", "")
    with pytest.raises(gpus.DeviceError, match="without CUDA: make the environment anew with"):
        take({}, 1, locks=tmp_path / "locks")


def test_locks_of_ended_jobs_of_slurm_are_swept_away(machine, tmp_path):
    locks = tmp_path / "locks"
    locks.mkdir()
    (locks / "16-GPU-1111-aa").touch()
    take({"SLURM_JOB_ID": "17", "CUDA_VISIBLE_DEVICES": "0"}, 1, locks=locks)
    take({"SLURM_JOB_ID": "18", "CUDA_VISIBLE_DEVICES": "1"}, 1, locks=locks)
    assert {path.name for path in locks.iterdir()} == {"turn", "17-GPU-1111-aa", "18-GPU-2222-bb"}


def test_other_users_may_lock_what_one_with_a_narrow_umask_has_made(tmp_path):
    before = os.umask(0o077)
    try:
        folder = flocks.shared_folder(tmp_path / "locks")
        with flocks.turn(folder):
            os.close(flocks.lock(folder / "local-a"))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in folder.iterdir()}
    assert modes == {"turn": 0o644, "local-a": 0o644}
    assert folder.stat().st_mode & 0o7777 == 0o1777
