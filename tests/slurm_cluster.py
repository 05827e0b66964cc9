"""A Slurm cluster of two nodes on this machine, wholly within one folder."""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PACKAGES = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "srun": "slurm-client",
}
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
NODES = ("n1", "n2")
MEMORY_MB = 6000  # of each node; nobody takes that much: it is for Slurm to count
FAKE_GPUS = ("/dev/tty1", "/dev/tty2")  # character devices, which is all that Slurm asks of a GPU

DIE_WITH_US = ("setpriv", "--pdeathsig", "TERM")  # if the tests are killed

CONFIG = """\
ClusterName=luneta
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=45
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
MpiDefault=none
SlurmdTimeout=10
SchedulerParameters=sched_interval=2,batch_sched_delay=1
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} {size}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} {size}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Say why no cluster can be started here, or nothing if it can."""
    if os.geteuid() != 0:
        return "slurmd starts jobs as root only, and this is another user"
    missing = {package for command, package in PACKAGES.items() if not which(command)}
    if missing:
        return f"not installed here: apt-get install {' '.join(sorted(missing))}"
    lacking = [device for device in FAKE_GPUS if not Path(device).is_char_device()]
    if lacking:
        return f"{' and '.join(lacking)}, which stand for GPUs, are not there"
    return None


def which(command: str) -> str | None:
    return shutil.which(command, path=PATH)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; held all at once, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(happens, seconds: float, what: str):
    """Ask again and again until the answer is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = happens()
        if answer:
            return answer
        time.sleep(0.3)
    raise TimeoutError(f"{what}: not within {seconds:g} s")


class Slurm:
    """slurmctld and two slurmd, each with a GPU that is none, and a munge of their own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen] = {}
        self.env = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder}/bin:{PATH}"}

    def __enter__(self) -> "Slurm":
        try:
            self._configure()
            self._start_munge()
            self._start("slurmctld", "-D", "-c")
            for node in NODES:
                self.start_node(node)
            until(lambda: self.states() == dict.fromkeys(NODES, "IDLE"), 30, self._logs())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        """End jobs, then daemons; nothing of the cluster runs on."""
        if "slurmctld" in self.daemons:
            self.command("scancel", "--full", "--user", getpass.getuser(), check=False)
        for name in reversed(list(self.daemons)):
            self.kill(name, signal.SIGTERM)
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _configure(self) -> None:
        values = {
            "folder": self.folder,
            "host": socket.gethostname().split(".")[0],
            "user": getpass.getuser(),
            "ports": free_ports(3),
            "size": f"CPUs=2 RealMemory={MEMORY_MB} Gres=gpu:1 State=UNKNOWN",
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        (self.folder / "slurm.conf").write_text(CONFIG.format(**values))
        gpus = zip(NODES, FAKE_GPUS, strict=True)
        lines = [f"NodeName={node} Name=gpu File={device}\n" for node, device in gpus]
        (self.folder / "gres.conf").write_text("".join(lines))
        (self.folder / "state").mkdir()
        self._wrap_srun()

    def _wrap_srun(self) -> None:
        """Tell srun of this cluster: Snakemake's jobs drop most variables that begin with SLURM."""
        wrapper = self.folder / "bin/srun"
        wrapper.parent.mkdir()
        line = f'SLURM_CONF={self.env["SLURM_CONF"]} exec {which("srun")} "$@"'
        wrapper.write_text(f"#!/bin/sh\n{line}\n")
        wrapper.chmod(0o755)

    def _start_munge(self) -> None:
        munge = self.folder / "munge"
        munge.mkdir(mode=0o755)
        key = munge / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        options = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid",
                   "seed-file": "seed"}  # fmt: skip
        arguments = [f"--{name}={munge / file}" for name, file in options.items()]
        self._start("munged", "--foreground", "--force", *arguments)
        until((munge / "socket").exists, 10, "the socket of munged")

    def start_node(self, node: str) -> None:
        self._start("slurmd", "-D", "-N", node, name=node)

    def _start(self, command: str, *arguments: str, name: str = "") -> None:
        with (self.folder / f"{name or command}.out").open("ab") as out:
            self.daemons[name or command] = subprocess.Popen(
                [*DIE_WITH_US, which(command), *arguments],
                env={**os.environ, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def kill(self, name: str, how: int = signal.SIGKILL) -> None:
        """End one daemon, which need not have the time to say good-bye."""
        daemon = self.daemons.pop(name)
        daemon.send_signal(how)
        try:
            daemon.wait(10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def processes(self, mark: str = "") -> list[int]:
        """Processes of this cluster that still run, with another variable if one is given."""
        marks = {f"SLURM_CONF={self.env['SLURM_CONF']}".encode(), mark.encode()} - {b""}
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if marks <= set(environ.read_bytes().split(b"\0")):
                    found.append(int(environ.parent.name))
        return [pid for pid in found if pid != os.getpid()]

    def command(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            words, env={**os.environ, **self.env}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not check, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def states(self) -> dict[str, str]:
        """State of each node, in Slurm's words."""
        lines = self.command("sinfo", "-h", "-N", "-o", "%N %T", check=False).splitlines()
        return {name: state.upper() for name, state in (line.split() for line in lines)}

    def running(self) -> list[dict[str, str]]:
        """Jobs that run now: id, node and comment, in which the plugin names rule and wildcards."""
        text = self.command("squeue", "-h", "-t", "RUNNING", "-o", "%i|%N|%k")
        names = ("id", "node", "comment")
        return [dict(zip(names, line.split("|"), strict=True)) for line in text.splitlines()]

    def _logs(self) -> str:
        return f"both nodes idle; see the logs in {self.folder}"
