"""Make .venv and install the pinned requirements, unless they are there already.

The Makefile runs this with whatever `python3` is, so it needs the standard library only, and
its syntax is one that an outdated Python can read far enough to say so.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "luneta-setup.json"
UNFINISHED = VENV / "luneta-setup-unfinished"
LOWEST, BEYOND = (3, 11), (3, 14)
PIP = ["-I", "-m", "pip", "--disable-pip-version-check", "install"]


def digest(path):
    """Give the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def steps(runtime, tests):
    """List what is installed, in this order: pip's arguments by the file that decides them."""
    pinned = [ROOT / "envs" / runtime]
    if tests:
        pinned.append(ROOT / "envs" / "requirements-test.txt")
    found = {path: ["--no-deps", "--require-hashes", "-r", str(path)] for path in pinned}
    found[ROOT / "pyproject.toml"] = ["--no-deps", "--no-build-isolation", "-e", str(ROOT)]
    return found


def installed():
    """Read what earlier runs have finished: digest by file name."""
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def works():
    """Say whether .venv holds a Python that starts and has pip."""
    if not PYTHON.exists():
        return False
    return subprocess.run([str(PYTHON), "-I", "-c", "import pip"]).returncode == 0


def check_version():
    """Stop, with a way on, if this Python is too old or too new."""
    if LOWEST <= sys.version_info[:2] < BEYOND:
        return
    names = [f"python3.{minor}" for minor in range(BEYOND[1] - 1, LOWEST[1] - 1, -1)]
    others = [name for name in names if shutil.which(name)]
    way_on = (
        "there is a {0} on this machine: run make PYTHON={0} ...".format(others[0])
        if others
        else "install one of {} and run make PYTHON=python3.12 ...".format(", ".join(names))
    )
    sys.exit(
        "luneta needs Python 3.{} to 3.{}; {} is {}.{}; {}".format(
            LOWEST[1], BEYOND[1] - 1, sys.executable, *sys.version_info[:2], way_on
        )
    )


def make_venv():
    """Make an empty .venv, in place of what is there."""
    check_version()
    if VENV.exists():
        shutil.rmtree(str(VENV))
    VENV.mkdir()
    # Marked before anything is in it: a set-up killed at any later point starts over.
    UNFINISHED.touch()
    if subprocess.run([sys.executable, "-m", "venv", str(VENV)]).returncode != 0:
        sys.exit(
            f"{sys.executable} could not make a virtual environment in {VENV}; on Debian and "
            "Ubuntu the module comes with: apt install python3-venv"
        )


def install(options, path):
    """Run pip, and note the file as installed."""
    if subprocess.run([str(PYTHON), *PIP, *options]).returncode != 0:
        sys.exit(
            f"The set-up stopped at {path.name}: pip says why above. Is the package index within "
            "reach? Run the same command again; what pip has downloaded is kept."
        )
    stamp = installed()
    stamp[path.name] = digest(path)
    temporary = STAMP.with_suffix(".tmp")
    temporary.write_text(json.dumps(stamp, indent=2) + "\n")
    temporary.replace(STAMP)


def arguments():
    """Read what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true", help="TensorFlow with CUDA libraries")
    parser.add_argument("--tests", action="store_true", help="also what tests and linters need")
    return parser.parse_args()


def main():
    """Install what is missing or has changed."""
    chosen = arguments()
    runtime, other = "requirements-cpu.txt", "requirements-gpu.txt"
    if chosen.gpu:
        runtime, other = other, runtime
    wanted = steps(runtime, chosen.tests)
    # The two TensorFlow packages write to the same folder: neither can replace the other.
    if UNFINISHED.exists() or other in installed() or not works():
        print("Making .venv (once; downloads about 1 GB, 5 GB with GPU=1)", flush=True)
        make_venv()
    stamp = installed()
    changed = [path for path in wanted if stamp.get(path.name) != digest(path)]
    if changed:
        UNFINISHED.touch()
    for path in changed:
        print(f"Installing {path.name}", flush=True)
        install(wanted[path], path)
    if changed:
        UNFINISHED.unlink()


if __name__ == "__main__":
    main()
