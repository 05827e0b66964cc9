"""A small file that asks for much costs itself only: neither the survey nor the machine."""

import re
import resource

import numpy as np
import pytest
from astropy.io import fits

import attack_images
import attack_tables
from attack_child import in_child
from cutout_jobs import job
from luneta.cutouts.stamp_files import StampFiles
from luneta.survey import bounds
from luneta.survey.bounds import group_memory
from luneta.survey.tables import TableError, read_table

# Those that take many seconds to write.
SLOW = {
    "csv_gz_of_many_lines", "hdf5_of_many_groups", "parquet_of_one_long_word",
    "parquet_of_nothing_but_nulls", "parquet_of_long_pages", "parquet_of_one_large_picture",
    "hdf5_of_one_long_word", "fits_of_many_cards_gz",
}  # fmt: skip
READ = {"ecsv_of_aliases", "ecsv_of_merged_maps", "hdf5_of_circles", "hdf5_of_a_yaml_bomb",
        "parquet_of_a_yaml_bomb"}  # fmt: skip
WORDS = {
    "csv_gz_of_one_line": "unpacks to more than 0.3 GB",
    "csv_bz2_of_zeros": "unpacks to more than 0.3 GB",
    "txt_gz_of_zeros": "unpacks to more than 0.3 GB",
    "ecsv_gz_of_zeros": "unpacks to more than 0.3 GB",
    "votable_gz_of_a_comment": "unpacks to more than 0.3 GB",
    "csv_of_a_million_columns": "columns, and a table may have 20,000",
    "fits_table_of_many_rows_gz": "asks for 8,000.0 GB of memory, and one file may ask for 16.0 GB",
    "fits_table_gz_of_gigabytes": "declares 8.6 GB, which its 8,360,118 bytes",
    "fits_table_with_holes": "asks for 1,099.5 GB",
    "fits_of_many_extensions_gz": "more than 20,000 extensions",
    "hdf5_of_claims": "asks for 70,368.7 GB of memory.*input.most_gigabytes",
    "hdf5_of_fill_values": "declares 8.6 GB, which its 0 bytes",
    "hdf5_of_a_chunk_that_swells": "a chunk unpacks to more than 8,192 bytes",
}
IMAGE_WORDS = {
    "fits_of_claims": r"truncated: 1,000,000 rows \(4,000,000,000,000 bytes of data\) are promised",
    "fits_with_holes": "asks for 1,099.5 GB",
    "fits_gz_of_zeros": "asks for 34.4 GB of memory, and one file may ask for 16.0 GB",
    "fits_gz_that_goes_on": "unpacks to 67,108,864 bytes and more behind its image",
    "fits_bz2_that_goes_on": "unpacks to 67,108,864 bytes and more behind its image",
    "tile_that_swells": "a compressed tile unpacks to more than the 32,832 bytes",
    "tile_that_swells_in_gzip": "a compressed tile unpacks to more than the 32,832 bytes",
    "tile_of_gzip_2_that_swells": "a compressed tile unpacks to more than the 32,832 bytes",
    "tile_of_hcompress_that_is_larger": "tells its shape as 2048 x 2048",
    "tiles_longer_than_the_image": "tiles have 1,208,925,819,.* pixels, the image 4,096",
    "npy_of_claims": "the file ends 40,000,000,000,000 bytes short",
    "npy_with_holes": "asks for 1,099.5 GB",
    "png_of_many_pixels": "169000000 pixels",
    "tiff_of_many_pages": "2,000 pages have 8,000,000,000 pixels",
    "hdf5_of_a_huge_chunk": "chunks of 3.8 GB",
    "hdf5_of_a_chunk_that_swells": "a chunk unpacks to more than 256 bytes",
}


def marked(names):
    return [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in sorted(names)]


def ask(function, path):
    found = in_child(lambda: function(path))
    assert found.kind not in ("hang", "signal"), found
    return found


@pytest.mark.parametrize("name", marked(set(attack_tables.BOMBS) - READ))
def test_a_table_that_asks_for_too_much_is_refused_with_its_size(tmp_path, name):
    found = ask(read_table, attack_tables.BOMBS[name](tmp_path))
    assert found.error == "TableError"
    assert re.search(WORDS.get(name, ""), found.text), found.text
    assert str(tmp_path) in found.text
    if name in WORDS:  # what is refused by its size never grew
        assert found.grown < 400 * 2**20


@pytest.mark.parametrize("name", sorted(READ))
def test_a_header_that_repeats_itself_costs_nothing(tmp_path, name):
    found = ask(read_table, attack_tables.BOMBS[name](tmp_path))
    assert (found.kind, "ra: double" in found.text) == ("value", True)
    assert found.grown < 100 * 2**20


@pytest.mark.parametrize("name", marked(attack_images.BOMBS))
def test_a_stamp_that_asks_for_too_much_is_refused_with_its_size(tmp_path, name):
    path = attack_images.BOMBS[name](tmp_path)
    many = path.suffix in (".npy", ".h5", ".parquet")
    row = 0 if many else None
    files = StampFiles([row])
    full = f"{path}{attack_images.NAMES.get(name, '')}"
    found = ask(lambda _: files.planes_of(full, 1, row), path)
    assert found.error == "ImageError"
    assert re.search(IMAGE_WORDS.get(name, ""), found.text), found.text
    if name in IMAGE_WORDS:
        assert found.grown < 200 * 2**20


@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"])
def test_tiles_longer_than_their_image_are_read_as_astropy_writes_them(tmp_path, kind):
    path = tmp_path / "t.fits"
    path.write_bytes(attack_images.packed(kind, tile_shape=(128, 128), quantize_level=0))
    pixels = StampFiles().planes_of(str(path), 1)[0]
    with fits.open(path) as file:
        np.testing.assert_array_equal(pixels, file[1].data)


def test_the_bound_of_the_config_decides_what_is_too_large(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("ra,dec\n" + "1,2\n" * 500_000)
    bounds.set_most_gigabytes(0.001)
    try:
        with pytest.raises(TableError, match=r"asks for 2,000,007 bytes .* 1,000,000 bytes; set"):
            read_table(path)
    finally:
        bounds.set_most_gigabytes(bounds.USUAL_GIGABYTES)
    assert read_table(path).num_rows == 500_000


SETTINGS = {
    "bands": ["r"], "mask": {"encoding": "bits", "planes": {}, "ignore": [], "saturated": [],
    "sentinels": []}, "weight": "relative", "zero_points": {}, "pixel_scale": 1.0, "seeing": None,
    "pixels": "flux", "remote": {"retries": 0, "wait": 0, "timeout": 1, "options": {}},
}  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
def test_stamps_that_ask_for_too_much_cost_their_objects_only(tmp_path, threads):
    names = ("fits_with_holes", "fits_gz_of_zeros", "tile_that_swells", "npy_with_holes",
             "hdf5_of_a_chunk_that_swells", "png_of_many_pixels", "tiff_of_many_pages")  # fmt: skip
    good = tmp_path / "good.npy"
    np.save(good, np.random.default_rng(1).normal(10, 1, (80, 80)).astype("f4"))
    paths = []
    for number, name in enumerate(names):
        folder = tmp_path / str(number)
        folder.mkdir()
        paths.append(str(attack_images.BOMBS[name](folder)))
    files = [str(good), *paths, str(good)]
    objects = {"object_id": [f"o{n}" for n in range(len(files))], "tile": [""] * len(files)}
    rows = [0 if path.endswith(".h5") else None for path in files]

    def cut():
        images, quality, _ = job(tmp_path, objects, {"image_r": files, "row": rows}, SETTINGS)
        return sorted(images), sorted(set(quality["flags"][1:-1]))

    found = in_child(cut, seconds=60)
    assert found.text == f"(['o0', 'o{len(files) - 1}'], [128])"


def control_group(folder, limit, used, files=0, names=("memory.max", "memory.current")):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {files}\nactive_file 1\n")


def test_the_memory_of_a_job_is_what_the_groups_above_it_have_left(tmp_path):
    """Slurm limits the job, and the process lies in the group of a step or a task below it."""
    root, groups = tmp_path / "cgroup", tmp_path / "self"
    groups.write_text("0::/system.slice/job_1/step_0/task_0\n")
    control_group(root / "system.slice/job_1/step_0/task_0", "max", 10)
    control_group(root / "system.slice/job_1/step_0", 9000, 10)
    assert group_memory(groups, root) == 9000 - 10 + 1
    control_group(root / "system.slice/job_1", 4000, 3000, files=500)
    assert group_memory(groups, root) == 4000 - 3000 + 500 + 1
    control_group(root / "system.slice", 4000, 5000)
    assert group_memory(groups, root) == 0


def test_the_memory_of_a_job_is_known_in_groups_of_the_first_version(tmp_path):
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    root, groups = tmp_path / "cgroup", tmp_path / "self"
    groups.write_text("3:cpu,cpuacct:/a\n2:memory:/slurm/job_1/step_0\n")
    control_group(root / "memory/slurm/job_1/step_0", 2**63 - 4096, 10, names=names)
    control_group(root / "memory/slurm/job_1", 4000, 3000, names=names)
    assert group_memory(groups, root) == 1001


def test_without_groups_there_is_no_limit(tmp_path):
    assert group_memory(tmp_path / "none", tmp_path) == 2**62
    assert group_memory() > 0


def test_without_proc_tables_are_read_without_a_limit(tmp_path, monkeypatch):
    """As on macOS."""
    monkeypatch.setattr(bounds, "PROC", tmp_path / "none")
    before = resource.getrlimit(resource.RLIMIT_AS)
    with bounds.limited_memory():
        assert resource.getrlimit(resource.RLIMIT_AS) == before
