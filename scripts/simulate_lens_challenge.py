"""Simulate a set in the form of the lens finding challenge's ground-based data."""

import argparse
from pathlib import Path

from luneta.simulation.lens_challenge import run


def main() -> None:
    """Read the command line and simulate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where images.h5 and labels.csv are written")
    parser.add_argument("--objects", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="processes")
    options = parser.parse_args()
    run(options.folder, options.objects, options.seed, options.threads)


if __name__ == "__main__":
    main()
