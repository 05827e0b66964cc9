"""The demo on a real Slurm: same bytes, a GPU for each job, faults survived, clear messages."""

import os
import re
import signal
from contextlib import suppress
from pathlib import Path

from slurm_cluster import NODES, until

MADE = ("objects/**/*", "quality/**/*", "predictions/**/*", "embeddings/**/*", "catalog/**/*")
USE_A_GPU = {"pretrain": 1, "finetune": 2, "evaluate": 1, "infer": 2, "embed": 2}
TAKEN = r"Taken: GPU 0: stands_for_a_gpu, given by Slurm to job (\d+) on node (n\d)"


def made(demo) -> dict[str, bytes]:
    found = [path for pattern in MADE for path in demo.results.glob(pattern) if path.is_file()]
    return {str(path.relative_to(demo.results)): path.read_bytes() for path in found}


def taken(demo, rule) -> list[tuple[str, str]]:
    """Slurm's job and node of each job of a rule, by its log."""
    logs = sorted((demo.results / "logs" / rule).rglob("*.log"))
    return [re.search(TAKEN, log.read_text()).groups() for log in logs]


def finished_jobs(slurm) -> dict[str, dict[str, str]]:
    """What Slurm notes of each attempt of a job at its end, the last attempt counting."""
    lines = (slurm.folder / "jobs.txt").read_text().splitlines()
    jobs = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]
    return {job["JobId"]: job for job in jobs}


def test_the_catalog_is_that_of_a_local_run_byte_for_byte(remote, local):
    here, there = made(local), made(remote)
    assert sorted(here) == sorted(there)
    assert [name for name in here if here[name] != there[name]] == []
    assert any(name.startswith("catalog/") for name in here)


def test_every_job_that_needs_one_has_a_gpu_and_names_it(remote):
    jobs = {rule: taken(remote, rule) for rule in USE_A_GPU}
    assert {rule: len(found) for rule, found in jobs.items()} == USE_A_GPU
    assert {node for found in jobs.values() for _, node in found} == set(NODES)


def test_jobs_with_a_gpu_ran_on_both_nodes_at_once_and_never_two_on_one(remote, slurm):
    jobs = finished_jobs(slurm)
    spans = [
        (jobs[job]["StartTime"], jobs[job]["EndTime"], node)
        for rule in ("finetune", "infer", "embed") for job, node in taken(remote, rule)
    ]  # fmt: skip
    pairs = [(one, other) for n, one in enumerate(spans) for other in spans[:n]]
    at_once = [(a, b) for a, b in pairs if a[0] < b[1] and b[0] < a[1]]
    assert at_once
    assert all(a[2] != b[2] for a, b in at_once)


def test_a_job_that_exceeds_its_memory_is_retried_with_more(remote, slurm):
    logs = "".join(path.read_text() for path in slurm.folder.glob("slurmd-n?.log"))
    killed = set(re.findall(r"StepId=(\d+)\.batch exceeded memory limit", logs))
    jobs = finished_jobs(slurm)
    assert len(killed) == 2
    assert {memory(jobs[job]) for job in killed} == {"100M"}
    assert {jobs[job]["JobState"] for job in killed} <= {"FAILED", "OUT_OF_MEMORY", "CANCELLED"}
    assert {memory(job) for name, job in jobs.items() if name not in killed} == {"1500M"}
    assert remote.log.count("Trying to restart job") == 2


def memory(job: dict[str, str]) -> str:
    return re.search(r"mem=(\w+)", job["Tres"])[1]


def test_shards_are_read_from_a_disk_of_the_node_and_leave_nothing_there(remote):
    logs = (remote.results / "logs/infer").rglob("*.log")
    line = re.compile(r"cutouts/(demo_\d)\.arrow copied to (\S+): ")
    copied = [line.search(log.read_text()) for log in logs]
    assert sorted(found[1] for found in copied) == ["demo_0", "demo_1"]
    assert all(found[2].startswith(f"{remote.scratch}/") for found in copied)
    assert [path.name for path in (remote.scratch / "luneta-staged").iterdir()] == ["turn"]


def test_two_shards_at_once_and_a_node_that_fails(remote, local, slurm):
    run = remote.start(slurm, "--forcerun", "infer", "--until", "infer")
    try:
        infer = until(lambda: pair_of_shards(slurm), 240, "two shards at once")
        assert {job["node"] for job in infer} == set(NODES)
        power_cut(slurm, "n2")
        assert run.wait(600) == 0, remote.said.read_text()[-6000:]
    finally:
        run.kill()
        if "n2" not in slurm.daemons:
            slurm.start_node("n2")
        slurm.command("scontrol", "update", "NodeName=n2", "State=RESUME", check=False)
    assert "JobState=NODE_FAIL" in (slurm.folder / "jobs.txt").read_text()
    assert {node for _, node in taken(remote, "infer")} == {"n1"}
    assert made(remote) == made(local)


def pair_of_shards(slurm) -> list[dict[str, str]]:
    infer = [job for job in slurm.running() if job["comment"].startswith("rule_infer")]
    return infer if len(infer) == 2 else []


def power_cut(slurm, node: str) -> None:
    """End all of a node at once, with no good-bye: its daemon, those that watch jobs, the jobs."""
    slurm.kill(node)
    for pid in [*watchers(slurm, node), *slurm.processes(f"SLURMD_NODENAME={node}")]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def watchers(slurm, node: str) -> list[int]:
    """Each slurmstepd of a node, which holds the node's log open."""
    log = str(slurm.folder / f"slurmd-{node}.log")
    return [pid for pid in slurm.processes() if log in opened(pid)]


def opened(pid: int) -> set[str]:
    try:
        return {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return set()


def refused(demo, slurm, **changes) -> str:
    """What a run says that cannot work; it submits no job."""
    before = slurm.command("squeue", "--states=all", "--noheader", "--format=%i")
    code, said = demo.run_on(slurm, "--forcerun", "catalog", **changes)
    assert code != 0
    assert "Traceback" not in said
    assert slurm.command("squeue", "--states=all", "--noheader", "--format=%i") == before
    return said


def test_a_partition_that_does_not_exist_is_named_before_any_job(remote, slurm):
    said = refused(remote, slurm, **{"default-resources": {"slurm_partition": "'gpus'"}})
    assert said.count("slurm_partition: gpus: this cluster has no such partition, but gpu") == 1


def test_without_an_accounting_database_the_mend_is_named(remote, slurm):
    said = refused(remote, slurm, **{"slurm-status-command": "sacct"})
    assert said.count("this cluster has no accounting database (Slurm accounting storage is") == 1
    assert "set slurm-status-command: squeue" in said


def test_a_slurm_that_forgets_too_soon_is_not_asked(remote, slurm):
    said = refused(remote, slurm, **{"slurm-init-seconds-before-status-checks": 300})
    assert "(MinJobAge) and is asked every 300 s: set slurm-init-seconds-before-status" in said
