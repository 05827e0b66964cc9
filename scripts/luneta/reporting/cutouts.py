"""Pages of example cutouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from luneta.cutouts.shard import Shard
from luneta.reporting.figures import styled
from luneta.reporting.predictions import OutOfFold
from luneta.reporting.style import GREY, panels, say, words

BLUE_TO_RED = "ugrizyjhk"
SOFTENING = 8.0
FAINTEST_WHITE = 30.0
BAD_PIXEL = 0.45
PER_GROUP = 4
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


def _stretched(channels: np.ndarray) -> np.ndarray:
    """Stretch by asinh of the mean intensity, which keeps colours (Lupton et al. 2004)."""
    intensity = np.nan_to_num(channels).mean(axis=0)
    noise = 1.4826 * np.median(np.abs(intensity - np.median(intensity))) or 1.0
    white = max(float(np.percentile(intensity, 99.7)), FAINTEST_WHITE / SOFTENING * noise)
    scale = np.arcsinh(SOFTENING * np.clip(intensity, 0, None) / white) / np.arcsinh(SOFTENING)
    safe = np.where(intensity > 0, intensity, 1.0)
    colour = np.nan_to_num(channels) * np.where(intensity > 0, scale / safe, 0.0)
    return colour / np.maximum(colour.max(axis=0), 1.0)


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
class Pictures:
    """Cutouts of all shards, read by place.

    Attributes
    ----------
    shards : dict
        `Shard` by name.
    """

    shards: dict[str, Shard]

    @classmethod
    def open(cls, cutouts: Mapping[str, Path | str]) -> Pictures:
        """Open `cutouts/{shard}.arrow` files, given by shard."""
        return cls({name: Shard(path) for name, path in cutouts.items()})

    def at(self, shard: str, row: int) -> np.ndarray:
        """Make the picture of one cutout, upright: shape (y, x, 3), float, 0 to 1."""
        found = self.shards[shard]
        picture = composite(found.take(np.array([row]))[0], found.bands, found.pixels)
        return picture[::-1] if found.pixels == "flux" else picture

    def random(self, count: int, seed: int = 0) -> list[np.ndarray]:
        """Draw pictures from all shards, each object as likely as the other."""
        sizes = np.array([len(shard) for shard in self.shards.values()], int)
        total, names = int(sizes.sum()), list(self.shards)
        chosen = np.random.default_rng(seed).choice(total, min(count, total), replace=False)
        ends = np.cumsum(sizes)
        which = np.searchsorted(ends, chosen, side="right")
        rows = chosen - (ends - sizes)[which]
        return [self.at(names[s], int(r)) for s, r in zip(which, rows, strict=True)]


def _place(axes: Axes, picture: np.ndarray, column: float, row: float) -> None:
    """Draw a picture in a unit square; rows count downwards."""
    extent = (column, column + 0.94, row + 0.94, row)
    axes.imshow(picture, extent=extent, interpolation="nearest", aspect="equal")


def _blank(axes: Axes, columns: float, rows: float) -> None:
    axes.set_axis_off()
    axes.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal")


@styled
def random_cutouts(pictures: Sequence[np.ndarray], columns: int = 12) -> Figure:
    """Show a montage of pictures, each of shape (y, x, 3)."""
    if not pictures:
        figure, (axes,) = panels(1, 6, 2.5)
        say(axes, "No object is usable, so there are no cutouts.")
        return figure
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    figure, (axes,) = panels(1, 0.85 * columns + 0.2, 0.85 * rows + 0.2)
    for number, picture in enumerate(pictures):
        _place(axes, picture, number % columns, number // columns)
    _blank(axes, columns, rows)
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


def _example(axes: Axes, picture: np.ndarray, found: OutOfFold, i: int, x: float, y: float) -> None:
    _place(axes, picture, x, y)
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
    _blank(axes, width, 1.22 * rows)
    axes.set(xlim=(-1.3, width), ylim=(1.22 * rows, -0.5))
    return figure
