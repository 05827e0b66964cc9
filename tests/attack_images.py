"""Images and stamps that were made to do harm: each function writes one, and returns its name."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from PIL import Image

from attack_tables import BLOCK, GIGABYTE, gzipped_zeros, header, zlib_zeros


def image_header(*axes: int, bitpix: int = -32, more: tuple[str, ...] = ()) -> bytes:
    cards = [f"NAXIS{n}  = {axis:>20}" for n, axis in enumerate(axes, start=1)]
    return header("SIMPLE  =                    T", f"BITPIX  = {bitpix:>20}",
                  f"NAXIS   = {len(axes):>20}", *cards, *more)  # fmt: skip


def fits_of_claims(folder: Path) -> Path:
    path = folder / "t.fits"
    path.write_bytes(image_header(10**6, 10**6) + bytes(BLOCK))
    return path


def fits_with_holes(folder: Path) -> Path:
    path = folder / "t.fits"
    content = image_header(2**19, 2**19)
    path.write_bytes(content)
    os.truncate(path, len(content) + 2**40)
    return path


def fits_gz_of_claims(folder: Path) -> Path:
    path = folder / "t.fits.gz"
    path.write_bytes(gzip.compress(image_header(10**6, 10**6) + bytes(BLOCK)))
    return path


def fits_gz_of_zeros(folder: Path) -> Path:
    start = image_header(2**17, 2**16)
    return gzipped_zeros(folder / "t.fits.gz", 32 * GIGABYTE, start=start)


def fits_gz_that_goes_on(folder: Path) -> Path:
    start = image_header(8, 90) + np.arange(720, dtype=">f4").tobytes()
    return gzipped_zeros(folder / "t.fits.gz", 32 * GIGABYTE, start=start)


def fits_bz2_that_goes_on(folder: Path) -> Path:
    import bz2

    path = folder / "t.fits.bz2"
    start = image_header(8, 90) + np.arange(720, dtype=">f4").tobytes()
    path.write_bytes(bz2.compress(start) + bz2.compress(bytes(2**26)) * 512)
    return path


def packed(kind: str, shape=(64, 64), **options) -> bytes:
    rng = np.random.default_rng(1)
    data = rng.normal(0, 5, shape).astype(np.float32)
    if kind in ("RICE_1", "PLIO_1", "HCOMPRESS_1"):
        data = rng.integers(0, 50, shape).astype(np.int32)
    file = BytesIO()
    unit = fits.CompImageHDU(data, compression_type=kind, **options)
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(file)
    return file.getvalue()


def edited(content: bytes, **cards: int | str) -> bytes:
    for keyword, value in cards.items():
        place = content.index(f"{keyword:<8}=".encode())
        card = f"{keyword:<8}= {value:>20}".ljust(80).encode()
        content = content[:place] + card + content[place + 80 :]
    return content


def with_heap(content: bytes, stream: bytes) -> bytes:
    """Put a stream in the place of all tiles of a compressed image of one tile."""
    with fits.open(BytesIO(content), disable_image_compression=True) as file:
        unit = file[1]
        start = unit._data_offset
        width = unit.header["NAXIS1"]
        rows = unit.header["NAXIS2"]
    content = edited(content[:start], PCOUNT=len(stream))
    row = bytearray(width)
    row[:8] = struct.pack(">ii", len(stream), 0)
    data = bytes(row) * rows + stream
    return content + data + bytes(-len(data) % BLOCK)


def tile_that_swells(folder: Path) -> Path:
    path = folder / "t.fits.fz"
    content = packed("GZIP_1", tile_shape=(64, 64), quantize_level=0)
    path.write_bytes(with_heap(content, zlib_zeros(16 * GIGABYTE)))
    return path


def tile_that_swells_in_gzip(folder: Path) -> Path:
    path = folder / "t.fits.fz"
    content = packed("GZIP_1", tile_shape=(64, 64), quantize_level=0)
    stream = b"\x1f\x8b\x08\x00\0\0\0\0\x02\xff" + zlib_zeros(16 * GIGABYTE)[2:]
    path.write_bytes(with_heap(content, stream))
    return path


def tile_of_gzip_2_that_swells(folder: Path) -> Path:
    path = folder / "t.fits.fz"
    content = packed("GZIP_2", tile_shape=(64, 64), quantize_level=0)
    path.write_bytes(with_heap(content, zlib_zeros(16 * GIGABYTE)))
    return path


def tiles_of_claims(folder: Path) -> Path:
    path = folder / "t.fits.fz"
    content = packed("RICE_1", tile_shape=(64, 64))
    path.write_bytes(edited(content, ZNAXIS1=10**6, ZNAXIS2=10**6, ZTILE1=10**6, ZTILE2=10**6))
    return path


def tiles_longer_than_the_image(folder: Path) -> Path:
    path = folder / "t.fits.fz"
    path.write_bytes(edited(packed("RICE_1", tile_shape=(64, 64)), ZTILE1=2**40, ZTILE2=2**40))
    return path


def tile_of_hcompress_that_is_larger(folder: Path) -> Path:
    path = folder / "t.fits.fz"
    content = packed("HCOMPRESS_1", tile_shape=(64, 64))
    large = packed("HCOMPRESS_1", (2048, 2048), tile_shape=(2048, 2048))
    place = large.index(b"\xdd\x99")
    path.write_bytes(with_heap(content, large[place:]))
    return path


def tile_of_hcompress_of_claims(folder: Path) -> Path:
    path = folder / "t.fits.fz"
    content = packed("HCOMPRESS_1", tile_shape=(64, 64))
    place = content.index(b"\xdd\x99")
    shape = struct.pack(">ii", 2**30, 2**30)
    path.write_bytes(content[: place + 2] + shape + content[place + 10 :])
    return path


def tile_of_plio_that_is_larger(folder: Path) -> Path:
    path = folder / "t.fits.fz"
    content = packed("PLIO_1", tile_shape=(64, 64))
    large = packed("PLIO_1", (1024, 1024), tile_shape=(1024, 1024))
    with fits.open(BytesIO(large), disable_image_compression=True) as file:
        stream = file[1].data["COMPRESSED_DATA"][0].astype(">i2").tobytes()
    content = with_heap(content, stream)
    path.write_bytes(content)
    return path


def npy_of_claims(folder: Path) -> Path:
    path = folder / "t.npy"
    with path.open("wb") as file:
        about = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 100, 100)}
        np.lib.format.write_array_header_1_0(file, about)
    return path


def npy_with_holes(folder: Path) -> Path:
    path = folder / "t.npy"
    with path.open("wb") as file:
        about = {"descr": "<f4", "fortran_order": False, "shape": (1, 2**19, 2**19)}
        np.lib.format.write_array_header_1_0(file, about)
        file.truncate(file.tell() + 2**40)
    return path


def npy_in_fortran_order_with_holes(folder: Path) -> Path:
    path = folder / "t.npy"
    with path.open("wb") as file:
        about = {"descr": "<f4", "fortran_order": True, "shape": (2**20, 2**9, 2**9)}
        np.lib.format.write_array_header_1_0(file, about)
        file.truncate(file.tell() + 2**40)
    return path


def npy_of_a_long_header(folder: Path) -> Path:
    path = folder / "t.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"(" * 10**7)
    return path


def npy_of_objects(folder: Path) -> Path:
    path = folder / "t.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)
    return path


def png_of_many_pixels(folder: Path, side: int = 13_000) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    path = folder / "t.png"
    about = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = zlib.compress(bytes((3 * side + 1) * side), 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", about) + chunk(b"IDAT", content)
                     + chunk(b"IEND", b""))  # fmt: skip
    return path


def tiff_of_many_pages(folder: Path) -> Path:
    """Write 2000 pages that all show the same 4 million pixels."""
    path = folder / "t.tif"
    side = 2000
    strip = zlib.compress(bytes(side * side), 9)
    pages = 2000
    content = bytearray(b"II*\0" + struct.pack("<I", 8 + len(strip) + len(strip) % 2))
    content += strip + bytes(len(strip) % 2)
    for number in range(pages):
        tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 8),
                (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, side),
                (279, 4, 1, len(strip))]  # fmt: skip
        follows = len(content) + 2 + 12 * len(tags) + 4
        content += struct.pack("<H", len(tags))
        for tag in tags:
            content += struct.pack("<HHII", *tag)
        content += struct.pack("<I", follows if number + 1 < pages else 0)
    path.write_bytes(bytes(content))
    return path


def tiff_of_a_long_tag(folder: Path) -> Path:
    path = folder / "t.tif"
    long = 2**31
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, long, 8), (273, 4, long, 8), (270, 2, long, 8)]
    content = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags))
    path.write_bytes(content + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4))
    return path


def eps_named_png(folder: Path) -> Path:
    path = folder / "t.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
                     b"(/tmp/attack) (w) file closefile\n%%EOF\n")  # fmt: skip
    return path


def gif_of_claims(folder: Path) -> Path:
    path = folder / "t.gif"
    file = BytesIO()
    Image.new("L", (1, 1)).save(file, "GIF")
    content = bytearray(file.getvalue())
    content[6:10] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(content))
    return path


def hdf5_of_claims(folder: Path) -> Path:
    path = folder / "t.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (4, 2**20, 2**20), "f4", chunks=(1, 64, 64))
    return path


def hdf5_of_a_huge_chunk(folder: Path) -> Path:
    path = folder / "t.h5"
    with h5py.File(path, "w") as file:
        shape = (2**18, 60, 60)
        data = file.create_dataset("images", shape, "f4", chunks=shape, compression="gzip")
        data.id.write_direct_chunk((0, 0, 0), zlib_zeros(2**18 * 60 * 60 * 4))
    return path


def hdf5_of_a_chunk_that_swells(folder: Path) -> Path:
    path = folder / "t.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("images", (4, 8, 8), "f4", chunks=(1, 8, 8), compression="gzip")
        for row in range(4):
            data.id.write_direct_chunk((row, 0, 0), zlib_zeros(8 * GIGABYTE))
    return path


def parquet_of_one_large_picture(folder: Path) -> Path:
    """Write pictures that are all one, of 20 MB, in each of 10,000 rows."""
    path = folder / "t.parquet"
    one = b"\xff\xd8\xff" + bytes(20_000_000)
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10_000, np.int32)), [one])
    pq.write_table(pa.table({"image": column}), path, store_schema=False,
                   dictionary_pagesize_limit=2**26)  # fmt: skip
    return path


NAMES = {"parquet_of_one_large_picture": "[image]"}
BOMBS = {
    make.__name__: make
    for make in (
        fits_of_claims, fits_with_holes, fits_gz_of_claims, fits_gz_of_zeros, fits_gz_that_goes_on,
        fits_bz2_that_goes_on, tile_that_swells, tile_that_swells_in_gzip,
        tile_of_gzip_2_that_swells, tiles_of_claims, tiles_longer_than_the_image,
        tile_of_hcompress_that_is_larger, tile_of_hcompress_of_claims, tile_of_plio_that_is_larger,
        npy_of_claims, npy_with_holes, npy_in_fortran_order_with_holes, npy_of_a_long_header,
        npy_of_objects, png_of_many_pixels, tiff_of_many_pages, tiff_of_a_long_tag, eps_named_png,
        gif_of_claims, hdf5_of_claims, hdf5_of_a_huge_chunk, hdf5_of_a_chunk_that_swells,
        parquet_of_one_large_picture,
    )
}  # fmt: skip
