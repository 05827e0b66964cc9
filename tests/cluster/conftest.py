"""The demo, smaller, run here and on a Slurm of two nodes that lives as long as the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from slurm_cluster import Slurm, why_not
from tiny_survey import REPOSITORY, Survey

TILES = ["demo_0", "demo_1"]
PROFILE = REPOSITORY / "workflow/profiles/slurm/profile.yaml"
ENOUGH, TOO_LITTLE = 1500, 100  # MB
GPUS = "stands_for_a_gpu"  # LUNETA_GPUS on each node


def demo_config() -> dict:
    """config/demo.yaml with fewer and smaller tiles, one task and a small network."""
    config = yaml.safe_load((REPOSITORY / "config/demo.yaml").read_text())
    config["simulation"] |= {
        "pixels": 420, "objects": 60, "lens_fraction": 0.4, "label_fraction": 0.9,
    }  # fmt: skip
    config["input"]["tiles"] = "tiles.tsv"
    config["cutouts"]["size"] = 32
    del config["training"]["width"], config["tasks"]["lens"]
    config["training"] |= {"backbone": "LeNet5", "folds": 2, "fine_tune_epochs": 1}
    config["pretraining"] |= {"galaxies": 100, "epochs": 1}
    config["clustering"] |= {"components": 8, "smallest_group": 5}
    labels = [f"results/demo/raw/{tile}_labels.csv" for tile in TILES]
    config["tasks"]["morphology"] |= {"labels": labels, "label_tiles": TILES}
    return config


class Demo(Survey):
    """The small demo in a folder of its own."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.results = folder / "results/demo"
        self.scratch = folder / "disk_of_the_node"
        self.write(demo_config(), TILES)
        table = folder / "tiles.tsv"
        table.write_text(table.read_text().replace("results/tiny", "results/demo"))

    def write_profile(self, **changes) -> str:
        """Adapt the profile to the two nodes; name its folder."""
        profile = yaml.safe_load(PROFILE.read_text())
        del profile["set-threads"]
        for resources in (profile["default-resources"], *profile["set-resources"].values()):
            resources["mem_mb"] = f"attempt * {ENOUGH}"
        # The first attempt has less than a job's own Snakemake takes.
        profile["set-resources"]["cutouts"]["mem_mb"] = f"{ENOUGH} if attempt > 1 else {TOO_LITTLE}"
        profile["set-resources"]["infer"]["scratch"] = f"'{self.scratch}'"
        profile |= {
            "cores": 2,  # of a node: no job has more threads
            "latency-wait": 10,
            "slurm-init-seconds-before-status-checks": 2,
            "slurm-status-command": "squeue",  # there is no accounting database
            "slurm-keep-successful-logs": True,
        }
        profile |= changes
        folder = self.folder / "profile"
        folder.mkdir(exist_ok=True)
        (folder / "profile.yaml").write_text(yaml.safe_dump(profile))
        return str(folder)

    def start(self, slurm: Slurm, *arguments: str, **changes) -> subprocess.Popen:
        """Start Snakemake on the cluster; what it says goes to `said`."""
        self.said = self.folder / "said.txt"
        environment = {
            **os.environ, **slurm.env, "PYTHONPATH": str(self.folder / "scripts"),
            "LUNETA_GPUS": GPUS,
        }  # fmt: skip
        with self.said.open("w") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--configfile", "config.yaml",
                 "--workflow-profile", self.write_profile(**changes), *arguments],
                cwd=self.folder, env=environment, stdout=said, stderr=said,
            )  # fmt: skip

    def run_on(self, slurm: Slurm, *arguments: str, **changes) -> tuple[int, str]:
        """Run Snakemake on the cluster to its end: exit status and what it said."""
        code = self.start(slurm, *arguments, **changes).wait(1800)
        return code, self.said.read_text()


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """Two nodes with a GPU each."""
    reason = why_not()
    if reason:
        pytest.skip(f"No Slurm can be started here: {reason}")
    with Slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def demos(tmp_path_factory) -> dict[str, Demo]:
    """Two copies of the workflow, made at one time."""
    folder = tmp_path_factory.mktemp("demos")
    return {where: Demo(folder / where) for where in ("local", "remote")}


@pytest.fixture(scope="session")
def local(demos) -> Demo:
    """The demo, run on this machine."""
    demos["local"].log = demos["local"].run()
    return demos["local"]


@pytest.fixture(scope="session")
def remote(slurm, demos) -> Demo:
    """The demo, run on the cluster; the first attempts at `cutouts` have too little memory."""
    code, demos["remote"].log = demos["remote"].run_on(slurm)
    assert code == 0, demos["remote"].log[-9000:]
    return demos["remote"]
