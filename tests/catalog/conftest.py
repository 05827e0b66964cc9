import pytest

from catalog_files import arguments, write_shard


@pytest.fixture
def survey(tmp_path):
    """Arguments of `write.run` for two shards; `same` of the second repeats the first's."""
    shards = [
        write_shard(tmp_path, "north", [f"n{i}" for i in range(6)] + ["same"], rejected=[2]),
        write_shard(tmp_path, "south", ["s0", "same", "s2"], rejected=[0]),
    ]
    return arguments(tmp_path, shards)
