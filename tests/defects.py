"""A corpus of defective survey files, each made from a good one, and what must be said of it."""

import bz2
import gzip
import os
import socket
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
from astropy.io import fits
from astropy.table import Table
from PIL import Image

from fits_files import add_star, tan_wcs
from luneta.survey.flags import Flag

SHAPE, SCALE, CENTRE = (100, 110), 3.0, (150.0, 2.0)
NOISE, STAR = 5.0, 5000.0
STAMP = 20


@dataclass(frozen=True)
class Defect:
    """A way to spoil a delivery.

    Attributes
    ----------
    make : callable
        Spoils a good tile, or makes a stamp; see `Tile` and `stamp_file`.
    flag : Flag or None
        What its objects must be flagged with; None: they must stay usable, and clean.
    words : str
        Regular expression that the reason must match, and that of no other defect may.
    """

    make: Callable
    flag: Flag | None
    words: str = ""

    @property
    def name(self) -> str:
        make = self.make.func if isinstance(self.make, partial) else self.make
        return make.__name__


# Tiles


@cache
def stars() -> np.ndarray:
    """Zero-based x, y of the stars of a tile, shape (2, 25)."""
    y, x = np.meshgrid(np.linspace(14, 85, 5), np.linspace(14, 95, 5), indexing="ij")
    jitter = np.random.default_rng(4).uniform(-3, 3, (2, x.size))
    return np.stack([x.ravel(), y.ravel()]) + jitter


@cache
def pixels(seed: int) -> np.ndarray:
    """Image of the stars, shape (100, 110), float32."""
    image = np.random.default_rng(seed).normal(100, NOISE, SHAPE)
    for x, y in stars().T:
        add_star(image, x, y, STAR)
    return image.astype(np.float32)


def wcs_header(ra=CENTRE[0], dec=CENTRE[1], shape=SHAPE, scale=SCALE) -> fits.Header:
    return tan_wcs(shape, ra, dec, scale).to_header()


def image_bytes(image, header=None, unit=fits.PrimaryHDU, **options) -> bytes:
    file = BytesIO()
    made = unit(image, wcs_header() if header is None else header, **options)
    units = [made] if unit is fits.PrimaryHDU else [fits.PrimaryHDU(), made]
    fits.HDUList(units).writeto(file, checksum=options.get("name") == "SUMMED")
    return file.getvalue()


@cache
def good_files(seed: int) -> dict[str, bytes]:
    """The files of a good tile by the end of their name."""
    weight = np.full(SHAPE, NOISE**-2, np.float32)
    return {
        "r.fits": image_bytes(pixels(seed)),
        "g.fits": image_bytes(pixels(seed + 1)),
        "mask.fits": image_bytes(np.zeros(SHAPE, np.int16)),
        "weight.fits": image_bytes(weight),
    }


@dataclass
class Tile:
    """A good tile on disk, to be spoilt.

    Attributes
    ----------
    rows : list of tuple
        object_id, ra, dec of its source list, as text.
    names : dict
        Band, then column of the tile table, to the file's name.
    """

    folder: Path
    name: str
    seed: int = 1
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    names: dict[str, dict[str, str]] = field(default_factory=dict)

    def write(self) -> None:
        for end, content in good_files(self.seed).items():
            self.file(end).write_bytes(content)
        beside = {"mask": str(self.file("mask.fits")), "weight": str(self.file("weight.fits"))}
        self.names = {
            "g": {"image": str(self.g), **beside},
            "r": {"image": str(self.r)},
        }
        sky = tan_wcs(SHAPE, *CENTRE, SCALE).pixel_to_world(*stars())
        self.rows = [
            (f"{self.name}-{n}", f"{place.ra.deg:.7f}", f"{place.dec.deg:.7f}")
            for n, place in enumerate(sky)
        ]

    def file(self, end: str) -> Path:
        return self.folder / f"{self.name}_{end}"

    @property
    def g(self) -> Path:
        return self.file("g.fits")

    @property
    def r(self) -> Path:
        return self.file("r.fits")

    def rename(self, band: str, end: str) -> Path:
        """Give a band's image another name; the old file goes."""
        Path(self.names[band]["image"]).unlink()
        self.names[band]["image"] = str(self.file(end))
        return self.file(end)


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def flip(path: Path, place: int, bits: int = 0x10) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= bits
    path.write_bytes(content)


def set_card(path: Path, keyword: str, value: str) -> None:
    """Write over the value of a header card as it stands, however wrong."""
    content = bytearray(path.read_bytes())
    place = content.index(f"{keyword:<8}=".encode())
    content[place : place + 80] = f"{keyword:<8}= {value:>20}".encode().ljust(80)
    path.write_bytes(content)


def compressed(seed: int, kind="RICE_1", name="IMAGE") -> bytes:
    options = {"compression_type": kind, "name": name}
    return image_bytes(pixels(seed), unit=fits.CompImageHDU, **options)


# How files break


def missing(tile):
    tile.g.unlink()


def reference_missing(tile):
    tile.r.unlink()


def empty(tile):
    cut(tile.g, 0)


def one_byte(tile):
    cut(tile.g, 1)


def cut_in_primary_header(tile):
    cut(tile.g, 1000)


def cut_in_extension_header(tile):
    tile.g.write_bytes(image_bytes(pixels(2), unit=fits.ImageHDU)[:4000])


def cut_in_data(tile):
    cut(tile.g, 30_000)


def cut_in_data_of_the_reference(tile):
    cut(tile.r, 20_000)


def cut_in_compressed_tile(tile):
    tile.g.write_bytes(compressed(2)[:15_000])


def flipped_with_datasum(tile):
    with fits.open(tile.g) as file:
        file.writeto(tile.g, checksum=True, overwrite=True)
    flip(tile.g, 20_000)


def flipped_in_heap_with_datasum(tile):
    tile.g.write_bytes(compressed(2, name="SUMMED"))
    flip(tile.g, 20_000)


def flipped_in_gzipped_tile(tile):
    tile.g.write_bytes(compressed(2, "GZIP_1"))
    flip(tile.g, 20_000)


def tile_outside_the_heap(tile):
    tile.g.write_bytes(compressed(2))
    with fits.open(tile.g, disable_image_compression=True) as file:
        place = file[1].fileinfo()["datLoc"]
    content = bytearray(tile.g.read_bytes())
    content[place + 4 : place + 8] = b"\x7f\xff\xff\xf0"
    tile.g.write_bytes(content)


def wrong_datasum(tile):
    with fits.open(tile.g) as file:
        file.writeto(tile.g, checksum=True, overwrite=True)
    set_card(tile.g, "DATASUM", "'12345'")


def naxis_too_large(tile):
    set_card(tile.g, "NAXIS2", "60000")


def naxis_of_terabytes(tile):
    set_card(tile.g, "NAXIS2", "99999999999")


def compressed_naxis_of_terabytes(tile):
    tile.g.write_bytes(compressed(2))
    set_card(tile.g, "ZNAXIS1", "99999999999")
    set_card(tile.g, "ZTILE1", "99999999999")


def naxis_too_small(tile):
    set_card(tile.g, "NAXIS2", "20")


def naxis_negative(tile):
    set_card(tile.g, "NAXIS2", "-100")


def no_axes(tile):
    tile.g.write_bytes(image_bytes(None))


def one_axis(tile):
    tile.g.write_bytes(image_bytes(np.ones(11_000, np.float32)))


def five_axes_said_two_given(tile):
    set_card(tile.g, "NAXIS", "5")


def axes_of_length_one(tile):
    tile.r.write_bytes(image_bytes(pixels(1)[None, None]))


def no_end(tile):
    content = tile.g.read_bytes()
    tile.g.write_bytes(content.replace(b"END" + b" " * 77, b" " * 80, 1))


def no_simple(tile):
    tile.g.write_bytes(tile.g.read_bytes()[80:])


def bitpix_17(tile):
    set_card(tile.g, "BITPIX", "17")


def table_for_an_image(tile):
    Table({"flux": [1.0, 2.0]}).write(tile.g, overwrite=True)
    tile.names["g"]["image"] += "[1]"


def text_for_an_image(tile):
    column = fits.Column("NAME", "A10", array=np.array(["NGC 1", "NGC 2"]), ascii=True)
    unit = fits.TableHDU.from_columns([column], name="NAMES")
    unit.writeto(tile.g, overwrite=True)
    tile.names["g"]["image"] += "[NAMES]"


def no_such_extension_name(tile):
    tile.names["g"]["image"] += "[SCI]"


def no_such_extension_number(tile):
    tile.names["g"]["image"] += "[7]"


def web_page(tile):
    tile.g.write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")


def png_picture(tile):
    Image.fromarray(np.zeros((30, 30), np.uint8)).save(tile.g, "PNG")


def lfs_pointer(tile):
    tile.g.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")


def gzip_cut(tile):
    content = gzip.compress(good_files(1)["g.fits"])
    tile.rename("g", "g.fits.gz").write_bytes(content[:10_000])


def gzip_flipped(tile):
    path = tile.rename("g", "g.fits.gz")
    path.write_bytes(gzip.compress(good_files(1)["g.fits"]))
    flip(path, -6)  # in the checksum at its end


def bzip2_cut(tile):
    content = bz2.compress(good_files(1)["g.fits"])
    tile.rename("g", "g.fits.bz2").write_bytes(content[:10_000])


def text_named_gz(tile):
    tile.rename("g", "g.fits.gz").write_text("object ra dec\n" * 300)


def plain_named_gz(tile):
    tile.rename("g", "g.fits.gz").write_bytes(good_files(1)["g.fits"])


def link_round_in_a_circle(tile):
    tile.g.unlink()
    tile.file("other.fits").symlink_to(tile.g)
    tile.g.symlink_to(tile.file("other.fits"))


def link_to_nothing(tile):
    tile.g.unlink()
    tile.g.symlink_to("/nowhere/image.fits")


def directory(tile):
    tile.g.unlink()
    tile.g.mkdir()


def forbidden(tile):
    tile.g.chmod(0)


def named_pipe(tile):
    tile.g.unlink()
    os.mkfifo(tile.g)


def reference_named_pipe(tile):
    tile.r.unlink()
    os.mkfifo(tile.r)


def unix_socket(tile):
    tile.g.unlink()
    here = Path.cwd()
    os.chdir(tile.folder)  # the path of a socket may have 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(tile.g.name)
    finally:
        os.chdir(here)


def device(tile):
    tile.g.unlink()
    tile.g.symlink_to("/dev/zero")


def no_line_for_a_band(tile):
    del tile.names["g"]


def no_line_for_the_reference(tile):
    del tile.names["r"]


# Coordinate systems


def write_r(tile, header) -> None:
    tile.r.write_bytes(image_bytes(pixels(1), header))


def wcs_never_solved(tile):
    write_r(tile, wcs_header(0.0, 0.0))


def wcs_off_by_an_arcminute(tile):
    write_r(tile, wcs_header(CENTRE[0] + 75 / 3600))


def singular_matrix(tile):
    header = wcs_header()
    for key in ("PC1_1", "PC1_2", "PC2_1", "PC2_2"):
        header[key] = 1.0
    write_r(tile, header)


def no_ctype(tile):
    header = wcs_header()
    del header["CTYPE1"], header["CTYPE2"]
    write_r(tile, header)


def ctype_of_no_sky(tile):
    header = wcs_header()
    header["CTYPE1"], header["CTYPE2"] = "VELO-LSR", "DEC--TAN"
    write_r(tile, header)


def crval_not_a_number(tile):
    write_r(tile, wcs_header())
    set_card(tile.r, "CRVAL1", "NaN")


def crval_text(tile):
    write_r(tile, wcs_header())
    set_card(tile.r, "CRVAL1", "'10:00:00'")


def band_elsewhere(tile):
    tile.g.write_bytes(image_bytes(pixels(2), wcs_header(CENTRE[0] + 1)))


def band_without_wcs(tile):
    tile.g.write_bytes(image_bytes(pixels(2), fits.Header()))


def band_of_another_shape(tile):
    image = np.pad(pixels(2), 10, mode="wrap")
    tile.g.write_bytes(image_bytes(image, wcs_header(shape=image.shape)))
    for kind in ("mask", "weight"):
        del tile.names["g"][kind]


def band_of_another_scale(tile):
    image = np.kron(pixels(2), np.ones((2, 2), np.float32)) / 4
    header = wcs_header(shape=image.shape, scale=SCALE / 2)
    tile.g.write_bytes(image_bytes(image, header))
    for kind in ("mask", "weight"):
        del tile.names["g"][kind]


# Pixels


def write_g(tile, image) -> None:
    tile.g.write_bytes(image_bytes(np.asarray(image, np.float32)))


def all_nan(tile):
    write_g(tile, np.full(SHAPE, np.nan))


def all_infinite(tile):
    write_g(tile, np.full(SHAPE, np.inf))


def all_enormous(tile):
    write_g(tile, pixels(2) * 1e33)


def all_constant(tile):
    write_g(tile, np.full(SHAPE, 7.25))


def all_masked(tile):
    tile.file("mask.fits").write_bytes(image_bytes(np.ones(SHAPE, np.int16)))


def mask_of_another_shape(tile):
    tile.file("mask.fits").write_bytes(image_bytes(np.zeros((50, 60), np.int16)))


def mask_mostly_not_a_number(tile):
    mask = np.where(np.random.default_rng(0).uniform(size=SHAPE) < 0.9, np.nan, 0.0)
    for band in ("g", "r"):
        tile.names[band]["mask"] = str(tile.file("mask.fits"))
    tile.file("mask.fits").write_bytes(image_bytes(mask))


def mask_cut(tile):
    cut(tile.file("mask.fits"), 10_000)


def weights_negative(tile):
    tile.file("weight.fits").write_bytes(image_bytes(np.full(SHAPE, -2.5)))


def weights_zero(tile):
    tile.file("weight.fits").write_bytes(image_bytes(np.zeros(SHAPE)))


def weight_of_another_shape(tile):
    tile.file("weight.fits").write_bytes(image_bytes(np.ones((110, 100))))


def weight_missing(tile):
    tile.file("weight.fits").unlink()


UNREADABLE, NO_DATA, NO_WCS = Flag.UNREADABLE_FILE, Flag.NO_DATA, Flag.NO_WCS
MISSING, MISMATCH = Flag.MISSING_FILE, Flag.SHAPE_MISMATCH

TILES = [
    Defect(missing, MISSING, r"missing_g\.fits does not exist$"),
    Defect(reference_missing, MISSING, r"reference_missing_r\.fits does not exist$"),
    Defect(empty, UNREADABLE, r"is empty \(0 bytes\)"),
    Defect(one_byte, UNREADABLE, "starts with b'S' instead"),
    Defect(cut_in_primary_header, UNREADABLE, "in the header of extension 0: .* 1,000 bytes"),
    Defect(cut_in_extension_header, UNREADABLE, "in the header of extension 1: .* 4,000 bytes"),
    Defect(cut_in_data, UNREADABLE, r"_g.fits is truncated: 100 rows \(44,000 bytes of data\)"),
    Defect(cut_in_data_of_the_reference, UNREADABLE, "_r.fits is truncated: 100 rows"),
    Defect(cut_in_compressed_tile, UNREADABLE, r"truncated: [\d,]+ bytes of data are promised"),
    Defect(flipped_with_datasum, Flag.BAD_CHECKSUM, "data of extension 0 do not .* DATASUM [2-9]"),
    Defect(flipped_in_heap_with_datasum, Flag.BAD_CHECKSUM, "data of extension 1 do not add up"),
    Defect(flipped_in_gzipped_tile, UNREADABLE, "is damaged: CRC check failed$"),
    Defect(tile_outside_the_heap, UNREADABLE, "damaged: .*past end of file"),
    Defect(wrong_datasum, Flag.BAD_CHECKSUM, "do not add up to DATASUM 12345"),
    Defect(naxis_too_large, UNREADABLE, "truncated: 60,000 rows"),
    Defect(naxis_of_terabytes, UNREADABLE, "truncated: 99,999,999,999 rows"),
    Defect(compressed_naxis_of_terabytes, UNREADABLE, "cannot hold the 39,999,999,999,600 bytes"),
    Defect(naxis_too_small, UNREADABLE, "goes on at byte .* NAXIS or BITPIX is wrong"),
    Defect(naxis_negative, UNREADABLE, "NAXIS2 of extension 0 is -100"),
    Defect(no_axes, UNREADABLE, r"no extension with an image; it holds 0 PRIMARY \(empty\)"),
    Defect(one_axis, UNREADABLE, r"no extension with an image; it holds .*11000 pixels"),
    Defect(five_axes_said_two_given, UNREADABLE, "NAXIS3 of extension 0 is missing"),
    Defect(axes_of_length_one, None),
    Defect(no_end, UNREADABLE, "has no END in the header of extension 0"),
    Defect(no_simple, UNREADABLE, "starts with b'BITPIX"),
    Defect(bitpix_17, UNREADABLE, "BITPIX of extension 0 is 17"),
    Defect(table_for_an_image, UNREADABLE, "has a table in extension 1, not an image"),
    Defect(text_for_an_image, UNREADABLE, r"has a table in extension 1 \(NAMES\), not an image"),
    Defect(no_such_extension_name, UNREADABLE, "has no extension 'SCI'; it holds 0 PRIMARY"),
    Defect(no_such_extension_number, UNREADABLE, "has no extension 7; it holds 0 PRIMARY"),
    Defect(web_page, UNREADABLE, "is a web page or other markup, not FITS"),
    Defect(png_picture, UNREADABLE, "is a PNG picture, not FITS"),
    Defect(lfs_pointer, UNREADABLE, "is a Git LFS pointer, whose content was never downloaded"),
    Defect(gzip_cut, UNREADABLE, r"_g\.fits\.gz is damaged: Compressed file ended"),
    Defect(gzip_flipped, UNREADABLE, "is damaged: CRC check failed 0x"),
    Defect(bzip2_cut, UNREADABLE, r"_g\.fits\.bz2 is damaged: Compressed file ended"),
    Defect(text_named_gz, UNREADABLE, r"\.gz is not FITS: it starts with b'object ra'"),
    Defect(plain_named_gz, None),
    Defect(link_round_in_a_circle, UNREADABLE, "symbolic link that leads round in a circle"),
    Defect(link_to_nothing, MISSING, "does not exist: it is a link to /nowhere/image.fits"),
    Defect(directory, UNREADABLE, "is a directory, not a file"),
    Defect(forbidden, UNREADABLE, "may not be read by this user"),
    Defect(named_pipe, UNREADABLE, "_g.fits is a named pipe, not a file"),
    Defect(reference_named_pipe, UNREADABLE, "_r.fits is a named pipe, not a file"),
    Defect(unix_socket, UNREADABLE, "is a socket, not a file"),
    Defect(device, UNREADABLE, "is a device, not a file"),
    Defect(no_line_for_a_band, MISSING, "tile no_line_for_a_band has no image in band g"),
    Defect(no_line_for_the_reference, MISSING, "has no image in .*band r"),
    Defect(
        wcs_never_solved, Flag.OUTSIDE, r"outside its tile, whose centre is at ra 0\.0+, dec 0\.0+$"
    ),
    Defect(wcs_off_by_an_arcminute, Flag.WCS_OFFSET, r"lie 7[45]\.\d+ arcsec .* above the limit"),
    Defect(singular_matrix, NO_WCS, "is singular: it maps the image onto a line"),
    Defect(no_ctype, NO_WCS, "_r.fits: it has no celestial .*no CTYPE1, no CTYPE2"),
    Defect(ctype_of_no_sky, NO_WCS, "CTYPE1 is 'VELO-LSR'.* cannot be used: Unmatched celestial"),
    Defect(crval_not_a_number, NO_WCS, "CRVAL1 of its coordinate system is nan, not a number"),
    Defect(crval_text, NO_WCS, "CRVAL1 of its coordinate system is '10:00:00', not a number"),
    Defect(band_elsewhere, NO_DATA, "has no pixel on the reference band's image"),
    Defect(band_without_wcs, NO_WCS, "_g.fits: it has no celestial"),
    Defect(band_of_another_shape, None),
    Defect(band_of_another_scale, None),
    Defect(all_nan, NO_DATA, "no good pixel: all are NaN$"),
    Defect(all_infinite, NO_DATA, "no good pixel: all are infinite$"),
    Defect(all_enormous, NO_DATA, r"no good pixel: all are beyond 1e\+30$"),
    Defect(all_constant, NO_DATA, "is constant: all its good pixels have the value 7.25"),
    Defect(all_masked, NO_DATA, "no good pixel left: .*_mask.fits marks all as bad"),
    Defect(mask_of_another_shape, MISMATCH, r"_mask.fits has shape \(50, 60\)"),
    Defect(
        mask_mostly_not_a_number, Flag.TOO_MASKED, "more than 50% of the cutout's pixels are bad"
    ),
    Defect(mask_cut, UNREADABLE, "_mask.fits is truncated"),
    Defect(weights_negative, NO_DATA, r"weight.fits is positive at none; .* -2\.5$"),
    Defect(weights_zero, NO_DATA, "weight.fits is positive at none; .* value is 0$"),
    Defect(weight_of_another_shape, MISMATCH, r"_weight.fits has shape \(110, 100\)"),
    Defect(weight_missing, MISSING, r"_weight\.fits does not exist"),
]


# Rows of a source list, each with the flag and the reason of its object

GOOD_PLACE = ("150.0021000", "2.0034000")

ROWS = {
    "ra_nan": (("nan", "2.0"), Flag.BAD_POSITION, "missing"),
    "ra_empty": (("", "2.0"), Flag.BAD_POSITION, "missing"),
    "ra_infinite": (("inf", "2.0"), Flag.BAD_POSITION, "ra is inf"),
    "dec_infinite": (("150.0", "-inf"), Flag.BAD_POSITION, "dec is -inf"),
    "dec_beyond_the_pole": (("150.0", "91.5"), Flag.BAD_POSITION, "dec is 91.5, and goes from"),
    "far_away": (("240.0", "2.0"), Flag.OUTSIDE, "outside its tile, .* ra 150"),
    "": (GOOD_PLACE, Flag.BAD_ID, "has no object_id"),
    "good_0-3": (GOOD_PLACE, Flag.DUPLICATE_ID, "same object_id"),
    "M 31 \u2603 \u03b1\u03b2 \U0001f30c": (GOOD_PLACE, None, ""),
    "../../../etc/passwd": (GOOD_PLACE, None, ""),
    "/absolute/name": (GOOD_PLACE, None, ""),
    "x" * 10_000: (GOOD_PLACE, None, ""),
    "<script>alert('luneta')</script>&amp;": (GOOD_PLACE, None, ""),
    "{braces} %s $HOME `id`": (GOOD_PLACE, None, ""),
}
TEXT_ROWS = {
    "ra_text": (("unknown", "2.0"), Flag.BAD_POSITION, "ra is NaN"),
    "text_far": (("10:00:61", "2.0"), Flag.BAD_POSITION, "ra is NaN"),
}


def rows_of(given: dict) -> list[tuple[str, str, str]]:
    return [(name, *place) for name, (place, _, _) in given.items()]


# Stamps: each maker gives the file's name, maybe with [DATASET], and the object's row in it


@cache
def stamp() -> np.ndarray:
    """Three bands of one galaxy, shape (3, 20, 20), float32."""
    image = np.random.default_rng(8).normal(0, 1, (3, STAMP, STAMP))
    for plane in image:
        add_star(plane, STAMP // 2, STAMP // 2, 2000.0)
    return image.astype(np.float32)


def picture_bytes(form: str) -> bytes:
    scaled = np.clip(stamp() * 2 + 60, 0, 255).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(np.moveaxis(scaled, 0, -1)).save(file, form)
    return file.getvalue()


def stamp_bytes(image) -> bytes:
    return image_bytes(np.asarray(image), fits.Header())


def array_bytes(array, **options) -> bytes:
    file = BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def good_cube(folder, name):
    return write(folder / f"{name}.fits", stamp_bytes(stamp()))


def good_array(folder, name):
    return write(folder / f"{name}.npy", array_bytes(np.stack([stamp()] * 2)))


def good_hdf5(folder, name):
    path = folder / f"{name}.h5"
    with h5py.File(path, "w") as file:
        file["images"] = np.stack([stamp()] * 2)
    return path


def good_png(folder, name):
    return write(folder / f"{name}.png", picture_bytes("PNG"))


def good_jpeg(folder, name):
    return write(folder / f"{name}.jpg", picture_bytes("JPEG"))


GOOD_STAMPS = [good_cube, good_array, good_hdf5, good_png, good_jpeg]


def stamp_missing(folder, name):
    return folder / f"{name}.fits"


def stamp_of_two_bands(folder, name):
    return write(folder / f"{name}.fits", stamp_bytes(stamp()[:2]))


def stamp_of_one_axis(folder, name):
    return write(folder / f"{name}.npy", array_bytes(np.ones((2, 40), np.float32)))


def stamp_cut(folder, name):
    return write(folder / f"{name}.fits", stamp_bytes(stamp())[:4000])


def stamp_all_nan(folder, name):
    return write(folder / f"{name}.fits", stamp_bytes(np.full_like(stamp(), np.nan)))


def stamp_constant(folder, name):
    return write(folder / f"{name}.fits", stamp_bytes(np.full_like(stamp(), 3.5)))


def stamp_web_page(folder, name):
    return write(folder / f"{name}.fits", b"<html>503 Service Unavailable</html>")


def stamp_named_pipe(folder, name):
    os.mkfifo(folder / f"{name}.fits")
    return folder / f"{name}.fits"


def picture_named_pipe(folder, name):
    os.mkfifo(folder / f"{name}.jpg")
    return folder / f"{name}.jpg"


def array_named_pipe(folder, name):
    os.mkfifo(folder / f"{name}.npy")
    return folder / f"{name}.npy"


def hdf5_named_pipe(folder, name):
    os.mkfifo(folder / f"{name}.h5")
    return folder / f"{name}.h5"


def stamp_directory(folder, name):
    (folder / f"{name}.npy").mkdir()
    return folder / f"{name}.npy"


def jpeg_cut(folder, name):
    return write(folder / f"{name}.jpg", picture_bytes("JPEG")[:-60])


def png_wrong_crc(folder, name):
    path = write(folder / f"{name}.png", picture_bytes("PNG"))
    flip(path, path.read_bytes().index(b"IDAT") + 20)
    return path


def text_named_jpeg(folder, name):
    return write(folder / f"{name}.jpg", b"this is no picture at all\n")


def jpeg_empty(folder, name):
    return write(folder / f"{name}.jpg", b"")


def png_bomb(folder, name):
    """A PNG of 60,000 x 60,000 pixels by its header, and a few bytes of data."""
    content = bytearray(picture_bytes("PNG"))
    place = content.index(b"IHDR")
    content[place + 4 : place + 12] = (60_000).to_bytes(4, "big") * 2
    checksum = zlib.crc32(content[place : place + 17])
    content[place + 17 : place + 21] = checksum.to_bytes(4, "big")
    return write(folder / f"{name}.png", content)


def array_wrong_header(folder, name):
    content = array_bytes(stamp()[None]).replace(b"'descr'", b"'nonse'")
    return write(folder / f"{name}.npy", content)


def array_cut(folder, name):
    return write(folder / f"{name}.npy", array_bytes(stamp()[None])[:1000])


def array_of_objects(folder, name):
    content = array_bytes(np.array([{"a": 1}, None], object), allow_pickle=True)
    return write(folder / f"{name}.npy", content)


def array_of_text(folder, name):
    words = np.full((2, 3, STAMP, STAMP), "star")
    return write(folder / f"{name}.npy", array_bytes(words))


def array_of_a_number(folder, name):
    return write(folder / f"{name}.npy", array_bytes(np.float32(3)))


def array_without_pixels(folder, name):
    return write(folder / f"{name}.npy", array_bytes(np.ones((2, 3, 0, 0), np.float32)))


def array_of_one_pixel(folder, name):
    return write(folder / f"{name}.npy", array_bytes(np.ones((2, 3, 1, 1), np.float32)))


def array_not_numpy(folder, name):
    return write(folder / f"{name}.npy", b"ra,dec\n1,2\n")


def hdf5_without_dataset(folder, name):
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["labels"] = np.zeros(4)
    return folder / f"{name}.h5"


def hdf5_without_that_dataset(folder, name):
    good_hdf5(folder, name)
    return f"{folder / name}.h5[stamps]"


def hdf5_cut(folder, name):
    path = good_hdf5(folder, name)
    cut(path, path.stat().st_size - 1500)
    return path


def hdf5_of_text(folder, name):
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["images"] = ["NGC 1", "NGC 2"]
    return folder / f"{name}.h5"


def array_row_too_high(folder, name):
    return good_array(folder, name), 2


def hdf5_row_too_high(folder, name):
    return good_hdf5(folder, name), 99


def out_of_the_root(folder, name):
    path = good_cube(folder.parent, name)
    return f"../{path.name}"


def absolute_path(folder, name):
    return "/absolute_path.fits"


def name_too_long(folder, name):
    return folder / f"{'n' * 300}.npy"


def no_file_named(folder, name):
    return ""


STAMPS = [
    Defect(stamp_missing, MISSING, r"stamp_missing\.fits does not exist"),
    Defect(stamp_of_two_bands, MISMATCH, r"has shape \(2, 20, 20\); 3 bands ask for"),
    Defect(stamp_of_one_axis, MISMATCH, r"has shape \(40,\); 3 bands ask for"),
    Defect(stamp_cut, UNREADABLE, "stamp_cut.fits is truncated: 60 rows"),
    Defect(stamp_all_nan, NO_DATA, "band g, has no good pixel"),
    Defect(stamp_constant, NO_DATA, "band g, is constant: every pixel has the value 3.5"),
    Defect(stamp_web_page, UNREADABLE, "is a web page or other markup, not FITS"),
    Defect(stamp_named_pipe, UNREADABLE, r"\.fits is a named pipe, not a file"),
    Defect(picture_named_pipe, UNREADABLE, r"\.jpg is a named pipe, not a file"),
    Defect(array_named_pipe, UNREADABLE, r"\.npy is a named pipe, not a file"),
    Defect(hdf5_named_pipe, UNREADABLE, r"\.h5 is a named pipe, not a file"),
    Defect(stamp_directory, UNREADABLE, "is a directory, not a file"),
    Defect(jpeg_cut, UNREADABLE, r"jpeg_cut.jpg cannot be read: image file is truncated"),
    Defect(png_wrong_crc, UNREADABLE, "png_wrong_crc.png cannot be read: broken data stream"),
    Defect(text_named_jpeg, UNREADABLE, "is not a picture: it starts with b'this is no p'"),
    Defect(jpeg_empty, UNREADABLE, r"is empty \(0 bytes\)"),
    Defect(png_bomb, UNREADABLE, "3600000000 pixels"),
    Defect(array_wrong_header, UNREADABLE, "array_wrong_header.npy cannot be read: .*[Hh]eader"),
    Defect(array_cut, UNREADABLE, "array_cut.npy cannot be read: .*short of it"),
    Defect(array_of_objects, UNREADABLE, "cannot be read: .*Python objects"),
    Defect(array_of_text, UNREADABLE, r"holds text or objects of shape \(2, 3, 20, 20\)"),
    Defect(array_of_a_number, UNREADABLE, r"holds .* of shape \(\); stamps are arrays"),
    Defect(array_without_pixels, NO_DATA, r"has shape \(3, 0, 0\): no pixels"),
    Defect(array_of_one_pixel, NO_DATA, "is constant: every pixel has the value 1$"),
    Defect(array_not_numpy, UNREADABLE, "magic string is not correct"),
    Defect(name_too_long, UNREADABLE, "cannot be opened: File name too long"),
    Defect(hdf5_without_dataset, UNREADABLE, "none of the datasets images, image, data; .*labels"),
    Defect(hdf5_without_that_dataset, UNREADABLE, "has no dataset 'stamps'; it holds images"),
    Defect(hdf5_cut, UNREADABLE, "truncated file"),
    Defect(hdf5_of_text, UNREADABLE, r"holds text or objects of shape \(2,\)"),
    Defect(array_row_too_high, MISSING, r"\.npy has no row 2: it holds 2 stamps"),
    Defect(hdf5_row_too_high, MISSING, r"\.h5 has no row 99: it holds 2 stamps"),
    Defect(out_of_the_root, MISSING, "leads out of the folder .*'../out_of_the_root.fits'"),
    Defect(absolute_path, MISSING, "leads out of the folder .*absolute_path.fits'"),
    Defect(no_file_named, MISSING, "gives no file, which names its file"),
]
