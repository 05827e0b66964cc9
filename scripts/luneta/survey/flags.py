"""The flags that an object can carry in the catalog."""

from __future__ import annotations

from enum import IntFlag


class Flag(IntFlag):
    """Bit mask of an object's defects; 0 is clean."""

    EDGE = 1
    MASKED = 2
    SATURATED = 4
    DUPLICATE_ID = 8
    BAD_POSITION = 16
    OUTSIDE = 32
    MISSING_FILE = 64
    UNREADABLE_FILE = 128
    NO_WCS = 256
    NO_DATA = 512
    TOO_MASKED = 1024
    WCS_OFFSET = 2048
    SHAPE_MISMATCH = 4096
    BAD_CHECKSUM = 8192
    BAD_ID = 16384
    OVERLAP = 32768
    HEADER_CONFLICT = 65536
    CONSTANT = 131072
    MISSING_BAND = 262144
    UNAVAILABLE = 524288


NOTE = "note"  # in the place of a flag's name: a file that is odd and was used
DESCRIPTIONS = {
    Flag.EDGE: "the cutout reaches over the edge of the image; what lies beyond is masked",
    Flag.MASKED: "the cutout holds bad pixels",
    Flag.SATURATED: "a saturated pixel lies on the object",
    Flag.DUPLICATE_ID: "another row of the source list has the same object_id; the first is used",
    Flag.BAD_POSITION: "the position is missing, not a number, or no point of the sky",
    Flag.OUTSIDE: "the position lies outside every tile",
    Flag.MISSING_FILE: "an image of the object does not exist",
    Flag.UNREADABLE_FILE: "an image of the object cannot be read",
    Flag.NO_WCS: "an image of the object has no celestial coordinate system",
    Flag.NO_DATA: "an image of the object holds no usable pixel",
    Flag.TOO_MASKED: "more of the cutout is bad than the config allows",
    Flag.WCS_OFFSET: "the tile's coordinate system disagrees with the source list",
    Flag.SHAPE_MISMATCH: "images that belong together differ in shape",
    Flag.BAD_CHECKSUM: "an image of the object has changed since its checksum was written",
    Flag.BAD_ID: "the row of the source list has no object_id",
    Flag.OVERLAP: "another tile gives a better cutout of the same object",
    Flag.HEADER_CONFLICT: "the config and the header of an image contradict each other",
    Flag.CONSTANT: "one exact value fills a large part of a band; its pixels are masked",
    Flag.MISSING_BAND: "a band of the object is missing; its pixels are masked",
    Flag.UNAVAILABLE: "an image of the object could not be read; the next run tries again",
}

UNUSABLE = (
    Flag.DUPLICATE_ID
    | Flag.BAD_POSITION
    | Flag.OUTSIDE
    | Flag.MISSING_FILE
    | Flag.UNREADABLE_FILE
    | Flag.NO_WCS
    | Flag.NO_DATA
    | Flag.TOO_MASKED
    | Flag.SHAPE_MISMATCH
    | Flag.BAD_CHECKSUM
    | Flag.BAD_ID
    | Flag.OVERLAP
    | Flag.UNAVAILABLE
)


def count(flags) -> dict[str, int]:
    """Count the objects that carry each flag.

    Parameters
    ----------
    flags : numpy.ndarray
        Flags of the objects, shape (objects,), int32.
    """
    return {flag.name.lower(): int(((flags & flag.value) != 0).sum()) for flag in Flag}
