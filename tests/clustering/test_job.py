import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luneta.clustering import job
from luneta.clustering.neighbours import neighbours_of
from luneta.inference.embeddings import spread

SETTINGS = {
    "task_name": "shape", "seed": 1, "components": 3, "method": "kmeans", "groups": 2,
    "smallest_group": 5, "neighbours": 3, "exact_below": 1000, "sample": 1000,
}  # fmt: skip


@pytest.fixture
def embeddings(tmp_path):
    """Two shards: 30 objects about 0, then 20 about 9, of which every seventh is not usable."""
    random, paths = np.random.default_rng(3), []
    for shard, centre, count in (("a", 0.0, 30), ("b", 9.0, 20)):
        usable = np.arange(count) % 7 != 0
        names = pa.array([f"{shard}{i}" for i in range(count)])
        features = random.normal(centre, 1, (usable.sum(), 6)).astype("float32")
        paths.append(tmp_path / f"{shard}.parquet")
        pq.write_table(pa.Table.from_batches([spread(names, usable, features)]), paths[-1])
    return paths


def run(embeddings, folder, **settings):
    outputs = folder / "clusters.parquet", folder / "neighbours.parquet"
    job.run(embeddings, *outputs, {**SETTINGS, "shards": ["a", "b"], **settings})
    return pq.read_table(outputs[0]).to_pandas(), outputs[1]


def test_every_row_is_there_and_unusable_ones_are_null(embeddings, tmp_path):
    table, neighbours = run(embeddings, tmp_path)
    assert table["object_id"].tolist() == [f"a{i}" for i in range(30)] + [
        f"b{i}" for i in range(20)
    ]
    unusable = table.loc[table["shape_group"].isna(), "object_id"].tolist()
    assert unusable == ["a0", "a7", "a14", "a21", "a28", "b0", "b7", "b14"]
    usable = table.dropna()
    assert usable.groupby("shard")["shape_group"].unique().map(list).to_dict() == {
        "a": [0],
        "b": [1],
    }
    assert pq.read_metadata(neighbours).num_rows == 42


def test_neighbours_of_an_object(embeddings, tmp_path):
    _, neighbours = run(embeddings, tmp_path)
    found = neighbours_of(neighbours, "b3")
    assert len(found) == 3 and all(name.startswith("b") for name, _ in found)
    features = {
        name: row
        for path in embeddings
        for name, row in zip(*pq.read_table(path).to_pydict().values(), strict=True)
        if row is not None
    }
    # three components of six features: distances are those of the features, a little shortened
    assert found[0][1] <= np.linalg.norm(np.subtract(features["b3"], features[found[0][0]]))
    with pytest.raises(KeyError, match="'b0' has no neighbours.*give the name"):
        neighbours_of(neighbours, "b0")


def test_a_small_sample_places_all(embeddings, tmp_path):
    table, _ = run(embeddings, tmp_path, sample=20)
    assert table["shape_map_1"].notna().sum() == 42
    assert job.sample(embeddings, 20, 1).shape == (20, 6)
    assert job.sample(embeddings, 100, 1).shape == (42, 6)


def test_too_few_objects_are_no_error(tmp_path):
    path = tmp_path / "a.parquet"
    batch = spread(pa.array(["x", "y"]), np.array([True, False]), np.ones((1, 4), "float32"))
    pq.write_table(pa.Table.from_batches([batch]), path)
    job.run([path], tmp_path / "c.parquet", tmp_path / "n.parquet", {**SETTINGS, "shards": ["a"]})
    table = pq.read_table(tmp_path / "c.parquet")
    assert table["object_id"].to_pylist() == ["x", "y"]
    assert table["shape_group"].null_count == 2
