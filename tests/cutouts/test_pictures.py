"""Pictures of every depth and colour type: what is read is what the file's format says.

The pictures are written by hand, byte by byte, or by Pillow from known pixels.
"""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from luneta.cutouts.stamp_files import StampFiles
from luneta.cutouts.stamp_pictures import read_picture, read_stored, shades
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
HIGH, WIDE = 7, 9


def chunk(kind, content):
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png(pixels, depth, colour, *extra, step="none"):
    """A PNG by the letter of its specification; `step` is the filter of its lines."""
    high, wide = pixels.shape[:2]
    if depth == 16:
        lines = pixels.astype(">u2").reshape(high, -1).view(np.uint8)
    elif depth == 8:
        lines = pixels.astype(np.uint8).reshape(high, -1)
    else:
        bits = np.unpackbits(pixels.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        lines = np.packbits(bits.reshape(high, -1), axis=1)
    if step == "up":
        lines = np.diff(lines, axis=0, prepend=np.zeros((1, lines.shape[1]), np.uint8))
    number = {"none": b"\0", "up": b"\2"}[step]
    content = b"".join(number + line.tobytes() for line in lines)
    header = struct.pack(">IIBBBBB", wide, high, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(extra)
        + chunk(b"IDAT", zlib.compress(content))
        + chunk(b"IEND", b"")
    )


def tiff(*pages, order="<", **options):
    """A TIFF by the letter of its specification, each page of one strip (a plane)."""
    content = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    for number, pixels in enumerate(pages):
        content += tiff_page(pixels, len(content), number + 1 == len(pages), order=order, **options)
    return content


def tiff_page(pixels, start, is_last, order, packed=False, white=1, kind=1, planes=False):
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
    stored = np.moveaxis(pixels, -1, 0) if planes else pixels[None]
    strips = [plane.astype(pixels.dtype.newbyteorder(order)).tobytes() for plane in stored]
    strips = [zlib.compress(strip) if packed else strip for strip in strips]
    tags = {
        256: ("I", [pixels.shape[1]]), 257: ("I", [pixels.shape[0]]),
        258: ("H", [8 * pixels.itemsize] * channels), 259: ("H", [8 if packed else 1]),
        262: ("H", [white if channels == 1 else 2]), 273: ("I", [0] * len(strips)),
        277: ("H", [channels]), 278: ("I", [pixels.shape[0]]),
        279: ("I", [len(strip) for strip in strips]), 284: ("H", [2 if planes else 1]),
        339: ("H", [kind] * channels),
    }  # fmt: skip
    beyond = start + 2 + 12 * len(tags) + 4
    data = beyond + sum(struct.calcsize(f"{len(v)}{c}") for c, v in tags.values() if len(v) > 2)
    tags[273] = ("I", [data + sum(map(len, strips[:n])) for n in range(len(strips))])
    entries = more = b""
    for tag, (code, values) in tags.items():
        value = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(value) > 4:
            value, more = struct.pack(order + "I", beyond + len(more)), more + value
        form = {"H": 3, "I": 4}[code]
        entries += struct.pack(order + "HHI", tag, form, len(values)) + value.ljust(4, b"\0")
    end = data + sum(map(len, strips))
    following = struct.pack(order + "I", 0 if is_last else end)
    return struct.pack(order + "H", len(tags)) + entries + following + more + b"".join(strips)


def numbers(depth, channels=1, seed=0):
    shape = (HIGH, WIDE) if channels == 1 else (HIGH, WIDE, channels)
    return np.random.default_rng(seed).integers(0, 2**depth, shape)


def grey(values):
    return np.repeat(np.asarray(values, float)[..., None], 3, axis=-1)


def picture(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_of_any_depth_is_black_at_0_and_white_at_255(depth):
    pixels = numbers(depth)
    pixels[0, :2] = 0, 2**depth - 1
    found = read_picture(png(pixels, depth, GREY))
    assert found[0, :2].tolist() == [[0, 0, 0], [255, 255, 255]]
    assert found == pytest.approx(grey(pixels * 255 / (2**depth - 1)), abs=1e-4)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour", [RGB, GREY_ALPHA, RGB_ALPHA])
@pytest.mark.parametrize("step", ["none", "up"])
def test_colours_of_8_and_16_bits_keep_all_their_bits(depth, colour, step):
    pixels = numbers(depth, CHANNELS[colour]).clip(1)
    expected = pixels * 255 / (2**depth - 1)
    if colour != RGB:
        pixels[2:4, :, -1], pixels[4:6, :, -1] = 0, 1
        expected[2:4] = np.nan  # transparent; what is hardly opaque has a colour still
        expected = expected[..., :-1]
    if colour == GREY_ALPHA:
        expected = np.repeat(expected, 3, axis=-1)
    found = read_picture(png(pixels, depth, colour, step=step))
    assert found == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_one_value_of_16_bits_by_hand():
    found = read_picture(png(np.array([[[0, 257, 65535], [256, 511, 32768]]]), 16, RGB))
    expected = [[0, 1, 255], [256 / 257, 511 / 257, 32768 / 257]]
    assert found[0] == pytest.approx(np.array(expected), abs=1e-5)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_value_of_a_grey_picture_is_masked(depth):
    pixels = numbers(depth)
    value = int(pixels[3, 3])
    expected = pixels * 255 / (2**depth - 1)
    expected[pixels == value] = np.nan
    found = read_picture(png(pixels, depth, GREY, chunk(b"tRNS", struct.pack(">H", value))))
    assert found == pytest.approx(grey(expected), abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour_of_a_picture_is_masked(depth):
    pixels = numbers(depth, 3)
    pixels[5, 5] = pixels[1, 2] + [1, 0, 0] if pixels[1, 2, 0] < 255 else pixels[1, 2] - [1, 0, 0]
    colour = chunk(b"tRNS", struct.pack(">HHH", *pixels[1, 2]))
    found = read_picture(png(pixels, depth, RGB, colour))
    assert np.argwhere(np.isnan(found).all(axis=-1)).tolist() == [[1, 2]]
    assert np.isfinite(found[5, 5]).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_is_looked_up(depth, transparent):
    colours = np.random.default_rng(1).integers(0, 256, (2**depth, 3))
    pixels = numbers(depth)
    extra = [chunk(b"PLTE", colours.astype(np.uint8).tobytes())]
    expected = colours[pixels].astype(float)
    if transparent:  # the first colour is, the second half so
        extra.append(chunk(b"tRNS", b"\0\x80"))
        expected[pixels == 0] = np.nan
    found = read_picture(png(pixels, depth, PALETTE, *extra))
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
class TestTiff:
    def test_grey_of_8_and_16_bits(self, order, packed):
        for depth in (8, 16):
            pixels = numbers(depth).astype(f"u{depth // 8}")
            found = read_picture(tiff(pixels, order=order, packed=packed))
            assert found == pytest.approx(grey(pixels * (255 / (2**depth - 1))), abs=1e-4)

    def test_colours_of_16_bits(self, order, packed):
        pixels = numbers(16, 3).astype(np.uint16)
        found = read_picture(tiff(pixels, order=order, packed=packed))
        assert found == pytest.approx(pixels / 257, abs=1e-4)

    def test_floating_point_from_0_to_1_is_scaled(self, order, packed):
        pixels = np.random.default_rng(0).random((HIGH, WIDE)).astype(np.float32)
        pixels[0, :2] = 0, 1
        found = read_picture(tiff(pixels, order=order, packed=packed, kind=3))
        assert found == pytest.approx(grey(255 * pixels), abs=1e-4)

    def test_floating_point_from_0_to_255_stays(self, order, packed):
        pixels = (250 * np.random.default_rng(0).random((HIGH, WIDE))).astype(np.float32)
        pixels[0, 0] = np.nan
        found = read_picture(tiff(pixels, order=order, packed=packed, kind=3))
        assert found == pytest.approx(grey(pixels), nan_ok=True)

    def test_fluxes_are_refused_as_display_and_read_as_flux(self, order, packed):
        pixels = np.random.default_rng(0).normal(0, 1e-12, (HIGH, WIDE)).astype(np.float32)
        content = tiff(pixels, order=order, packed=packed, kind=3)
        with pytest.raises(ImageError, match="set input.pixels: flux if they are fluxes"):
            read_picture(content, name="a.tif")
        assert read_picture(content, display=False)[..., 0] == pytest.approx(pixels)

    def test_signed_numbers(self, order, packed):
        for dtype in ("i2", "i4"):
            pixels = numbers(8).astype(dtype)
            content = tiff(pixels, order=order, packed=packed, kind=2)
            assert read_picture(content) == pytest.approx(grey(pixels))
            content = tiff(pixels - 100, order=order, packed=packed, kind=2)
            with pytest.raises(ImageError, match="pixels from -100 to"):
                read_picture(content)
            assert read_picture(content, display=False)[..., 1].tolist() == (pixels - 100).tolist()


def test_32_bits_that_use_their_range_are_scaled():
    pixels = np.array([[0, 16843009, 2**32 - 1]], np.uint32)
    assert read_picture(tiff(pixels))[0, :, 0].tolist() == [0, 1, 255]
    assert read_picture(tiff(np.array([[0, 7, 255]], np.uint32)))[0, :, 0].tolist() == [0, 7, 255]
    with pytest.raises(ImageError, match="uint32 pixels from 0 to 5000"):
        read_picture(tiff(np.array([[0, 7, 5000]], np.uint32)))


def test_a_picture_whose_white_is_zero():
    pixels = np.array([[0, 65535, 257]], np.uint16)
    assert read_picture(tiff(pixels, white=0))[0, :, 0].tolist() == [255, 0, 254]


def test_colours_in_planes_of_16_bits_are_refused_for_what_pillow_makes_of_them():
    pixels = numbers(16, 3).astype(np.uint16)
    with pytest.raises(ImageError, match="a plane for each colour; interleave them"):
        read_picture(tiff(pixels, planes=True))
    small = numbers(8, 3).astype(np.uint8)
    assert read_picture(tiff(small, planes=True)).tolist() == small.tolist()


def test_pages_of_a_tiff_are_bands(tmp_path):
    pages = [numbers(8, seed=n).astype(np.uint8) for n in range(3)]
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(*pages))
    files = StampFiles(display=True)
    assert np.array_equal(files.planes([str(path)] * 3), pages)
    assert np.array_equal(files.planes([f"{path}[2]", f"{path}[0]"]), [pages[2], pages[0]])
    with pytest.raises(
        ImageError, match=r"has 3 pages for 1 bands; choose one, as in .*a.tif\[0\]"
    ):
        files.planes([str(path)])
    with pytest.raises(ImageError, match="cannot be read"):
        files.planes([f"{path}[7]"])
    with pytest.raises(ImageError, match="pages of a picture have numbers"):
        files.planes([f"{path}[SCI]"])


def test_cmyk_as_it_is_printed():
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:8, :, 0] = 255  # cyan
    ink[8:, :, 3] = 255  # black
    found = read_picture(picture(Image.fromarray(ink, "CMYK"), "jpeg", quality=100, subsampling=0))
    assert found[2, 2] == pytest.approx([0, 255, 255], abs=2)
    assert found[13, 2] == pytest.approx([0, 0, 0], abs=2)


@pytest.mark.parametrize(
    ("mode", "shade", "expected"),
    [
        ("L", 200, [200, 200, 200]),
        ("1", 1, [255, 255, 255]),
        ("YCbCr", (81, 90, 240), [238, 14, 14]),  # 81 + 1.402 (240 - 128) and so on (JFIF)
        ("LAB", (255, 128, 128), [255, 255, 255]),
        ("LA", (70, 255), [70, 70, 70]),
        ("LA", (70, 0), [np.nan] * 3),
        ("PA", (0, 0), [np.nan] * 3),
        ("RGBA", (1, 2, 3, 0), [np.nan] * 3),
        ("I;16", 514, [2, 2, 2]),
        ("CMYK", (0, 255, 0, 0), [255, 0, 255]),
    ],
)
def test_the_modes_of_pillow(mode, shade, expected):
    found = read_picture(picture(Image.new(mode, (5, 4), shade), "tiff"))
    assert found.shape == (4, 5, 3)
    assert found[2, 2].astype(float) == pytest.approx(expected, abs=1, nan_ok=True)


@pytest.mark.parametrize(
    ("form", "options"), [("webp", {"lossless": True}), ("bmp", {}), ("gif", {})]
)
def test_other_formats(form, options):
    pixels = np.repeat(numbers(8)[..., None], 3, axis=-1).astype(np.uint8)
    found = read_picture(picture(Image.fromarray(pixels), form, **options))
    assert found.tolist() == pixels.tolist()


@pytest.mark.parametrize("form", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_it_says(form, orientation):
    pixels = np.array([[[10] * 3, [20] * 3, [30] * 3], [[40] * 3, [50] * 3, [60] * 3]], np.uint8)
    image = Image.fromarray(pixels)
    told = image.getexif()
    told[274] = orientation
    options = {"lossless": True} if form == "webp" else {}
    found = read_picture(picture(image, form, exif=told, **options))[..., 0].tolist()
    assert (
        found
        == {
            1: [[10, 20, 30], [40, 50, 60]],
            2: [[30, 20, 10], [60, 50, 40]],
            3: [[60, 50, 40], [30, 20, 10]],
            4: [[40, 50, 60], [10, 20, 30]],
            5: [[10, 40], [20, 50], [30, 60]],
            6: [[40, 10], [50, 20], [60, 30]],
            7: [[60, 30], [50, 20], [40, 10]],
            8: [[30, 60], [20, 50], [10, 40]],
        }[orientation]
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png(numbers(8, 3), 8, RGB)[:120], "cannot be read"),
        (b"", "is empty"),
        (b"<html>404", "is not a picture: it starts with b'<html>404'"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture"),
        (tiff(np.zeros((4, 4, 3), np.float32), kind=3), "a TIFF of a kind that is not read"),
        (tiff(np.zeros((4, 4), np.int8), kind=2), "signed numbers"),
    ],
)
def test_what_cannot_be_read_says_why(content, reason):
    with pytest.raises(ImageError, match=reason) as caught:
        read_picture(content, name="a.png")
    assert caught.value.flag == Flag.UNREADABLE_FILE
    assert str(caught.value).startswith("a.png ")


def test_a_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(ImageError, match="decompression bomb"):
        read_picture(png(numbers(8), 8, GREY))


def test_bytes_files_and_paths_are_read_alike(tmp_path):
    content = png(numbers(16, 3), 16, RGB)
    (tmp_path / "a.png").write_bytes(content)
    expected = read_picture(tmp_path / "a.png")
    assert np.array_equal(read_picture(content), expected)
    assert np.array_equal(read_picture(io.BytesIO(content)), expected)
    with pytest.raises(ImageError, match="does not exist"):
        read_picture(tmp_path / "b.png")


def test_a_mask_holds_numbers_and_no_shades(tmp_path):
    pixels = numbers(4)
    colours = chunk(b"PLTE", bytes(range(48)))
    for name, content in {
        "grey.png": png(pixels * 4096, 16, GREY),
        "palette.png": png(pixels, 4, PALETTE, colours),
    }.items():
        (tmp_path / name).write_bytes(content)
    assert np.array_equal(read_stored(tmp_path / "grey.png"), pixels * 4096)
    assert np.array_equal(read_stored(tmp_path / "palette.png"), pixels)
    beside = StampFiles().planes_beside(str(tmp_path / "grey.png"), 2, None)
    assert np.array_equal(beside, [pixels * 4096] * 2)


def test_arrays_as_display_pixels_are_0_to_255_or_0_to_1():
    whole = np.array([[0, 100, 255]], np.int16)
    assert shades([whole], "a")[0].tolist() == [[0, 100, 255]]
    parts = [np.array([[0, 0.5]]), np.array([[1.0, np.nan]])]
    assert shades(parts, "a")[0].tolist() == [[0, 127.5]]
    black = [np.zeros((1, 2)), np.zeros((1, 2))]
    assert shades(black, "a")[0].tolist() == [[0, 0]]
    dark = [np.array([[0.0, 1.0]]), np.array([[200.0, 3.0]])]
    assert shades(dark, "a")[0].tolist() == [[0, 1]]
    for wrong in (
        np.array([[0, 256]]),
        np.array([[-3.0, 20.0]]),
        np.array([[0.1, 5140.0]]),
        np.array([[0, 3e-12]]),
        np.array([[-0.2, 0.9]]),
    ):
        with pytest.raises(ImageError, match="are from 0 to 255") as caught:
            shades([wrong], "a.npy")
        assert caught.value.flag == Flag.NO_DATA


def test_a_nearly_black_picture_is_not_brightened(tmp_path):
    (tmp_path / "a.png").write_bytes(png(np.array([[0, 200], [100, 257]]), 16, GREY))
    planes = StampFiles(display=True).planes([str(tmp_path / "a.png")] * 3)
    assert planes[1] == pytest.approx(np.array([[0, 200 / 257], [100 / 257, 1]]), abs=1e-5)
