"""The cutouts job, run on a few objects."""

import pyarrow as pa
import pyarrow.parquet as pq

from luneta.config import Cutouts
from luneta.cutouts.job import run
from luneta.cutouts.shard import Shard
from luneta.files import read_json


def job(folder, objects, slices, settings, **cutouts):
    """Run the cutouts job; gives the images by name, the quality table and the noted files."""
    count = len(objects["object_id"])
    objects |= {"flags": pa.array([0] * count, pa.int32())}
    objects |= {"reject_reason": pa.nulls(count, pa.string())}
    pq.write_table(pa.table(objects), folder / "o.parquet")
    if slices is not None:
        pq.write_table(pa.table(slices), folder / "s.parquet")
    outputs = {name: folder / name for name in ("cutouts", "quality", "files")}
    given = Cutouts().model_dump(mode="json") | {"background": "none", "noise_units": False}
    settings = {**settings, "quality": {}, "cutouts": given | cutouts}
    run(folder / "o.parquet", slices and folder / "s.parquet", outputs, settings)
    quality = pq.read_table(outputs["quality"]).to_pandas().set_index("object_id")
    shard = Shard(outputs["cutouts"])
    images = dict(zip(quality.index[quality["usable"]], shard.read(0, len(shard)), strict=True))
    files = read_json(outputs["files"])
    return images, quality, files
