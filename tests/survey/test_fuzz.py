"""Files damaged at random: read aright or refused, but no crash, no hang and no short read.

The readers are partly in C, so they run in a process of its own, which may die without harm.
Run as a script this file is that process.
"""

import bz2
import contextlib
import gzip
import io
import json
import math
import os
import re
import resource
import select
import signal
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fits_files import tan_wcs

SHAPE = (40, 50)
SECONDS = 20
MEMORY = 4 * 2**30
WINDOWS = [np.s_[0:5, 0:7], np.s_[15:31, 20:45], np.s_[35:99, 40:99]]
NUMBERS = [
    "0", "1", "-1", "2", "3", "7", "8", "16", "17", "-32", "64", "100", "999", "50000",
    "2147483647", "2147483648", "99999999999", "9223372036854775807", "1E400", "NaN", "-5.5",
    "T", "F", "", "'RICE_1'", "'GZIP_1'", "'HCOMPRESS_1'", "'NOCOMPRESS'", "'1PB(3)'",
    "'no", "'-TAN'",
]  # fmt: skip


# The process that reads


def axes_of(cards: dict[str, str], prefix: str) -> list[int]:
    count = int(cards[f"{prefix}NAXIS"])
    return [int(cards[f"{prefix}NAXIS{n}"]) for n in range(1, count + 1)]


def cards_at(content: bytes, place: int) -> tuple[dict[str, str], int]:
    """Value of each card of a header, as text, and where its data start."""
    cards, start = {}, place
    while content[place : place + 80].rstrip() != b"END":
        card = content[place : place + 80].decode("latin-1")
        cards[card[:8].strip()] = card[10:].split("/")[0].strip()
        place += 80
    return cards, start + math.ceil((place + 80 - start) / 2880) * 2880


def promised(content: bytes, number: int) -> tuple[list[int], int]:
    """Axes of an extension (of the unpacked image), and where its data end; naively read."""
    end = 0
    for unit in range(number + 1):
        cards, start = cards_at(content, end)
        axes = axes_of(cards, "")
        count = int(cards.get("PCOUNT", 0)) + (math.prod(axes) if axes else 0)
        size = abs(int(cards["BITPIX"])) // 8 * int(cards.get("GCOUNT", 1)) * count
        if unit < number:
            end = start + math.ceil(size / 2880) * 2880
    return axes_of(cards, "Z") if cards.get("ZIMAGE") == "T" else axes, start + size


def unpacked(path: str) -> bytes:
    content = Path(path).read_bytes()
    for magic, unpack in ((b"\x1f\x8b", gzip.decompress), (b"BZh", bz2.decompress)):
        if content.startswith(magic):
            return unpack(content)
    return content


def examine_image(name: str) -> str:
    """Read an image in all ways; says what came of it, or raises if something is wrong."""
    from luneta.survey.images import ImageError, ImageFile, read_pixels
    from luneta.survey.wcs import read_grid

    path = name.split("[")[0]
    try:
        read_grid(name)
    except ImageError as error:
        assert "more memory" not in str(error), error
    try:
        with ImageFile(name) as image:
            number, shape = image.unit.number, image.shape
            parts = [image.window(rows, columns) for rows, columns in WINDOWS]
    except ImageError as error:
        assert "more memory" not in str(error), error
        parts = str(error)
    try:
        whole = read_pixels(name)
    except ImageError as error:
        assert "more memory" not in str(error), error
        return "refused"
    content = unpacked(path)
    axes, end = promised(content, number)
    assert list(whole.shape) == axes[::-1], (whole.shape, axes)
    assert end <= len(content), "a short read was not detected"
    assert isinstance(parts, list), f"read whole, but not by windows: {parts}"
    plane = whole.reshape(-1, *shape)[0]
    for part, (rows, columns) in zip(parts, WINDOWS, strict=True):
        assert np.array_equal(part, plane[rows, columns], equal_nan=plane.dtype.kind == "f")
    return "read"


def examine_table(name: str) -> str:
    """Read a source list as planning and ingestion do."""
    from luneta.config_checks import column_names
    from luneta.survey.sources import read_list
    from luneta.survey.tables import TableError

    columns = {"object_id": "name", "ra": "ra", "dec": "dec"}
    try:
        column_names(Path(name))
        found = read_list(name, {"columns": columns, "keep": {"flux": "flux"}})
    except TableError:
        return "refused"
    lengths = {len(values) for values in (found.object_id, found.ra, found.dec, found.kept)}
    assert len(lengths) == 1, lengths
    return "read"


def work() -> None:
    """Answer to each name that comes in with what came of it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.environ["PYTHONWARNINGS"] = "ignore"
    for line in sys.stdin:
        kind, name = json.loads(line)
        try:
            answer = {"image": examine_image, "table": examine_table}[kind](name)
        except Exception:
            answer = "wrong: " + traceback.format_exc(limit=-4)
        print(json.dumps(answer), flush=True)


class Reader:
    """The process that reads, started anew if it has died."""

    def __init__(self):
        self.process = None

    def start(self) -> None:
        here = Path(__file__)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(here)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(here.parents[1])},
            text=True,
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            with contextlib.suppress(BrokenPipeError):
                self.process.communicate()
            self.process = None

    def ask(self, kind: str, name: str) -> str:
        """What came of reading a file."""
        if self.process is None:
            self.start()
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps([kind, name]), file=self.process.stdin, flush=True)
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        answer = self.process.stdout.readline() if ready else ""
        if not answer:
            state = f"died: {self.process.wait()}" if ready else f"hung for {SECONDS} s"
            self.stop()
            return f"the reader {state}"
        return json.loads(answer)


@pytest.fixture(scope="module")
def reader():
    found = Reader()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("damaged")


# Good files


def pixels(kind=np.float32, shape=SHAPE) -> np.ndarray:
    values = np.random.default_rng(5).normal(100, 20, shape)
    return values.astype(kind)


def bytes_of(*units, checksum=False) -> bytes:
    file = io.BytesIO()
    fits.HDUList(list(units)).writeto(file, checksum=checksum)
    return file.getvalue()


def packed_tiles(kind: str, image=None) -> fits.CompImageHDU:
    image = pixels(np.int32) if image is None else image
    header = tan_wcs(SHAPE).to_header()
    return fits.CompImageHDU(image, header, name="IMAGE", compression_type=kind)


@cache
def good_images() -> dict[str, bytes]:
    header = tan_wcs(SHAPE).to_header()
    plain = fits.PrimaryHDU(pixels(), header)
    scaled = fits.PrimaryHDU(pixels(np.uint16), header)
    blank = fits.ImageHDU(pixels(np.int16), header, name="IMAGE")
    blank.header["BLANK"] = 100
    mask = fits.CompImageHDU(
        (pixels() > 120).astype(np.int16), name="MASK", compression_type="PLIO_1"
    )
    first = fits.PrimaryHDU
    return {
        "plain.fits": bytes_of(plain),
        "summed.fits": bytes_of(plain, checksum=True),
        "unsigned.fits": bytes_of(scaled),
        "cube.fits": bytes_of(first(pixels(shape=(3, *SHAPE)), header)),
        "packed.fits.gz": gzip.compress(bytes_of(plain), mtime=0),
        "packed.fits.bz2": bz2.compress(bytes_of(plain)),
        "rice.fits": bytes_of(first(), packed_tiles("RICE_1")),
        "rice_floats.fits": bytes_of(first(), packed_tiles("RICE_1", pixels())),
        "gzip_tiles.fits": bytes_of(first(), packed_tiles("GZIP_2", pixels())),
        "hcompress.fits": bytes_of(first(), packed_tiles("HCOMPRESS_1")),
        "several.fits": bytes_of(first(), blank, mask),
    }


@cache
def good_tables() -> dict[str, bytes]:
    table = Table(
        {"name": [f"o{n}" for n in range(30)], "ra": np.linspace(0, 359, 30),
         "dec": np.linspace(-89, 89, 30), "flux": np.linspace(1, 2, 30)}
    )  # fmt: skip
    formats = {"fits": "fits", "csv": "ascii.csv", "vot": "votable", "ecsv": "ascii.ecsv"}
    found = {}
    for suffix, form in formats.items():
        file = io.BytesIO() if suffix in ("fits", "vot") else io.StringIO()
        table.write(file, format=form)
        content = file.getvalue()
        found[f"table.{suffix}"] = content if isinstance(content, bytes) else content.encode()
    file = io.BytesIO()
    table.to_pandas().to_parquet(file)
    return {**found, "table.parquet": file.getvalue()}


# Damage: each kind takes the content, a place in it and something drawn at random


def flip(content: bytearray, place: int, bits: int) -> None:
    content[place] ^= bits % 255 + 1


def truncate(content: bytearray, place: int, _: int) -> None:
    del content[place:]


def insert(content: bytearray, place: int, seed: int) -> None:
    content[place:place] = np.random.default_rng(seed).bytes(1 + seed % 3000)


def remove(content: bytearray, place: int, count: int) -> None:
    del content[place : place + 1 + count % 3000]


def overwrite(content: bytearray, place: int, seed: int) -> None:
    content[place : place + 40] = np.random.default_rng(seed).bytes(
        len(content[place : place + 40])
    )


def swap_blocks(content: bytearray, place: int, other: int) -> None:
    size = 80 if other % 2 else 2880
    first, second = place // size * size, other // 2 % (len(content) // size + 1) * size
    one, two = bytes(content[first : first + size]), bytes(content[second : second + size])
    if len(one) == len(two) and first != second:
        content[first : first + size], content[second : second + size] = two, one


def edit_card(content: bytearray, place: int, choice: int) -> None:
    """Give one of the header's cards another value."""
    cards = [m.start() for m in re.finditer(rb"[A-Z][A-Z0-9_-]{0,7} *= ", content)]
    if cards:
        start = cards[place % len(cards)]
        value = NUMBERS[choice % len(NUMBERS)].encode().rjust(20).ljust(70)
        content[start + 10 : start + 80] = value


DAMAGE = [flip, truncate, insert, remove, overwrite, swap_blocks, edit_card, edit_card]

places = st.one_of(st.integers(0, 200), st.integers(0, 9000), st.integers(0, 2**18))
blows = st.lists(
    st.tuples(st.sampled_from(DAMAGE), places, st.integers(0, 2**18)), min_size=1, max_size=3
)


def damaged(content: bytes, blows: list) -> bytes:
    content = bytearray(content)
    for damage, place, extra in blows:
        if content:
            damage(content, place % len(content), extra)
    return bytes(content)


def damaged_image(name: str, blows: list) -> bytes:
    """Damage an image; of a packed one the content, every other time."""
    content = good_images()[name]
    if name.endswith((".gz", ".bz2")) and blows[0][2] % 2:
        inside = damaged(unpacked_bytes(name), blows)
        return gzip.compress(inside, mtime=0) if name.endswith(".gz") else bz2.compress(inside)
    return damaged(content, blows)


@cache
def unpacked_bytes(name: str) -> bytes:
    content = good_images()[name]
    return gzip.decompress(content) if name.endswith(".gz") else bz2.decompress(content)


EXTENSIONS = ["", "[0]", "[1]", "[IMAGE]", "[MASK]"]


def check_image(reader, folder, name: str, extension: str, blows: list) -> None:
    (folder / name).write_bytes(damaged_image(name, blows))
    assert reader.ask("image", f"{folder / name}{extension}") in ("read", "refused")


def check_table(reader, folder, name: str, blows: list) -> None:
    (folder / name).write_bytes(damaged(good_tables()[name], blows))
    assert reader.ask("table", str(folder / name)) in ("read", "refused")


def searching(examples: int):
    """Settings of a search that finds the same each time, for as many examples."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


images = st.sampled_from(sorted(good_images()))
tables = st.sampled_from(sorted(good_tables()))


@pytest.mark.parametrize("name", sorted(good_images()))
def test_good_images_are_read(reader, tmp_path, name):
    (tmp_path / name).write_bytes(good_images()[name])
    assert reader.ask("image", str(tmp_path / name)) == "read"


@pytest.mark.parametrize("name", sorted(good_tables()))
def test_good_tables_are_read(reader, tmp_path, name):
    (tmp_path / name).write_bytes(good_tables()[name])
    assert reader.ask("table", str(tmp_path / name)) == "read"


@pytest.mark.parametrize(
    ("sign", "said"), [(signal.SIGKILL, "died: -9"), (signal.SIGSTOP, "hung for 1 s")]
)
def test_a_reader_that_dies_or_hangs_is_noticed(monkeypatch, sign, said):
    monkeypatch.setattr(sys.modules[__name__], "SECONDS", 1)
    reader = Reader()
    reader.start()
    reader.process.send_signal(sign)
    assert said in reader.ask("image", "any.fits")
    assert reader.process is None


FOUND = {  # what once hung, crashed or was read wrong
    "packed.fits.gz": [[(edit_card, 2915, 231585)]],
    "packed.fits.bz2": [
        [(edit_card, 3279, 120141), (edit_card, 137, 231954), (insert, 3026, 162387)]
    ],
    "gzip_tiles.fits": [
        [(overwrite, 455, 143415), (edit_card, 4569, 178885)],
        [(flip, 358, 226767)],
    ],
    "table.fits": [[(edit_card, 6382, 18276)]],
    "table.csv": [[(insert, 20, 1)], [(flip, 98444, 14769)], [(flip, 13, 194966)]],
    "table.parquet": [
        [(swap_blocks, 130867, 75490), (flip, 103, 212126)],
        [(flip, 151, 255736)],
    ],
}


@pytest.mark.parametrize(
    ("name", "blows"), [(name, blows) for name, all_of in FOUND.items() for blows in all_of]
)
def test_what_was_found_before(reader, folder, name, blows):
    if name in good_tables():
        check_table(reader, folder, name, blows)
    else:
        check_image(reader, folder, name, "", blows)


@given(name=images, extension=st.sampled_from(EXTENSIONS), blows=blows)
@searching(300)
def test_damaged_images(reader, folder, name, extension, blows):
    check_image(reader, folder, name, extension, blows)


@given(name=tables, blows=blows)
@searching(100)
def test_damaged_tables(reader, folder, name, blows):
    check_table(reader, folder, name, blows)


@pytest.mark.slow
@given(name=images, extension=st.sampled_from(EXTENSIONS), blows=blows)
@searching(5000)
def test_many_damaged_images(reader, folder, name, extension, blows):
    check_image(reader, folder, name, extension, blows)


@pytest.mark.slow
@given(name=tables, blows=blows)
@searching(2000)
def test_many_damaged_tables(reader, folder, name, blows):
    check_table(reader, folder, name, blows)


if __name__ == "__main__":
    work()
