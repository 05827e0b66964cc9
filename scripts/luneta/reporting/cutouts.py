"""Pages of example cutouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from luneta.cutouts.shard import Shard
from luneta.reporting.predictions import OutOfFold
from luneta.reporting.style import GREY, panels, say, styled, words
from luneta.survey.flags import UNUSABLE, Flag

BLUE_TO_RED = "ugrizyjhk"
SOFTENING = 8.0
FAINTEST_WHITE = 30.0
BAD_PIXEL = 0.45
BALANCE, COLOURFULNESS = (0.5, 2.0), 0.65
PER_GROUP = 4
FEW = 50
SIDE = 0.94
TICK, TICK_COLOUR = (0.15, 0.21), "#FFD54A"
SHARDS_OPEN, SHARDS_READ, SAMPLE = 32, 200, 1000
SOFT_FLAGS = tuple(flag for flag in Flag if not flag & UNUSABLE)
GROUPS = ("surest of the label", "least sure of the label", "most uncertain")


def _blue_to_red(bands: Sequence[str]) -> list[int]:
    """Order bands by wavelength if their names tell it; else they count as ordered."""
    letters = [name[-1].lower() for name in bands]
    if len(set(letters)) < len(letters) or not set(letters) <= set(BLUE_TO_RED):
        return list(range(len(bands)))
    return sorted(range(len(bands)), key=lambda i: BLUE_TO_RED.index(letters[i]))


def _channels(image: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Choose red, green and blue among the bands; shape (3, y, x), float."""
    order = _blue_to_red(bands)
    if len(order) == 2:
        red, blue = image[order[1]], image[order[0]]
        return np.stack([red, (red + blue) / 2, blue])
    return image[[order[-1], order[len(order) // 2], order[0]]]


def _balanced(channels: np.ndarray) -> np.ndarray:
    """Bring the channels nearer to each other in flux; in noise units the deepest band rules."""
    total = np.clip(np.nan_to_num(channels), 0, None).mean(axis=(1, 2)) + 1e-6
    return channels * np.clip(np.sqrt(total.mean() / total), *BALANCE)[:, None, None]


def _stretched(channels: np.ndarray) -> np.ndarray:
    """Stretch by asinh of the mean intensity, which keeps colours (Lupton et al. 2004)."""
    channels = _balanced(channels)
    intensity = np.nan_to_num(channels).mean(axis=0)
    noise = 1.4826 * np.median(np.abs(intensity - np.median(intensity))) or 1.0
    white = max(float(np.percentile(intensity, 99.7)), FAINTEST_WHITE / SOFTENING * noise)
    scale = np.arcsinh(SOFTENING * np.clip(intensity, 0, None) / white) / np.arcsinh(SOFTENING)
    safe = np.where(intensity > 0, intensity, 1.0)
    colour = np.nan_to_num(channels) * np.where(intensity > 0, scale / safe, 0.0)
    colour = colour / np.maximum(colour.max(axis=0), 1.0)
    return COLOURFULNESS * colour + (1 - COLOURFULNESS) * np.clip(colour, 0, 1).mean(axis=0)


def composite(image: np.ndarray, bands: Sequence[str], pixels: str) -> np.ndarray:
    """Make a picture of a cutout.

    Parameters
    ----------
    image : numpy.ndarray
        Shape (band, y, x), float32; NaN is bad and becomes grey.
    bands : sequence of str
        Names along the band axis; with one, the picture is grey.
    pixels : {"flux", "display"}
        Display pixels (0 to 255, red first) are shown as they are.

    Returns
    -------
    numpy.ndarray
        Shape (y, x, 3), float, 0 to 1; for flux pixels the first row is at the bottom of the
        sky, so draw it with `origin="lower"`.
    """
    if pixels == "display":
        channels = image[[0, len(image) // 2, -1]] / 255.0
    else:
        channels = _stretched(_channels(image, bands))
    bad = ~np.isfinite(image).any(axis=0)
    picture = np.clip(np.nan_to_num(channels), 0, 1)
    return np.moveaxis(np.where(bad, BAD_PIXEL, picture), 0, -1)


@dataclass(frozen=True)
class Picture:
    """A cutout made visible.

    Attributes
    ----------
    pixels : numpy.ndarray
        Shape (y, x, 3), float, 0 to 1, first row at the top.
    object_id : str
        Name of the object.
    centre : tuple of 2 floats
        Centre of the object's pixel from the left and from the top, as fractions of the side.
    """

    pixels: np.ndarray
    object_id: str
    centre: tuple[float, float]


def _names_and_flags(path: Path | str) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Read the names and flags of a shard file, without the cutouts."""
    options = pa.ipc.IpcReadOptions(included_fields=[0, 1])
    table = pa.ipc.open_file(pa.memory_map(str(path)), options=options).read_all()
    return table["object_id"], table["flags"].to_numpy()


class Pictures:
    """Cutouts of all shards, read by place; few shards are open at a time.

    Parameters
    ----------
    cutouts : mapping
        `cutouts/{shard}.arrow` by shard.
    """

    def __init__(self, cutouts: Mapping[str, Path | str]):
        self.paths = dict(cutouts)
        self._shard = lru_cache(SHARDS_OPEN)(lambda name: Shard(self.paths[name]))
        self._rows = lru_cache(SHARDS_OPEN)(lambda name: _names_and_flags(self.paths[name]))

    def at(self, shard: str, row: int) -> Picture:
        """Make the picture of one cutout, upright."""
        found = self._shard(shard)
        pixels = composite(found.take(np.array([row]))[0], found.bands, found.pixels)
        height, width = pixels.shape[:2]
        right, down = (width // 2 + 0.5) / width, (height // 2 + 0.5) / height
        if found.pixels == "flux":
            pixels, down = pixels[::-1], 1 - down
        return Picture(pixels, self._rows(shard)[0][row].as_py(), (right, down))

    def find(self, names: Mapping[str, str | None]) -> dict[str, tuple[str, int]]:
        """Find shard and row of usable objects.

        Parameters
        ----------
        names : mapping
            By object_id, the shard that is looked into first, if it is one; then come the others
            in their order, until all are found.
        """
        found: dict[str, tuple[str, int]] = {}
        for shard in self.paths:
            found |= self._rows_in(shard, [name for name, first in names.items() if first == shard])
        for shard in self.paths:
            if not (left := [name for name in names if name not in found]):
                break
            found |= self._rows_in(shard, left)
        return found

    def _rows_in(self, shard: str, names: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Find the rows of those of some objects that a shard holds."""
        if not names:
            return {}
        rows = pc.index_in(pa.array(names, pa.string()), self._rows(shard)[0]).to_pylist()
        pairs = zip(names, rows, strict=True)
        return {name: (shard, row) for name, row in pairs if row is not None}

    def _some_shards(self, random: np.random.Generator) -> list[str]:
        """All shards in random order, or as many as can be looked into in a short time."""
        return [list(self.paths)[i] for i in random.permutation(len(self.paths))[:SHARDS_READ]]

    def random(self, number: int, seed: int = 0) -> list[Picture]:
        """Draw pictures, each object as likely as the other (of a big survey, from some shards)."""
        random = np.random.default_rng(seed)
        names = self._some_shards(random)
        sizes = np.array([len(self._rows(name)[1]) for name in names], int)
        chosen = random.choice(sizes.sum(), min(number, sizes.sum()), replace=False)
        ends = np.cumsum(sizes)
        which = np.searchsorted(ends, np.sort(chosen), side="right")
        rows = np.sort(chosen) - (ends - sizes)[which]
        return [self.at(names[shard], int(row)) for shard, row in zip(which, rows, strict=True)]

    def all(self) -> list[Picture]:
        """Make the pictures of all objects, in order; for small surveys."""
        return [self.at(name, row) for name in self.paths for row in range(self._size(name))]

    def _size(self, shard: str) -> int:
        return len(self._rows(shard)[1])

    def few(self, limit: int) -> bool:
        """Whether there are no more objects than that."""
        objects = 0
        for name in self.paths:
            objects += self._size(name)
            if objects > limit:
                return False
        return True

    def flagged(self, number: int, seed: int = 0) -> dict[Flag, list[Picture]]:
        """Find examples of usable objects by flag; those with few other flags come first."""
        random, places = np.random.default_rng(seed), {flag: [] for flag in SOFT_FLAGS}
        for name in self._some_shards(random):
            flags = self._rows(name)[1]
            for flag, found in places.items():
                rows = np.flatnonzero(flags & flag.value)
                rows = random.permutation(rows)[:SAMPLE]
                others = np.array([int(value).bit_count() for value in flags[rows]], int)
                found += [
                    (others[i], name, int(rows[i])) for i in np.argsort(others, kind="stable")
                ][:number]
        chosen = {f: sorted(found, key=lambda place: place[0]) for f, found in places.items()}
        return {
            flag: [self.at(name, row) for _, name, row in found[:number]]
            for flag, found in chosen.items()
            if found
        }


def place(axes: Axes, picture: np.ndarray, column: float, row: float) -> None:
    """Draw a picture in a unit square; rows count downwards."""
    extent = (column, column + SIDE, row + SIDE, row)
    axes.imshow(picture, extent=extent, interpolation="nearest", aspect="equal")


def _tick(axes: Axes, picture: Picture, column: float, row: float) -> None:
    """Point at the object's pixel from four sides, well off the object."""
    x, y = column + SIDE * picture.centre[0], row + SIDE * picture.centre[1]
    for across, down in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        reach = np.array(TICK) * SIDE
        axes.plot(x + across * reach, y + down * reach, color=TICK_COLOUR, linewidth=0.7)


def shortened(name: str, length: int) -> str:
    """Cut the middle out of a long name, and put a dot for what cannot be printed."""
    name = "".join(letter if letter.isprintable() else "·" for letter in name)
    if len(name) <= length:
        return name
    return f"{name[: length // 2]}…{name[len(name) - (length - length // 2 - 1) :]}"


def blank(axes: Axes, columns: float, rows: float) -> None:
    """Show a page of unit squares alone, rows counted downwards."""
    axes.set_axis_off()
    axes.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal")


def _nothing(text: str) -> Figure:
    figure, (axes,) = panels(1, 6, 2.5)
    say(axes, text)
    return figure


def _layout(number: int) -> tuple[int, float]:
    """Choose the columns of a montage and the side of a stamp in inches."""
    if number > FEW:
        return 12, 0.85
    columns = number if number <= 4 else -(-number // max(round(np.sqrt(number / 1.6)), 1))
    return columns, float(np.clip(13.5 / columns, 1.45, 2.8))


@styled
def montage(pictures: Sequence[Picture]) -> Figure:
    """Show pictures side by side; where they are few, large and with the object's name."""
    if not pictures:
        return _nothing("No object is usable, so there are no cutouts.")
    columns, side = _layout(len(pictures))
    named = len(pictures) <= FEW
    rows, height = -(-len(pictures) // columns), 1.0 + (0.2 / side if named else 0.0)
    figure, (axes,) = panels(1, side * columns + 0.2, side * height * rows + 0.2)
    for number, picture in enumerate(pictures):
        x, y = number % columns, number // columns * height
        place(axes, picture.pixels, x, y)
        _tick(axes, picture, x, y)
        if named:
            text = shortened(picture.object_id, int(side * 15))
            picture_caption(axes, text, x + SIDE / 2, y + SIDE + 0.02)
    blank(axes, columns, rows * height)
    return figure


def picture_caption(axes: Axes, text: str, x: float, y: float, color: str = "black") -> None:
    """Write a small text below a picture."""
    # A name may hold dollar signs, which are no formula.
    axes.text(x, y, text, ha="center", va="top", fontsize=7, parse_math=False, color=color)


@styled
def flagged_cutouts(found: Mapping[Flag, Sequence[Picture]]) -> Figure:
    """Show examples of objects that are usable in spite of a flag, a row for each flag."""
    if not found:
        return _nothing("No usable object bears a flag.")
    columns, side, height = max(map(len, found.values())), 1.3, 1.2
    width = max(columns, 4) + 1.2
    figure, (axes,) = panels(1, side * width + 0.2, side * height * len(found) + 0.2)
    for row, (flag, pictures) in enumerate(found.items()):
        title = words(flag.name.lower())
        axes.text(-0.08, row * height + SIDE / 2, title, ha="right", va="center", fontsize=10)
        for column, picture in enumerate(pictures):
            place(axes, picture.pixels, column, row * height)
            _tick(axes, picture, column, row * height)
            picture_caption(
                axes, shortened(picture.object_id, 20), column + SIDE / 2, row * height + 0.96
            )
    blank(axes, columns, len(found) * height)
    axes.set_xlim(-1.2, max(columns, 4))
    return figure


def chosen_examples(found: OutOfFold, number: int) -> list[np.ndarray]:
    """Choose objects of a class for the examples.

    Parameters
    ----------
    found : OutOfFold
        The predictions.
    number : int
        The class.

    Returns
    -------
    list of numpy.ndarray
        Rows of `found` in each of `GROUPS`, int.
    """
    rows = np.flatnonzero(found.labels == number)
    sure = found.probabilities[rows, number]
    best = np.argsort(-sure, kind="stable")[:PER_GROUP]
    worst = np.argsort(sure, kind="stable")[:PER_GROUP]
    unclear = np.argsort(-found.entropy[rows], kind="stable")[:PER_GROUP]
    return [rows[best], rows[worst], rows[unclear]]


def _example(axes: Axes, picture: Picture, found: OutOfFold, i: int, x: float, y: float) -> None:
    place(axes, picture.pixels, x, y)
    predicted = int(found.probabilities[i].argmax())
    text = f"{found.probabilities[i, predicted]:.2f} {words(found.classes[predicted])}"
    color = "black" if predicted == found.labels[i] else "#B00000"
    axes.text(x + 0.47, y + 0.97, text, ha="center", va="top", fontsize=6.5, color=color)


@styled
def examples(found: OutOfFold, places: Mapping[str, tuple[str, int]], pictures: Pictures) -> Figure:
    """Show the surest, the least sure and the most uncertain objects of each class.

    Parameters
    ----------
    found : OutOfFold
        The predictions.
    places : mapping
        Shard and row of each labelled object, by object_id.
    pictures : Pictures
        The cutouts.
    """
    rows, width = len(found.classes), len(GROUPS) * (PER_GROUP + 0.35) - 0.35
    figure, (axes,) = panels(1, 0.9 * (width + 1.3), 0.9 * (1.22 * rows + 0.5))
    for number, name in enumerate(found.classes):
        for group, members in enumerate(chosen_examples(found, number)):
            for column, i in enumerate(members):
                x, y = group * (PER_GROUP + 0.35) + column, 1.22 * number
                picture = pictures.at(*places[found.object_id[i]])
                _example(axes, picture, found, int(i), x, y)
        axes.text(-0.1, 1.22 * number + 0.47, words(name), ha="right", va="center", fontsize=10)
    for group, title in enumerate(GROUPS):
        x = group * (PER_GROUP + 0.35)
        axes.text(x, -0.15, title, ha="left", va="bottom", fontsize=10, color=GREY)
    blank(axes, width, 1.22 * rows)
    axes.set(xlim=(-1.3, width), ylim=(1.22 * rows, -0.5))
    return figure
