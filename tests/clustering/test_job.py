import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.decomposition import PCA

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


def read(embeddings):
    """Features of the usable objects by name."""
    tables = [pq.read_table(path).to_pydict() for path in embeddings]
    return {
        name: row
        for table in tables
        for name, row in zip(table["object_id"], table["features"], strict=True)
        if row is not None
    }


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
    features = read(embeddings)
    names = list(features)
    pca = PCA(3, svd_solver="full").fit(np.array(list(features.values())))
    points = dict(zip(names, pca.transform(list(features.values())), strict=True))
    away = {name: np.linalg.norm(points[name] - points["b3"]) for name in names if name != "b3"}
    expected = sorted(away, key=away.get)[:3]
    assert [name for name, _ in found] == expected
    np.testing.assert_allclose([d for _, d in found], [away[n] for n in expected], rtol=1e-4)
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


def test_an_object_on_two_tiles_has_one_row_of_neighbours(embeddings, tmp_path):
    table = pq.read_table(embeddings[1])
    names = ["a1" if name == "b1" else name for name in table["object_id"].to_pylist()]
    pq.write_table(table.set_column(0, "object_id", pa.array(names)), embeddings[1])
    clusters, neighbours = run(embeddings, tmp_path)
    assert (clusters["object_id"] == "a1").sum() == 2
    assert pq.read_metadata(neighbours).num_rows == 41
    assert all(name != "a1" for name, _ in neighbours_of(neighbours, "a1"))


def test_neighbours_of_a_task_that_is_not_clustered(tmp_path):
    with pytest.raises(FileNotFoundError, match="name the task under clustering.tasks"):
        neighbours_of(tmp_path / "x_neighbours.parquet", "a")
