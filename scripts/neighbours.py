"""Print the nearest neighbours of an object: neighbours.py results/<survey> <task> <object_id>."""

import argparse
import sys
from pathlib import Path

from luneta.clustering.neighbours import neighbours_of

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("results", type=Path, help="results/<survey>")
parser.add_argument("task", help="a task of clustering.tasks")
parser.add_argument("object_id", help="name of the object in the catalog")
asked = parser.parse_args()
try:
    for name, distance in neighbours_of(
        asked.results / "clusters" / f"{asked.task}_neighbours.parquet", asked.object_id
    ):
        print(f"{distance:10.4f}  {name}")
except (KeyError, OSError) as error:
    sys.exit(str(error.args[0]))
