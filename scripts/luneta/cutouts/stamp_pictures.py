"""Reading pictures: JPEG, PNG, TIFF and their like, of every depth and colour type."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from luneta.faults import passing_fault
from luneta.survey.fits_headers import open_plain, unavailable
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError

SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif"])
# Of the other formats that Pillow knows, some start programs.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")
WHITE = 255
ROUNDING = 1e-3
FULL_RANGE = 2**24  # a picture of 32 bits that is brighter than 1/256 of its white
# Tags of a TIFF, and values of theirs.
SUBFILE_TYPE, BITS_PER_SAMPLE, PHOTOMETRIC, ORIENTATION = 254, 258, 262, 274
PLANAR, SAMPLE_FORMAT = 284, 339
WHITE_IS_ZERO, A_PLANE_A_COLOUR, SIGNED = 0, 2, 2
# Pillow keeps the high bytes of 16-bit colours; with the bytes swapped it keeps the low ones.
NATIVE, OTHER = (";16L", ";16B") if sys.byteorder == "little" else (";16B", ";16L")
SWAPPED = {
    f"{mode}{given}": f"{mode}{other}"
    for mode in ("RGB", "RGBA")
    for given, other in ((";16L", ";16B"), (";16B", ";16L"), (";16N", OTHER))
}
GREY_WITH_ALPHA_16 = "LA;16B"
# libtiff unpacks numbers in the machine's byte order, and Pillow takes these for the file's.
UNPACKED = {"F;32BF": "F;32NF", "I;32BS": "I;32NS", "I;16BS": "I;16NS"}


def read_picture(
    source: Path | str | bytes | BinaryIO,
    page: int | None = None,
    display: bool = True,
    name: str | None = None,
) -> np.ndarray:
    """Read a picture as red, green and blue.

    Pixels of 1 to 16 bits go from 0 (black) to 255 (white), whatever the file calls white.
    Floating-point pixels from 0 to 1, and those of 32 bits that use their range, are scaled so
    too; others of these types must lie within 0 to 255. Grey is all three colours. Transparent
    pixels (alpha 0) are NaN. The picture is turned as its EXIF orientation says; colour profiles
    are not applied. Of an animation the first picture is read.

    Parameters
    ----------
    source : path, bytes or binary file
        The picture; a file object must be at its start and seekable.
    page : int, optional
        Which page of a TIFF, from 0; all if not given.
    display : bool, optional
        Whether pixels are brought to 0 to 255. Else they are the numbers that the file holds.
    name : str, optional
        What messages call the picture, if it is not a path.

    Returns
    -------
    numpy.ndarray
        Shape (y, x, channel) with 3 channels; (page, y, x, channel) of a TIFF of several pages.
        Type uint8 where all pixels are, else float32 (float64 of 32-bit pixels that are not
        brought to 0 to 255).

    Raises
    ------
    ImageError
        If the file is missing, or broken, or not a picture, or its pixels cannot be brought to 0
        to 255.
    """
    if isinstance(source, (str, Path)):
        with open_plain(source) as file:
            return _read(file, str(source) if name is None else name, page, display)
    file = io.BytesIO(source) if isinstance(source, (bytes, bytearray, memoryview)) else source
    return _read(file, name or "a picture", page, display)


def read_stored(path: Path | str, page: int | None = None) -> np.ndarray:
    """Read a picture that holds no colours but numbers, such as a mask, as they are stored.

    Returns
    -------
    numpy.ndarray
        Shape (y, x) of a grey picture, or of one with a palette (then the palette's indices);
        (y, x, channel) of a colour picture.

    Raises
    ------
    ImageError
        If the file is missing, or broken, or not a picture.
    """
    with open_plain(path) as file:

        def stored(picture: Image.Image) -> np.ndarray:
            picture.seek(page or 0)
            pixels = np.asarray(picture)
            return pixels.view(np.uint8) if pixels.dtype == bool else pixels

        return _guarded(file, str(path), stored)


def shades(planes: Sequence[np.ndarray], name: str) -> list[np.ndarray]:
    """Bring the bands of one stamp to 0 to 255: those of a floating-point type may go to 1.

    Parameters
    ----------
    planes : sequence of numpy.ndarray
        Each of shape (y, x).
    name : str
        Of the file, for messages.

    Raises
    ------
    ImageError
        If the pixels are neither from 0 to 255 nor, of a floating-point type, from 0 to 1.
    """
    if all(plane.dtype == np.uint8 for plane in planes):
        return list(planes)
    with np.errstate(invalid="ignore"):
        low = min(np.fmin.reduce(plane, axis=None) for plane in planes)
        high = max(np.fmax.reduce(plane, axis=None) for plane in planes)
    is_float = all(plane.dtype.kind == "f" for plane in planes)
    is_unit = is_float and high <= 1 + ROUNDING / WHITE
    white = 1 if is_unit else WHITE
    # Light that never comes to a quarter of a shade, or goes as far below zero, is a flux.
    is_flux = is_unit and (0 < high < ROUNDING or low < -ROUNDING * high)
    if is_flux or low < -ROUNDING * white or high > WHITE + ROUNDING:
        raise ImageError(
            Flag.NO_DATA,
            f"{name} holds {planes[0].dtype} pixels from {low:g} to {high:g}, and pixels: display "
            "are from 0 to 255 (or 0 to 1 as floating-point numbers); set input.pixels: flux if "
            "they are fluxes, else scale the file, or save it as a picture of 8 or 16 bits",
            name,
        )
    return [plane * np.float32(WHITE) for plane in planes] if is_unit else list(planes)


def _read(file: BinaryIO, name: str, page: int | None, display: bool) -> np.ndarray:
    def pages(picture: Image.Image) -> np.ndarray:
        if page is not None:
            numbers = [page]
        else:
            numbers = _pages(picture) if picture.format == "TIFF" else [0]
        found = [_page(file, picture, number, display, name) for number in numbers]
        if len({pixels.shape for pixels in found}) > 1:
            shapes = ", ".join(str(pixels.shape[:2]) for pixels in found)
            reason = f"{name} has {len(found)} pages that differ in shape: {shapes}; choose one, "
            raise ImageError(Flag.SHAPE_MISMATCH, f"{reason}as in {name}[0]", name)
        return found[0] if len(found) == 1 else np.stack(found)

    return _guarded(file, name, pages)


def _guarded(file: BinaryIO, name: str, read) -> np.ndarray:
    """Open a picture and read it; whatever a broken file raises becomes an ImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata that is not read
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as picture:
                return read(picture)
    except ImageError:
        raise
    except UnidentifiedImageError:
        file.seek(0)
        start = file.read(12)
        what = f"not a picture: it starts with {start!r}" if start else "empty (0 bytes)"
        if start[:4] in (b"II*\0", b"MM\0*"):
            what = (
                "a TIFF of a kind that is not read (such as several floating-point bands); save "
                "each band as a file or page of its own"
            )
        raise ImageError(Flag.UNREADABLE_FILE, f"{name} is {what}", name) from None
    except Exception as error:  # of a damaged file Pillow's errors are of many kinds
        if fault := passing_fault(error):
            raise unavailable(name, fault) from None
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        reason = f"{name} cannot be read: {detail}"
        raise ImageError(Flag.UNREADABLE_FILE, reason, name) from None


def _pages(picture: Image.Image) -> list[int]:
    """Pages of a TIFF that are no reduced copies of another one."""
    found = []
    pixels = picture.n_frames * picture.width * picture.height
    if pixels > Image.MAX_IMAGE_PIXELS:
        raise ValueError(
            f"its {picture.n_frames:,} pages have {pixels:,} pixels, and a picture may have "
            f"{Image.MAX_IMAGE_PIXELS:,}; choose a page, as in picture.tif[0]"
        )
    for number in range(picture.n_frames):
        picture.seek(number)
        if not picture.tag_v2.get(SUBFILE_TYPE, 0) & 1:
            found.append(number)
    return found or [0]


def _page(file: BinaryIO, picture: Image.Image, number: int, display: bool, name: str):
    """Read one page, shape (y, x, 3)."""
    picture.seek(number)
    raw = _raw_mode(picture)
    if raw in UNPACKED and picture.tile[0][0] == "libtiff":
        _reread_as(picture, UNPACKED[raw])
    _refuse_garbled(picture, raw, display)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        pixels, clear = _deep_grey(picture, display, name)
    elif raw in (*SWAPPED, GREY_WITH_ALPHA_16):
        pixels, clear = _deep_colours(file, picture, number, display)
    else:
        pixels, clear = _bytes(file, picture)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    if clear is not None and clear.any():
        pixels = pixels.astype(np.float32)
        pixels[clear] = np.nan
    return _turned(pixels, picture.getexif().get(ORIENTATION, 1))


def _refuse_garbled(picture: Image.Image, raw: str | None, display: bool) -> None:
    """Refuse the deep colours of which Pillow takes other bytes than those of the picture."""
    tags = getattr(picture, "tag_v2", {})
    bits = tags.get(BITS_PER_SAMPLE, (8,))
    if len(bits) == 1 or max(bits) <= 8:
        return
    if tags.get(PLANAR) == A_PLANE_A_COLOUR:
        raise ValueError("it is a TIFF of 16 bits with a plane for each colour; interleave them")
    if not display and raw not in SWAPPED:
        raise ValueError(f"it is a TIFF of 16 bits stored as {raw}; save it as RGB")


def _deep_grey(picture: Image.Image, display: bool, name: str):
    """Read grey pixels of more than 8 bits, shape (y, x), and which of them are transparent."""
    tags = getattr(picture, "tag_v2", {})
    bits, kind = tags.get(BITS_PER_SAMPLE, (16,))[0], tags.get(SAMPLE_FORMAT, (1,))[0]
    stored = np.asarray(picture)
    clear = _is_value(stored, picture.info.get("transparency"))
    if picture.mode == "F":
        stored = stored.astype(np.float32)
    elif kind == SIGNED or bits == 32:
        stored = stored.astype(np.int32)
        stored = stored.view(np.uint32) if kind != SIGNED else stored
    elif tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        stored = 2**bits - 1 - stored.astype(np.int32)
    if not display:
        return stored.astype(np.float64 if bits == 32 else np.float32), clear
    if picture.mode != "F" and kind != SIGNED and bits < 32:
        return _scaled(stored, 2**bits - 1), clear
    if stored.dtype == np.uint32 and stored.max() >= FULL_RANGE:
        return _scaled(stored, 2**32 - 1), clear
    return shades([stored], name)[0].astype(np.float32), clear


def _scaled(stored: np.ndarray, white: int) -> np.ndarray:
    return (stored / (white / WHITE)).astype(np.float32)


def _is_value(stored: np.ndarray, value) -> np.ndarray | None:
    """Where pixels have the one value that a picture calls transparent; shape (y, x), bool."""
    if value is None or isinstance(value, bytes):
        return None
    same = stored == np.asarray(value)
    return same if same.ndim == 2 else same.all(axis=-1)


def _raw_mode(picture: Image.Image) -> str | None:
    """How the file stores its pixels, by the name that Pillow has for it."""
    arguments = picture.tile[0][3] if picture.tile else None
    return arguments[0] if isinstance(arguments, tuple) and arguments else arguments


def _deep_colours(file: BinaryIO, picture: Image.Image, number: int, display: bool):
    """Read colours of 16 bits, shape (y, x, 3) or (y, x), and which are transparent."""
    raw, place = _raw_mode(picture), file.tell()
    file.seek(0)
    with Image.open(file, formats=FORMATS) as again:
        again.seek(number)
        _reread_as(again, "RGBA" if raw == GREY_WITH_ALPHA_16 else SWAPPED[raw])
        low = np.asarray(again).astype(np.uint16)
    file.seek(place)
    if raw == GREY_WITH_ALPHA_16:  # read as if its four bytes were four colours
        stored = 256 * low[..., ::2] + low[..., 1::2]
    else:
        stored = 256 * np.asarray(picture).astype(np.uint16) + low
    clear = _is_value(stored[..., :3], picture.info.get("transparency"))
    if stored.shape[-1] in (2, 4):
        clear = stored[..., -1] == 0
        stored = stored[..., :-1]
    stored = stored[..., 0] if stored.shape[-1] == 1 else stored
    return _scaled(stored, 2**16 - 1) if display else stored.astype(np.float32), clear


def _reread_as(picture: Image.Image, raw: str) -> None:
    """Have a picture that is not loaded yet read as if it were stored in another way."""
    picture.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw)
        for tile in picture.tile
    ]


def _bytes(file: BinaryIO, picture: Image.Image):
    """Read pixels of 1 to 8 bits, shape (y, x) or (y, x, 3), and which are transparent."""
    if picture.mode in ("1", "L"):
        stored = np.asarray(picture.convert("L"))
        tags = getattr(picture, "tag_v2", {})
        if tags.get(SAMPLE_FORMAT, (1,))[0] == SIGNED:
            raise ValueError("its bytes are signed numbers; save them as unsigned ones")
        return stored, _is_value(stored, _clear_shade(file, picture))
    if picture.mode == "LAB":
        lab, rgb = (ImageCms.createProfile(profile) for profile in ("LAB", "sRGB"))
        return np.asarray(ImageCms.profileToProfile(picture, lab, rgb, outputMode="RGB")), None
    if picture.mode == "RGB":
        stored = np.asarray(picture)
        return stored, _is_value(stored, picture.info.get("transparency"))
    premultiplied = {"La": "LA", "RGBa": "RGBA"}.get(picture.mode)
    picture = picture if premultiplied is None else picture.convert(premultiplied)
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        stored = np.asarray(picture.convert("RGBA"))
        return stored[..., :3], stored[..., 3] == 0
    return np.asarray(picture.convert("RGB")), None


def _clear_shade(file: BinaryIO, picture: Image.Image) -> int | None:
    """The transparent shade of a grey picture, which a PNG tells in its own bits."""
    clear = picture.info.get("transparency")
    if not clear or picture.format != "PNG":
        return clear
    place = file.tell()
    file.seek(24)
    bits = file.read(1)[0]
    file.seek(place)
    return WHITE if bits == 1 else clear * (WHITE // (2**bits - 1))


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a picture as its EXIF orientation, 1 to 8, says; shape (y, x, channel)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.flip(pixels, flips) if flips else pixels
