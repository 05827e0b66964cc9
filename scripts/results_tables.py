"""Print the tables of docs/results.md for the surveys whose folders are given."""

import argparse
from pathlib import Path

from luneta.reporting.results import text


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="results/SURVEY of each")
    options = parser.parse_args()
    try:
        print(text(options.folders), end="")
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
