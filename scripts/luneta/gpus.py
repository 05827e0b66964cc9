"""One job, one GPU: a job takes its devices before anything can start CUDA."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from luneta import flocks

logger = logging.getLogger(__name__)

LOCKS = Path("/tmp/luneta-gpus")  # one for all users and jobs of a machine, unlike $TMPDIR
QUERY = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
WAIT = 1.0  # seconds between two looks for a free device
VISIBLE = "CUDA_VISIBLE_DEVICES"
_held: list[int] = []  # open files, and so locks, for as long as the process lives


class DeviceError(RuntimeError):
    """A device was asked for that is not there; the message names what is, and the fix."""


@dataclass(frozen=True)
class Gpu:
    """A GPU by the name that CUDA knows it by: its UUID, or what was given in its place."""

    name: str
    index: str = ""
    model: str = ""

    def __str__(self) -> str:
        known = [self.model, self.name if self.name != self.index else ""]
        return f"GPU {self.index or '?'}: {', '.join(filter(None, known)) or 'model not known'}"


def claim(
    wanted: int | None,
    device: str,
    environment: MutableMapping[str, str] = os.environ,
    locks: Path = LOCKS,
) -> str:
    """Take the GPUs of a job, for as long as its process lives, and hide all others from it.

    Call it before anything can start CUDA, which reads CUDA_VISIBLE_DEVICES once.

    Parameters
    ----------
    wanted
        `gpu` among the job's resources; nothing if its profile does not speak of GPUs, which is
        one if the machine has any.
    device
        `device` of the config: `cpu` takes none, `gpu` stops where there is none, `auto` takes
        what is there.
    environment
        Variables of the process; CUDA_VISIBLE_DEVICES is set in them.
    locks
        Folder with a file for each device.

    Returns
    -------
    device
        What is left to ask of the backend: `gpu` must be seen, `cpu` leaves GPUs alone, `auto`.

    Raises
    ------
    DeviceError
        If fewer GPUs are there than are asked for.
    luneta.flocks.FolderError
        If the folder of locks cannot be trusted.

    Notes
    -----
    Each device is a file with a `flock`, which the kernel frees when the process ends, however it
    ends. Under Slurm, devices are those that it has given. `LUNETA_GPUS=a,b` names devices that
    stand for GPUs on a machine without, for tests: they are dealt and logged like GPUs, and the
    job computes on the processor.
    """
    asked = bool(wanted) or device == "gpu"
    if device == "cpu" or (device == "auto" and wanted == 0):
        environment[VISIBLE] = ""
        return "cpu"
    fake = "LUNETA_GPUS" in environment
    if not fake and _without_cuda(environment):
        if asked:
            raise DeviceError(
                f"{_who(wanted)}, but TensorFlow is installed without CUDA: make the environment "
                "anew with `make GPU=1 ...`, or set device: cpu"
            )
        environment[VISIBLE] = ""
        return "cpu"
    there = devices(environment)
    if there is None:
        return "gpu" if asked else "auto"
    if not there and not asked:
        environment[VISIBLE] = ""
        return "cpu"
    if len(there) < (wanted or 1):
        raise DeviceError(_too_few(wanted, there, environment))
    taken = _take(there, wanted or 1, locks, environment.get("SLURM_JOB_ID", "local"))
    environment[VISIBLE] = ",".join(gpu.name for gpu in taken)
    environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as nvidia-smi counts
    logger.info("Taken: %s, %s", "; ".join(map(str, taken)), _place(environment))
    if fake:
        return "cpu"
    return "gpu" if asked else "auto"


def devices(environment: Mapping[str, str] = os.environ) -> list[Gpu] | None:
    """List the GPUs that jobs here may take; nothing if that cannot be told.

    CUDA_VISIBLE_DEVICES narrows them, and under Slurm what it has given the job.
    """
    slurm = "SLURM_JOB_ID" in environment
    names = (VISIBLE, "SLURM_STEP_GPUS", "SLURM_JOB_GPUS") if slurm else (VISIBLE,)
    given = next((environment[name] for name in names if name in environment), None)
    if given is None and slurm:
        return []
    if "LUNETA_GPUS" in environment:
        listed = environment["LUNETA_GPUS"].split(",")
        found = [Gpu(name, str(index)) for index, name in enumerate(listed) if name]
    else:
        found = _nvidia()
    return found if given is None else _chosen(given, found)


def _nvidia() -> list[Gpu] | None:
    """Ask the driver; nothing if there is none to ask."""
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        logger.warning("nvidia-smi finds no GPU: %s", (done.stdout + done.stderr).strip())
        return []
    rows = [re.split(r",\s*", line, maxsplit=2) for line in done.stdout.splitlines() if line]
    return [Gpu(uuid, index, model) for index, uuid, model in rows]


def _chosen(given: str, found: list[Gpu] | None) -> list[Gpu]:
    """Look up a list of indices and UUIDs; as with CUDA, what is not there ends it."""
    chosen = []
    for entry in _entries(given):
        match = [gpu for gpu in found or [] if entry == gpu.index or gpu.name.startswith(entry)]
        if match:
            chosen.append(match[0])
        elif found is None or entry.startswith("MIG-"):  # parts of a GPU are listed elsewhere
            chosen.append(Gpu(entry, entry if entry.isdigit() else ""))
        else:
            break
    return list(dict.fromkeys(chosen))


def _entries(given: str) -> Iterator[str]:
    """Give each of `0,2-3,GPU-1a2b`, up to what stands for none."""
    for entry in filter(None, (part.strip() for part in given.split(","))):
        if entry in ("-1", "NoDevFiles", "void", "none"):
            return
        span = re.fullmatch(r"(\d+)-(\d+)", entry)
        yield from map(str, range(int(span[1]), int(span[2]) + 1)) if span else [entry]


def _without_cuda(environment: Mapping[str, str]) -> bool:
    if environment.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        return False
    try:
        importlib.metadata.version("tensorflow-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _take(there: list[Gpu], count: int, locks: Path, owner: str) -> list[Gpu]:
    """Lock so many of the devices, all at once; wait until they are free."""
    flocks.shared_folder(locks)
    files = {gpu: locks / re.sub(r"[^\w-]", "_", f"{owner}-{gpu.name}") for gpu in there}
    said = False
    while True:
        with flocks.turn(locks):  # so that nobody ends up with half of what it needs
            flocks.sweep(locks, set(files.values()))
            got = {gpu: held for gpu in there if (held := flocks.lock(files[gpu])) is not None}
            for gpu in list(got)[count:] if len(got) >= count else list(got):
                os.close(got.pop(gpu))
        if got:
            _held.extend(got.values())
            return list(got)
        if not said:
            logger.info("Waiting for %d of %s: other jobs hold them", count, names(there))
            said = True
        time.sleep(WAIT)


def names(gpus: list[Gpu]) -> str:
    """Name some GPUs in a sentence."""
    return "; ".join(map(str, gpus)) or "no GPU"


def _who(wanted: int | None) -> str:
    return f"The profile asks for {wanted} GPU (resource gpu)" if wanted else "device: gpu"


def _too_few(wanted: int | None, there: list[Gpu], environment: Mapping[str, str]) -> str:
    job = environment.get("SLURM_JOB_ID")
    if job:
        seen = f"Slurm has given job {job} {names(there)}"
        fix = "set `gpu` for this rule in the profile, see workflow/profiles/slurm"
    else:
        seen = f"there is {names(there)} on {socket.gethostname()}"
        if VISIBLE in environment:
            seen += f" ({VISIBLE} is {environment[VISIBLE]!r})"
        fix = "ask for what is there (resource gpu in the profile)"
    return f"{_who(wanted)}, but {seen}: {fix}, or set device: auto or cpu"


def _place(environment: Mapping[str, str]) -> str:
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        return f"on {socket.gethostname()}"
    node = environment.get("SLURMD_NODENAME", socket.gethostname())
    return f"given by Slurm to job {job} on node {node}"
