"""Does a job again and again, and lets its n-th call of the system fail: see test_power.py.

    LD_PRELOAD=faults.so python fault_jobs.py FOLDER JOB WAY|all|'in turn' EVERY

Each time is a process of its own, forked from this one, which has imported all and done nothing.
A line of JSON for each time goes to standard output.
"""

import ctypes
import errno
import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

from luneta import outputs
from luneta.files import disk_trouble, write_json

WAYS = {
    "count": (0, 0),
    "EIO": (1, errno.EIO),
    "ENOSPC from then on": (2, errno.ENOSPC),
    "killed before": (3, 0),
    "killed after": (4, 0),
}
FAULTS = [way for way in WAYS if way != "count"]


def table(seed=0, rows=20_000):
    random = np.random.default_rng(seed)
    return pa.table({"x": random.random(rows), "name": [f"n{i}" for i in range(rows)]})


# Jobs: `before` makes what they read or find, outside of what may fail; `do` is the job


class Json:
    def before(self, folder):
        write_json(folder / "results/metrics/old.json", {"old": 1})

    def do(self, folder):
        write_json(folder / "results/metrics/old.json", {"new": list(range(5000))})
        write_json(folder / "results/metrics/new.json", {"new": 2})


class Parquet:
    def before(self, folder):
        from luneta.parquet import write_parquet

        write_parquet(table(1), folder / "results/objects/old.parquet")

    def do(self, folder):
        from luneta.parquet import write_parquet

        write_parquet(table(2), folder / "results/objects/old.parquet", row_group_size=5000)
        write_parquet(table(3), folder / "results/objects/new.parquet")


class Shard:
    def before(self, folder):
        pass

    def do(self, folder):
        from luneta.cutouts.shard import ShardWriter

        path = folder / "results/cutouts/a.arrow"
        images = np.random.default_rng(1).random((300, 2, 16, 16)).astype(np.float32)
        with ShardWriter(path, ["g", "r"], 16, "flux") as shard:
            for start in range(0, 300, 100):
                part = slice(start, start + 100)
                ids = np.array([f"o{i}" for i in range(300)], object)[part]
                shard.write(ids, np.zeros(100, np.int32), images[part])


class Index:
    def before(self, folder):
        self._deal(folder, 1)

    def do(self, folder):
        self._deal(folder, 2)

    @staticmethod
    def _deal(folder, seed):
        from luneta.survey.index import deal

        rows = pa.table(
            {
                "object_id": [f"{seed}-{i}" for i in range(9)],
                "ra": [1.0 * seed] * 9,
                "dec": [2.0] * 9,
            }
        )
        slices = {f"shard_{seed * k}": rows.slice(3 * k, 3) for k in range(3)}
        deal(slices, folder / "results/index", f"key {seed}")


class Figure:
    def before(self, folder):
        pass

    def do(self, folder):
        from luneta.reporting import style

        figure, (axes,) = style.panels(1, 3, 2)
        axes.plot([1, 2], [3, 4])
        style.save(figure, folder / "results/figures/a.png")


class Catalog:
    """A catalog of two shards takes the place of one of a shard and another layout."""

    def _given(self, folder, names, **layout):
        from catalog_files import arguments, write_shard

        root = folder / "inputs"
        root.mkdir(exist_ok=True)
        places = {name: 10.0 + 40 * number for number, name in enumerate(names)}
        shards = [
            write_shard(root, name, [f"{name}{i}" for i in range(12)], [2], ra=[ra] * 12)
            for name, ra in places.items()
        ]
        given = arguments(root, shards)
        given["settings"]["catalog"] |= {"highest_order": 3, **layout}
        catalog = folder / "results/catalog"
        given["outputs"] = {name: catalog / path.name for name, path in given["outputs"].items()}
        return given

    def before(self, folder):
        from luneta.catalog import write

        write.run(**self._given(folder, ["north"], rows_per_partition=5))

    def do(self, folder):
        from luneta.catalog import write

        write.run(**self._given(folder, ["north", "south"]))


class Candidates(Catalog):
    def do(self, folder):
        import pyarrow.parquet as pq

        from luneta.catalog import candidates
        from luneta.config import Candidates as Section

        path = folder / "inputs/out_of_fold.parquet"
        pq.write_table(pa.table({"object_id": ["w", "x"], "label": ["spiral", "smooth"]}), path)
        settings = {"task_name": "lens", "positive": "spiral", "survey": "test"}
        settings |= {**Section().model_dump(mode="json"), "keep": {"magnitude_r": "MAG_R"}}
        settings |= {"probability": 0.01}
        catalog = folder / "results/catalog"
        collection = catalog / "collection.properties"
        candidates.run(collection, path, catalog / "lens_candidates.parquet", settings)


class Network:
    """What a training writes: its state, the network, its sidecar, weights."""

    def before(self, folder):
        pass

    def do(self, folder):
        import keras

        from luneta.models.saving import digest, save, save_weights
        from luneta.training.resume import Saved, folder_of

        model = folder / "results/models/lens/fold0.keras"
        keras.utils.set_random_seed(1)
        layers = [keras.layers.Input((8,)), keras.layers.Dense(64), keras.layers.Dense(1)]
        network = keras.Sequential(layers, name="tiny")
        state = Saved(folder_of(model), "digest")
        state.read()
        state.write({"epoch": 1}, weights=[np.ones(1000)])
        save(network, model)
        save_weights(network, folder / "results/backbones/a.weights.h5")
        write_json(model.with_suffix(".json"), {"model_id": digest(network)})
        state.remove()


JOBS = {
    "json": Json(), "parquet": Parquet(), "shard": Shard(), "index": Index(), "figure": Figure(),
    "catalog": Catalog(), "candidates": Candidates(), "network": Network(),
}  # fmt: skip


MODULES = {
    "json": [],
    "parquet": ["luneta.parquet"],
    "shard": ["luneta.cutouts.shard"],
    "index": ["luneta.survey.index"],
    "figure": ["matplotlib.pyplot", "luneta.reporting.style"],
    "catalog": ["luneta.catalog.write", "catalog_files"],
    "candidates": ["luneta.catalog.write", "luneta.catalog.candidates", "catalog_files"],
    "network": ["luneta.training.resume", "luneta.models.saving"],
}


def in_child(work):
    """Do some work in a process of its own; give what it returns, or the signal that ended it."""
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(read)
        try:
            told = work()
        except BaseException as error:  # noqa: BLE001 (the process ends here)
            told = {"raised": f"{type(error).__name__}: {error}", "told": message(error)}
        os.write(write, json.dumps(told).encode())
        os._exit(0)
    os.close(write)
    with open(read) as file:  # noqa: PTH123
        text = file.read()
    _, status = os.waitpid(process, 0)
    return json.loads(text) if text else {"signal": os.WTERMSIG(status)}


def message(error):
    """What the log of a job would say, if it is one message; see `luneta.files.log_to`."""
    ours = type(error).__module__.partition(".")[0] == "luneta"
    return str(error) if ours else disk_trouble(error)


def content(folder):
    """Bytes of all files, by path, but for the notes on sizes and times."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    found.pop(outputs.RECORD, None)
    return found


class Trial:
    """A job, and what it leaves when nothing fails."""

    def __init__(self, folder, name):
        self.job = JOBS[name]
        self.old, self.work = folder / "old", folder / "work"
        self.results = self.work / "results"
        self.faults = ctypes.CDLL(None)
        self._start()
        first = in_child(lambda: self.job.before(self.work))
        assert first is None, first
        shutil.copytree(self.work, self.old)
        self.before = content(self.results)
        self.calls = in_child(lambda: self._do(0, "count"))["calls"]
        self.after = content(self.results)
        assert self.after != self.before

    def _start(self):
        shutil.rmtree(self.work, ignore_errors=True)
        if self.old.exists():
            shutil.copytree(self.old, self.work)
        self.results.mkdir(parents=True, exist_ok=True)

    def _do(self, number, way):
        how, error = WAYS[way]
        folder = str(self.results).encode()
        self.faults.faults_arm(folder, ctypes.c_long(number), how, error)
        try:
            self.job.do(self.work)
        finally:
            calls = self.faults.faults_calls()
            self.faults.faults_arm(b"", ctypes.c_long(0), 0, 0)
        return {"calls": calls}

    def _again(self):
        outputs.Outputs(self.results)
        left = [name for name in content(self.results) if is_temporary(name)]
        self.job.do(self.work)
        return {"left": left}

    def fail(self, number, way):
        """Let the call of a number fail, look at what there is, and do the job once more."""
        self._start()
        ended = in_child(lambda: self._do(number, way))
        found = content(self.results)
        # Of hidden files, which the job removes in the end, there is nothing to compare with
        half = [
            name for name, raw in found.items()
            if "/." not in name and raw not in (self.before.get(name), self.after.get(name))
        ]  # fmt: skip
        again = in_child(self._again)
        now = content(self.results)
        names = sorted(now.keys() | self.after.keys())
        other = [name for name in names if now.get(name) != self.after.get(name)]
        wrong = ended.get("calls") is not None and found != self.after
        return {"n": number, "way": way, "ended": ended, "half": half, "again": again,
                "other": other, "wrong": wrong}  # fmt: skip


def is_temporary(name):
    return any(outputs.TEMPORARY_NAME.fullmatch(part) for part in name.split("/"))


def main():
    """Try every EVERY-th call and the last one, in one way, in all, or each in the next way."""
    folder, name, way, every = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    for module in MODULES[name]:  # the children take them over
        importlib.import_module(module)
    trial = Trial(folder, name)
    print(json.dumps({"calls": trial.calls}), flush=True)
    numbers = sorted({*range(1, trial.calls + 1, every), trial.calls})
    for count, number in enumerate(numbers):
        ways = {"all": FAULTS, "in turn": [FAULTS[count % len(FAULTS)]]}.get(way, [way])
        for one in ways:
            print(json.dumps(trial.fail(number, one)), flush=True)


if __name__ == "__main__":
    main()
