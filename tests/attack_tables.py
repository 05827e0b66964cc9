"""Tables that were made to do harm: each function writes one, and returns its path."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CARD = 80
BLOCK = 2880
GIGABYTE = 2**30


def gzipped_zeros(path: Path, size: int, byte: bytes = b"\0", start: bytes = b"") -> Path:
    """Write `start` and then `size` times a byte, packed by gzip in members of 16 MiB."""
    piece = 2**24
    member = gzip.compress(byte * piece, 9)
    with path.open("wb") as file:
        file.write(gzip.compress(start))
        for _ in range(size // piece):
            file.write(member)
    return path


def zlib_zeros(size: int) -> bytes:
    """Deflate `size` zeros as one stream, its checksum left out."""
    piece = 2**24
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(b"\0" * piece) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\xda" + block * (size // piece) + packer.flush()


def header(*cards: str) -> bytes:
    """Write a FITS header."""
    text = "".join(card.ljust(CARD) for card in (*cards, "END"))
    return text.ljust(-(-len(text) // BLOCK) * BLOCK).encode()


PRIMARY = header("SIMPLE  =                    T", "BITPIX  =                    8",
                 "NAXIS   =                    0")  # fmt: skip


def table_header(width: int, rows: int, form: str = "1D", *more: str) -> bytes:
    return header(
        "XTENSION= 'BINTABLE'", "BITPIX  =                    8", "NAXIS   =                    2",
        f"NAXIS1  = {width:>20}", f"NAXIS2  = {rows:>20}", "PCOUNT  =                    0",
        "GCOUNT  =                    1", "TFIELDS =                    1",
        "TTYPE1  = 'ra      '", f"TFORM1  = '{form}'", *more,
    )  # fmt: skip


# Bombs


def csv_gz_of_zeros(folder: Path) -> Path:
    return gzipped_zeros(folder / "t.csv.gz", 8 * GIGABYTE)


def csv_gz_of_one_line(folder: Path) -> Path:
    return gzipped_zeros(folder / "t.csv.gz", GIGABYTE, b"a", b"ra,dec\n")


def csv_gz_of_many_lines(folder: Path) -> Path:
    return gzipped_zeros(folder / "t.csv.gz", 8 * GIGABYTE, b"\n1,2,\n1", b"ra,dec,id\n1,2,")


def csv_bz2_of_zeros(folder: Path) -> Path:
    import bz2

    path = folder / "t.csv.bz2"
    path.write_bytes(bz2.compress(b"ra,dec\n1,2\n") + bz2.compress(bytes(2**26)) * 16)
    return path


def csv_of_a_million_columns(folder: Path) -> Path:
    path = folder / "t.csv"
    path.write_text(",".join(f"c{n}" for n in range(150_000)) + ",a,a\n" + "1," * 150_001 + "1\n")
    return path


def txt_gz_of_zeros(folder: Path) -> Path:
    return gzipped_zeros(folder / "t.txt.gz", GIGABYTE, b"a", b"ra dec\n1 2\n")


def ecsv_gz_of_zeros(folder: Path) -> Path:
    return gzipped_zeros(folder / "t.ecsv.gz", GIGABYTE, b"\n", b"# %ECSV 1.0\n")


ECSV = "# %ECSV 1.0\n# ---\n# datatype:\n# - {{name: ra, datatype: float64}}\n{}ra\n1.5\n"


def ecsv_of_aliases(folder: Path) -> Path:
    lines = ["meta:", "  a0: &a0 {x0: 1, y0: 1}"]
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    lines += ["  z:", "    <<: *a8"]
    path = folder / "t.ecsv"
    path.write_text(ECSV.format("".join(f"# {line}\n" for line in lines)))
    return path


def ecsv_of_merged_maps(folder: Path) -> Path:
    lines = ["meta:", "  a0: &a0 {x: 1, y: 2, z: 3, u: 4}"]
    for n in range(1, 12):
        merged = ", ".join([f"*a{n - 1}"] * 9)
        lines.append(f"  a{n}: &a{n} {{<<: [{merged}]}}")
    path = folder / "t.ecsv"
    path.write_text(ECSV.format("".join(f"# {line}\n" for line in lines)))
    return path


def votable_gz_of_a_comment(folder: Path) -> Path:
    start = b'<?xml version="1.0"?>\n<!--'
    return gzipped_zeros(folder / "t.vot.gz", GIGABYTE, b"a", start)


def votable_of_a_huge_array(folder: Path) -> Path:
    path = folder / "t.vot"
    path.write_text(
        '<?xml version="1.0"?><VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">'
        '<RESOURCE><TABLE nrows="1000000"><FIELD name="a" datatype="double" arraysize="999999999"/>'
        "<DATA><TABLEDATA><TR><TD>7</TD></TR></TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>"
    )
    return path


def votable_of_deep_elements(folder: Path) -> Path:
    path = folder / "t.vot"
    start = '<?xml version="1.0"?><VOTABLE version="1.3">'
    path.write_text(start + "<RESOURCE>" * 200_000 + "</RESOURCE>" * 200_000 + "</VOTABLE>")
    return path


def votable_of_laughs(folder: Path) -> Path:
    lines = ['<!ENTITY a0 "ha">']
    lines += [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)]
    path = folder / "t.vot"
    text = '<?xml version="1.0"?><!DOCTYPE VOTABLE [{}]><VOTABLE>&a11;</VOTABLE>'
    path.write_text(text.format("".join(lines)))
    return path


def fits_table_of_a_huge_repeat(folder: Path) -> Path:
    path = folder / "t.fits"
    path.write_bytes(PRIMARY + table_header(8, 1, "99999999999D") + bytes(BLOCK))
    return path


def fits_table_of_many_rows_gz(folder: Path) -> Path:
    path = folder / "t.fits.gz"
    path.write_bytes(gzip.compress(PRIMARY + table_header(8, 10**12) + bytes(BLOCK)))
    return path


def fits_table_gz_of_gigabytes(folder: Path) -> Path:
    rows = 8 * GIGABYTE // 8
    return gzipped_zeros(folder / "t.fits.gz", 8 * GIGABYTE, start=PRIMARY + table_header(8, rows))


def fits_table_with_holes(folder: Path) -> Path:
    """Write a plain table that the file system says is as long as it claims."""
    path = folder / "t.fits"
    path.write_bytes(PRIMARY + table_header(8, 2**40 // 8))
    os.truncate(path, 2**40 + 2 * BLOCK)
    return path


def fits_of_many_extensions_gz(folder: Path) -> Path:
    empty = header("XTENSION= 'IMAGE   '", "BITPIX  =                    8",
                   "NAXIS   =                    0", "PCOUNT  =                    0",
                   "GCOUNT  =                    1")  # fmt: skip
    member = gzip.compress(empty * 10_000)
    path = folder / "t.fits.gz"
    path.write_bytes(gzip.compress(PRIMARY) + member * 100)
    return path


def fits_of_many_cards_gz(folder: Path) -> Path:
    path = folder / "t.fits.gz"
    cards = "".join(f"K{n:<7}= {n:>20}".ljust(CARD) for n in range(300_000))
    end = table_header(8, 1)
    first = PRIMARY[: 3 * CARD] + cards.encode()
    whole = first + b"END".ljust(CARD)
    whole = whole.ljust(-(-len(whole) // BLOCK) * BLOCK)
    path.write_bytes(gzip.compress(whole + end + bytes(BLOCK), 1))
    return path


def hdf5_of_claims(folder: Path) -> Path:
    path = folder / "t.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("ra", (2**43,), "f8", chunks=(1024,))
    return path


def hdf5_of_fill_values(folder: Path) -> Path:
    path = folder / "t.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("ra", (GIGABYTE,), "f8", chunks=(1024,), fillvalue=1.0)
    return path


def hdf5_of_a_chunk_that_swells(folder: Path) -> Path:
    path = folder / "t.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("ra", (1024,), "f8", chunks=(1024,), compression="gzip")
        data.id.write_direct_chunk((0,), zlib_zeros(8 * GIGABYTE))
    return path


def hdf5_deflated_twice(folder: Path) -> Path:
    path = folder / "t.h5"
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((2**27,))
        plist.set_deflate(9)
        plist.set_deflate(9)
        space = h5py.h5s.create_simple((2**29,))
        h5py.h5d.create(file.id, b"ra", h5py.h5t.NATIVE_DOUBLE, space, plist)
        once = zlib.compress(zlib_zeros(GIGABYTE))
        for number in range(4):
            file["ra"].id.write_direct_chunk((number * 2**27,), once)
    return path


def hdf5_of_one_long_word(folder: Path) -> Path:
    """Write a column of words in which each row refers to the same 40 MB."""
    path = folder / "t.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("name", (20_000,), h5py.string_dtype())
        data[0] = "a" * 40_000_000
        place = data.id.get_offset()
    with path.open("r+b") as file:
        file.seek(place)
        first = file.read(16)
        file.seek(place)
        file.write(first * 20_000)
    return path


def hdf5_of_circles(folder: Path) -> Path:
    path = folder / "t.h5"
    with h5py.File(path, "w") as file:
        file["ra"] = np.arange(3.0)
        for number in range(30):
            file[f"g{number}"] = file["/"]
    return path


def hdf5_of_many_groups(folder: Path) -> Path:
    path = folder / "t.h5"
    with h5py.File(path, "w", libver="latest") as file:
        for number in range(100_000):
            file.create_group(f"g{number}")
    return path


def hdf5_of_a_yaml_bomb(folder: Path) -> Path:
    path = folder / "t.h5"
    lines = ["datatype:", "- {name: ra, unit: deg, datatype: float64}", "meta:",
             "  a0: &a0 {x: 1, y: 2, z: 3, u: 4}"]  # fmt: skip
    for n in range(1, 12):
        merged = ", ".join([f"*a{n - 1}"] * 9)
        lines.append(f"  a{n}: &a{n} {{<<: [{merged}]}}")
    with h5py.File(path, "w") as file:
        file["rows"] = np.array([(1.0,)], [("ra", "f8")])
        file["rows.__table_column_meta__"] = np.array([line.encode() for line in lines])
    return path


def parquet_of_one_long_word(folder: Path) -> Path:
    """Write a column of words whose dictionary has one entry, of 20 MB, for each of 1e6 rows."""
    path = folder / "t.parquet"
    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10**6, np.int32)), ["a" * 20_000_000])
    pq.write_table(pa.table({"name": words, "ra": np.zeros(10**6)}), path,
                   dictionary_pagesize_limit=2**26, store_schema=False)  # fmt: skip
    return path


def parquet_of_nothing_but_nulls(folder: Path) -> Path:
    path = folder / "t.parquet"
    piece = pa.table({"ra": pa.nulls(2**24, pa.float64())})
    with pq.ParquetWriter(path, piece.schema) as writer:
        for _ in range(128):
            writer.write_table(piece)
    return path


def parquet_of_long_pages(folder: Path) -> Path:
    path = folder / "t.parquet"
    piece = pa.table({"ra": pa.array(np.zeros(2**26))})
    with pq.ParquetWriter(path, piece.schema, compression="zstd", use_dictionary=False,
                          data_page_size=2**30) as writer:  # fmt: skip
        for _ in range(16):
            writer.write_table(piece)
    return path


def parquet_of_a_yaml_bomb(folder: Path) -> Path:
    lines = ["datatype:", "- {name: ra, unit: deg, datatype: float64}", "meta:",
             "  a0: &a0 {x: 1, y: 2, z: 3, u: 4}"]  # fmt: skip
    for n in range(1, 12):
        merged = ", ".join([f"*a{n - 1}"] * 9)
        lines.append(f"  a{n}: &a{n} {{<<: [{merged}]}}")
    table = pa.table({"ra": [1.0]}).replace_schema_metadata({"table_meta_yaml": "\n".join(lines)})
    pq.write_table(table, folder / "t.parquet")
    return folder / "t.parquet"


# Places that are no files


def _link(target: str, name: str) -> Callable[[Path], Path]:
    def link(folder: Path) -> Path:
        path = folder / name
        path.symlink_to(target)
        return path

    return link


def _pipe(name: str) -> Callable[[Path], Path]:
    def pipe(folder: Path) -> Path:
        path = folder / name
        os.mkfifo(path)
        return path

    return pipe


NAMES = ("t.csv", "t.csv.gz", "t.ecsv", "t.txt", "t.vot", "t.fits", "t.h5", "t.parquet", "t.cat")
PLACES = {
    **{f"pipe_{name}": _pipe(name) for name in NAMES},
    **{f"zero_{name}": _link("/dev/zero", name) for name in NAMES},
    **{f"environ_{name}": _link("/proc/self/environ", name) for name in NAMES},
}

BOMBS = {
    make.__name__: make
    for make in (
        csv_gz_of_zeros, csv_gz_of_one_line, csv_gz_of_many_lines, csv_bz2_of_zeros,
        csv_of_a_million_columns, txt_gz_of_zeros, ecsv_gz_of_zeros, ecsv_of_aliases,
        ecsv_of_merged_maps, votable_gz_of_a_comment, votable_of_a_huge_array,
        votable_of_deep_elements, votable_of_laughs, fits_table_of_a_huge_repeat,
        fits_table_of_many_rows_gz, fits_table_gz_of_gigabytes, fits_table_with_holes,
        fits_of_many_extensions_gz, fits_of_many_cards_gz, hdf5_of_claims, hdf5_of_fill_values,
        hdf5_of_a_chunk_that_swells, hdf5_deflated_twice, hdf5_of_one_long_word, hdf5_of_circles,
        hdf5_of_many_groups, hdf5_of_a_yaml_bomb, parquet_of_one_long_word,
        parquet_of_nothing_but_nulls, parquet_of_long_pages, parquet_of_a_yaml_bomb,
    )
}  # fmt: skip
