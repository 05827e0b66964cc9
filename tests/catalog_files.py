"""Small shards, as the catalog job finds them."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from luneta.catalog.read import catalog_schema, read_columns
from luneta.clustering.job import table_of
from luneta.clustering.space import Places
from luneta.config import Catalog

CLASSES = ["smooth", "spiral"]
BESIDE = ("rejects", "overlaps", "without_position")


def table_of_catalog(collection):
    """All rows of a catalog, by object_id and tile, without `_healpix_29`."""
    table = read_columns(collection, catalog_schema(collection).names)
    return table.sort_by([("object_id", "ascending"), ("tile", "ascending")])


def rows_of(collection):
    """The same in pandas."""
    return table_of_catalog(collection).to_pandas()


def probabilities(task, classes, ids, usable, seed):
    values = np.random.default_rng(seed).dirichlet(np.ones(len(classes)), len(ids))
    mask = ~np.asarray(usable)
    columns = {"object_id": pa.array(ids)}
    for number, name in enumerate(classes):
        column = values[:, number].astype(np.float32)
        columns[f"{task}_{name}_probability"] = pa.array(column, mask=mask)
        columns[f"{task}_{name}_std"] = pa.array(column / 10, mask=mask)
    columns[f"{task}_class"] = pa.array(np.array(classes)[values.argmax(1)], mask=mask)
    for name in ("entropy", "mutual_information", "outlier_score"):
        columns[f"{task}_{name}"] = pa.array(values[:, 0].astype(np.float32), mask=mask)
    columns[f"{task}_outlier"] = pa.array(values[:, 0] > 0.5, mask=mask)
    model = pa.array(np.array([f"{task}-model"] * len(ids)), mask=mask)
    columns[f"{task}_model_id"] = model.dictionary_encode()
    columns[f"{task}_run_id"] = pa.array(["0123456789abcdef"] * len(ids), pa.string(), mask=mask)
    return pa.table(columns)


def write_shard(root, shard, ids, rejected=(), tiles=None, **changes):
    """Write a shard's files; `changes` put columns of objects or quality in place of the usual."""
    count = len(ids)
    usable = np.array([i not in rejected for i in range(count)])
    flags = np.where(usable, 0, 32).astype(np.int32)
    reason = pa.array([None if u else "outside every tile" for u in usable], pa.string())
    kept = pa.field("magnitude_r", pa.float32(), metadata={"unit": "mag"})
    fields = [
        ("object_id", pa.string()),
        ("ra", pa.float64()),
        ("dec", pa.float64()),
        ("tile", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("flags", pa.int32()),
        ("reject_reason", pa.string()),
        kept,
    ]
    place = np.arange(count, dtype=float)
    tiles = tiles or [shard] * count
    values = [ids, 10 + place, -place, tiles, place, place, flags, reason]
    values.append(place.astype(np.float32))
    objects = pa.table([pa.array(v) for v in values], schema=pa.schema(fields))
    small = np.linspace(0, 1, count).astype(np.float32)
    quality = {"object_id": ids, "flags": flags, "reject_reason": reason, "usable": usable}
    quality |= dict.fromkeys(("dx", "dy", "masked_fraction"), small)
    quality |= {"skipped": np.zeros(count, bool), "edge_distance": 100 * small}
    quality |= {"resample_factor": np.ones(count, np.float32), "galaxy_area_ratio": small}
    quality |= dict.fromkeys(("shift_x", "shift_y"), small)
    quality |= {f"sky_noise_{band}": small for band in "gr"}
    paths = {}
    for name, table in (("objects", objects), ("quality", pa.table(quality))):
        for column in set(changes) & set(table.column_names):
            number = table.schema.get_field_index(column)
            values = pa.array(changes[column], table.schema.field(number).type)
            table = table.set_column(number, table.schema.field(number), values)
        paths[name] = root / name / f"{shard}.parquet"
        paths[name].parent.mkdir(exist_ok=True)
        pq.write_table(table, paths[name])
    paths["files"] = root / "quality" / f"{shard}_files.json"
    bad = {"tile": shard, "band": "g", "path": f"{shard}_g.fits", "flag": "unreadable_file"}
    paths["files"].write_text(json.dumps([bad | {"reason": "the file is cut short"}]))
    for task in ("morphology", "lens"):
        paths[task] = root / f"{task}_{shard}.parquet"
        pq.write_table(probabilities(task, CLASSES, ids, usable, len(shard)), paths[task])
    return paths


def write_clusters(path, task, shards):
    """Write clusters/{task}.parquet: each usable object is its own group."""
    parts = []
    for paths in shards:
        quality = pq.read_table(paths["quality"])
        usable = quality["usable"].to_numpy()
        number = np.arange(usable.sum())
        plane = np.stack([number, -number], 1).astype(np.float32)
        places = Places(plane, plane + 0.5, number.astype(np.int32), number.astype(np.float32))
        shard = paths["objects"].stem
        parts.append(table_of(task, shard, quality["object_id"], usable, places))
    pq.write_table(pa.concat_tables(parts), path)
    return path


def arguments(root, shards):
    """Arguments of `write.run` for shards that are written."""
    metrics = {}
    for task in ("morphology", "lens"):
        metrics[task] = root / f"{task}.json"
        metrics[task].write_text(
            json.dumps({"model_id": f"{task}-model", "calibration": {"method": "temperature"}})
        )
    kinds = {"morphology": "multiclass", "lens": "binary"}
    tasks = {name: {"kind": kind, "classes": CLASSES} for name, kind in kinds.items()}
    outputs = {name: root / "catalog" / f"{name}.parquet" for name in BESIDE}
    return {
        **{name: [paths[name] for paths in shards] for name in ("objects", "quality", "files")},
        "predictions": {task: [paths[task] for paths in shards] for task in tasks},
        "clusters": {"morphology": write_clusters(root / "clusters.parquet", "morphology", shards)},
        "metrics": metrics,
        "outputs": {"collection": root / "catalog" / "collection.properties", **outputs},
        "settings": {
            "survey": "test",
            "seed": 1,
            "config": {"survey": "test", "seed": 1},
            "tasks": tasks,
            "bands": ["g", "r"],
            "keep": {"magnitude_r": "MAG_R"},
            "catalog": {**Catalog().model_dump(mode="json"), "code": ""},
            "epoch": None,
            "overlap_radius": 1.0,
            "detected": False,
        },
    }
